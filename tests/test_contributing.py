"""The steps of CONTRIBUTING.md, followed in a copy of the package: what is added works everywhere."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import ckptsel

PACKAGE = Path(ckptsel.__file__).parent

SCORE = '''
"""`spread`: mean variance of the features, whatever the labels are."""

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score


def _score(inputs: ScoreInputs) -> ScoreResult:
    return ScoreResult(float(inputs.fit_features.var(dim=0).mean()))


SCORE = Score("spread", "mean variance of the features", "nats", _score)
'''

SOURCE = '''
"""A text file with a path and a class on each line."""

from pathlib import Path

from ckptsel.target.images import ImageSet, files_as_image_set


class ListSource:
    kind = "list"

    def __init__(self, path: Path) -> None:
        self.lines = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]

    def splits(self) -> list[str]:
        return ["train"]

    def read(self, split: str) -> ImageSet:
        names = tuple(sorted({name for _, name in self.lines}))
        paths = [Path(path) for path, _ in self.lines]
        return files_as_image_set(split, paths, [names.index(n) for _, n in self.lines], names)
'''

RECIPE = '''
"""Recipe `mine`, which is that of CIFAR-10 under another name."""

import dataclasses

from ckptsel.reproduce import cifar10_mnist

PRESETS = (dataclasses.replace(cifar10_mnist.PRESETS[-1], name="mine", preset="smoke"),)
'''


class Copy:
    """A copy of the package that is edited as the steps say."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "ckptsel"
        shutil.copytree(PACKAGE, self.root, ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, name: str, text: str) -> None:
        assert not (self.root / name).exists()
        (self.root / name).write_text(text.lstrip())

    def edit(self, name: str, before: str, after: str) -> None:
        text = (self.root / name).read_text()
        assert text.count(before) == 1, (name, before)
        (self.root / name).write_text(text.replace(before, after))


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """The folder of a package that has one more of everything."""
    copy = Copy(tmp_path / "copy")
    # A score
    copy.add("scores/spread.py", SCORE)
    copy.edit("scores/__init__.py", '    "logme_thuml",\n', '    "logme_thuml",\n    "spread",\n')
    # A checkpoint format
    copy.edit(
        "checkpoints/formats.py",
        "FORMATS = (\n",
        'FORMATS = (\n    ("my trainer", {"state_dict", "my_trainer_version"}),\n',
    )
    # A data source
    copy.add("target/lists.py", SOURCE)
    copy.edit(
        "target/sources.py",
        "    if suffix in TABLE_SUFFIXES:\n",
        '    if suffix == ".lst":\n        return ListSource(path)\n'
        "    if suffix in TABLE_SUFFIXES:\n",
    )
    copy.edit(
        "target/sources.py",
        "from ckptsel.target.paper import",
        "from ckptsel.target.lists import ListSource\nfrom ckptsel.target.paper import",
    )
    # A policy of the gate
    copy.edit(
        "settings/policy.py",
        '    min_accuracy: Annotated[Fraction | None, Option("What the best must reach',
        '    min_images: Annotated[int | None, Option("Images that must be evaluated.")] = None\n'
        '    min_accuracy: Annotated[Fraction | None, Option("What the best must reach',
    )
    copy.edit(
        "settings/policy.py",
        "        has_policy = self.current",
        "        has_policy = self.min_images or self.current",
    )
    copy.edit(
        "gating/gate.py",
        "    if policy.min_accuracy is not None:\n",
        "    if policy.min_images is not None:\n"
        '        n = ranking.target["evaluation"]["n_eval"]\n'
        "        decision = PASS if n >= policy.min_images else FAIL\n"
        '        checks.append(Check("min-images", decision, f"{n} images"))\n'
        "    if policy.min_accuracy is not None:\n",
    )
    # A recipe
    copy.add("reproduce/mine.py", RECIPE)
    copy.edit("reproduce/registry.py", "*imagenet.PRESETS]", "*imagenet.PRESETS, *mine.PRESETS]")
    copy.edit(
        "reproduce/registry.py",
        "import cifar10_mnist, cifar10_ssl, imagenet",
        "import cifar10_mnist, cifar10_ssl, imagenet, mine",
    )
    return copy.root.parent


SCRIPT = """
import contextlib, io, json, sys
from ckptsel.cli import main

answers = []
for arguments in json.loads(sys.stdin.read()):
    sys.argv = ["ckptsel", *arguments]
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    answers.append([code, out.getvalue()])
print(json.dumps(answers))
"""


def run_all(package: Path, *calls: list[str]) -> list[tuple[int, str]]:
    """(exit code, stdout) of each command, in one process that knows the extended package."""
    code = f"import sys; sys.path.insert(0, {str(package)!r})\n{textwrap.dedent(SCRIPT)}"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        env=None,
    )
    assert ended.returncode == 0, ended.stderr
    return [(code, out) for code, out in json.loads(ended.stdout.splitlines()[-1])]


def test_the_steps_lead_there(
    extended: Path, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    payload = {"state_dict": {"a.weight": torch.ones(2, 2)}, "my_trainer_version": 1, "epoch": 3}
    (tmp_path / "mine").mkdir()
    torch.save(payload, tmp_path / "mine" / "a.pt")
    lines = [f"{path} {path.parent.name}" for path in sorted((images / "train").rglob("*.png"))]
    (tmp_path / "images.lst").write_text("\n".join(lines))
    out = str(tmp_path / "ranking")
    rank = ["rank", str(trajectory), "--data", str(tmp_path / "images.lst"), "-q", "-o", out]
    ranked, inspected, few, enough, listed = run_all(
        extended,
        [*rank, "--holdout", "0.5", "--scores", "linear_probe,spread", "-f", "json"],
        ["inspect", str(tmp_path / "mine")],
        ["gate", out, "--min-images", "1000"],
        ["gate", out, "--min-images", "2"],
        ["reproduce", "--list"],
    )
    value = json.loads(ranked[1])
    assert value["target"]["kind"] == "list"
    assert value["units"] == {"linear_probe": "accuracy", "spread": "nats"}
    assert all(row["scores"]["spread"]["value"] > 0 for row in value["checkpoints"])
    assert "my trainer" in inspected[1]
    assert few[0] == 4 and "fail: min-images: 18 images" in few[1]
    assert enough[0] == 0
    assert "mine --preset smoke: " in listed[1]


def test_every_step_list_is_followed() -> None:
    """A list that is added must be followed too: here, or (an encoder) in test_seams.py."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    lists = [
        line.removeprefix("## Add ") for line in text.splitlines() if line.startswith("## Add ")
    ]
    assert lists == [
        "a score",
        "a checkpoint format",
        "a data source",
        "an encoder",
        "a policy to the gate",
        "a recipe",
    ]
