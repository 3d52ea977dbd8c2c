"""The documentation: every command and snippet in it runs, what is generated is current.

Commands run in a made world in which the names that the documentation uses exist. What takes hours for
real is made small by REPLACED, and by fewer training steps.
"""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import torch
import typer
import yaml

import ckptsel
import ckptsel.cli
from ckptsel.confirmation import protocols
from tests.conftest import TINY_MODEL, make_data, make_imagenet, save_checkpoint, save_images
from tools import reference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SLOW_PAGES = {"own-data", "reproduce", "ci", "confirm", "extract", "layers", "own-model", "targets"}
"""Whose commands take long: `make test-all` runs them."""

SLOW_SNIPPETS = {"watch"}
"""And whose snippets do."""

RUN = "reference_runs/cifar10-mnist-small"

REPLACED = {
    "resnet50": TINY_MODEL,
    "small": "smoke",
    "paper": "smoke",
    "s3://lab/run7/": "ckpts/",
    "gs://lab/run7/": "ckpts/",
    "s3://lab/my_images/": "my_images/",
    "s3://lab/ranking7/": "ranking7/",
}
"""Models, presets and addresses of the documentation, and what the made world has in their place."""

WATCH_ENDS = ["--poll", "0.1", "--stop-after", "0", "--nice", "0"]
"""Options of a watch that ends, in this process; of an option that is given twice the last counts."""

NOT_OURS = {
    "python train.py": "timm's training script",
    "python -m": "torch's converter of DCP folders",
}
"""Commands of other programs, by their first words, which are not run."""

OTHERS_OPTIONS = {"--checkpoint-hist", "--output", "--saveckp_freq", "--times", "--user"}
"""Options of other programs, and of tools of the repository, that the text speaks of."""

VERDICTS = (0, 4, 5)
"""Exit codes of a command that worked; a gate may say no, or that it cannot tell."""

BLOCK = re.compile(r"^(<!-- .* -->\n)?```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def slow_or_not(page: Path, slow: set[str]) -> Any:
    return pytest.param(page, marks=pytest.mark.slow) if page.stem in slow else page


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, str, str]]:
    """(language, text, the comment in the line before) of a page's fenced blocks."""
    for comment, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield language, text, comment


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command of a page, in their order, comments left out."""
    for language, text, _ in blocks(page, "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            if language == "console":
                if not line.startswith("$ "):
                    continue  # output
                line = line.removeprefix("$ ")
            if words := shlex.split(line, comments=True):
                yield words


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names that the documentation uses exist."""
    world = tmp_path_factory.mktemp("world")
    for i, epoch in enumerate((1, 5, 10)):
        save_checkpoint(
            world / f"ckpts/checkpoint-{epoch:03d}.safetensors", i, epoch, 0.4 + 0.1 * i
        )
    save_images(world / "my_images", 12)
    save_images(world / "new_images", 2, seed=2)
    save_images(world / "split_images/train", 12)
    save_images(world / "split_images/val", 10, seed=1)
    rows = [f"{p},{p.parent.name[-1]}" for p in sorted(world.glob("my_images/*/*"))]
    (world / "labels.csv").write_text("\n".join(["path,label", *rows]))
    make_data(world / "data/cifar10", "train", 220, "RGB")
    make_data(world / "data/cifar10", "test", 40, "RGB")
    make_data(world / "data/mnist", "train", 120, "L")
    make_imagenet(world / "data/imagenet")
    (world / "reference_runs").symlink_to(ROOT / "reference_runs")
    for page in PAGES:
        write_named(page, "python", world)
    save_own_checkpoints(world)
    return world


def write_named(page: Path, language: str, world: Path) -> list[Path]:
    """Write the snippets of a page that begin with the name of a file; the files."""
    written = []
    for _, text, _ in blocks(page, language):
        if name := re.match(r"# (\w+\.\w+)\n", text):
            written.append(world / name.group(1))
            written[-1].write_text(text)
    return written


def save_own_checkpoints(world: Path) -> None:
    """Checkpoints of the module that docs/own-model.md defines; a pickled one that it converts."""
    own: dict[str, object] = {}
    exec((world / "my_models.py").read_text(), own)
    for folder in ("own_ckpts", "old_ckpts"):
        (world / folder).mkdir()
    for epoch in (1, 2):
        torch.save(own["backbone"]().state_dict(), world / f"own_ckpts/epoch{epoch}.pt")  # type: ignore[operator]
    torch.save({"network": torch.nn.Linear(2, 2)}, world / "old_ckpts/epoch7.pt")


@pytest.fixture(autouse=True)
def in_world(world: Path, reference_cache: str, monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Inside the world, with a ranking there; nine steps a training, one cross-validation."""
    monkeypatch.chdir(world)
    monkeypatch.setattr("ckptsel.target.splits.MAX_REPEATS", 1)
    monkeypatch.setenv("CKPTSEL_CACHE", reference_cache)
    for presets in (protocols.DEFAULTS, *protocols.PRESETS.values()):
        for goal, protocol in presets.items():
            monkeypatch.setitem(presets, goal, dataclasses.replace(protocol, n_steps=9))
    if not Path("ranking").exists():
        assert run("rank", "ckpts/", "--data", "my_images/", "--out", "ranking/", "-q")[0] == 0
        shutil.copytree("ranking", "other")


@pytest.fixture
def settings_of(world: Path) -> Iterator[Callable[[Path], None]]:
    """Writes a page's configuration files, which count for its commands alone."""
    written: list[Path] = []
    yield lambda page: written.extend(write_named(page, "toml", world))
    for path in written:
        path.unlink()


def recipe_of(words: list[str]) -> str:
    """A command without its folder: a second run into another folder shows no more."""
    return re.sub(r" --out \S+", "", " ".join(words))


def ours(words: list[str]) -> list[str]:
    """The words behind `ckptsel`, with what the made world has in place of what it has not."""
    return [REPLACED.get(word, word) for word in words[1:]]


def recipes_elsewhere(page: Path) -> set[str]:
    """Recipes that the page about them runs, which is a slow one."""
    about = ROOT / "docs/reproduce.md"
    found = [] if page == about else commands(about)
    return {recipe_of(ours(w)) for w in found if w[:2] == ["ckptsel", "reproduce"] and len(w) > 3}


@pytest.mark.parametrize("page", [slow_or_not(page, SLOW_PAGES) for page in PAGES], ids=NAMES)
def test_every_command_runs(page: Path, run, settings_of) -> None:
    settings_of(page)
    run_before = recipes_elsewhere(page)
    for words in commands(page):
        if "||" in words:
            words = words[: words.index("||")]
        if words[0] == "torchrun":
            words = words[words.index("-m") + 1 :]
        if words[0] == "ckptsel":
            words = ours(words)
            words += WATCH_ENDS if words[0] == "watch" else []
            if (recipe := recipe_of(words)) in run_before:
                continue
            if words[0] == "reproduce" and words[1] != "verify":
                run_before.add(recipe)
            code, _, err = run(*words)
            assert code in VERDICTS, f"{shlex.join(words)}: {err}"
        elif words[:2] == ["pip", "install"]:
            assert set(re.findall(r"\[(\w+)\]", words[2])) <= extras(), shlex.join(words)
        elif words[0] == "cp":
            subprocess.run(words, check=True)
        elif words[0] == "make":
            assert set(words[1:]) <= make_targets(), shlex.join(words)
        else:
            assert " ".join(words[:2]) in NOT_OURS, f"not known: {shlex.join(words)}"


def extras() -> set[str]:
    return set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_option_spoken_of_exists(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    inline = " ".join(code for code in re.findall(r"`([^`\n]+)`", text) if "torchrun" not in code)
    commands = [typer.main.get_command(ckptsel.cli.app), *reference.commands().values()]
    parameters = [p for command in commands for p in command.params]
    known = {name for p in parameters for name in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", inline)) - known - OTHERS_OPTIONS == set()


@pytest.mark.parametrize("page", [slow_or_not(page, SLOW_SNIPPETS) for page in PAGES], ids=NAMES)
def test_every_snippet_runs(page: Path) -> None:
    """Those that need a library which is not installed are compiled."""
    for _, text, comment in blocks(page, "python"):
        for name, small in REPLACED.items():
            text = text.replace(f'"{name}"', f'"{small}"')
        code = compile(text, str(page), "exec")
        if not comment.startswith("<!-- needs "):
            exec(code, {"__name__": "snippet"})
    parsers = {
        "toml": tomllib.loads,
        "json": json.loads,
        "yaml": yaml.safe_load,
        "xml": ElementTree.fromstring,
    }
    for language, text, _ in blocks(page, *parsers):
        parsers[language](text.encode() if language == "xml" else text)


@pytest.mark.parametrize(
    "page", [pytest.param("README.md", marks=pytest.mark.slow), "docs/index.md"]
)
def test_the_shown_ranking_is_what_comes_out(page: str, run) -> None:
    """Numbers in the last digits depend on the machine."""
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = text[text.index("<!-- demo -->") : text.index("<!-- /demo -->")]
    target = f"{RUN}/targets/mnist-1000"
    scores = ("--scores", "linear_probe") if "--scores linear_probe" in shown else ()
    _, out, _ = run("rank", f"{RUN}/seed0/checkpoints", "--data", target, *scores, "-q")
    assert len(rows(shown)) == 14
    for name, numbers in rows(out).items():
        assert rows(shown)[name] == pytest.approx(numbers, rel=0.02, abs=0.1)
    said = r"checkpoint-\d+ is recommended|\d others? can be the best too"
    assert len(re.findall(said, shown)) == 2
    assert re.findall(said, shown) == re.findall(said, out)


def rows(table: str) -> dict[str, list[float]]:
    """Numbers of each row of a ranking, by checkpoint."""
    found = re.findall(r"^[* ]?\d+[= ]* (checkpoint-\d+) (.*)$", table, re.MULTILINE)
    return {name: [float(x) for x in re.findall(r"-?\d+\.?\d*", rest)] for name, rest in found}


def test_links_of_the_readme_lead_somewhere() -> None:
    """Those of the other pages are checked by the site's build."""
    text = PAGES[0].read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_generated_reference_is_current() -> None:
    assert reference.outdated() == [], "run: python -m tools.reference"


def test_every_command_and_key_is_explained() -> None:
    schemas = (
        reference.ranking_schema(),
        reference.confirmation_schema(),
        reference.targets_schema(),
    )
    definitions = {s["title"]: s for s in schemas}
    for schema in schemas:
        definitions |= schema["$defs"]
    for name, definition in definitions.items():
        keys = definition["properties"].items()
        assert [f"{name}.{k}" for k, v in keys if not v.get("description")] == [], (
            "explain it in the class's docstring, as `key: text`"
        )
    assert "|  |\n" not in reference.cli_page()


def test_rankings_fit_the_schema() -> None:
    schema = json.loads((ROOT / "docs/reference/ranking.schema.json").read_text())
    fresh = ckptsel.rank("ckpts/", "my_images/").to_dict()
    old = ROOT / "tests/data/first_schema/ranking.json"
    shipped = [json.loads(p.read_text()) for p in (*Path(RUN).glob("seed*/*/ranking.json"), old)]
    assert {value["schema"] for value in shipped[:-1]} == {fresh["schema"]} and len(shipped) == 11
    assert shipped[-1]["schema"] == "ckptsel.ranking/1"
    upgraded = [json.loads(json.dumps(ckptsel.Ranking.from_dict(v).to_dict())) for v in shipped]
    for value in (json.loads(json.dumps(fresh)), *upgraded):
        jsonschema.validate(value, schema)
    wrong = {**upgraded[0], "checkpoints": [{**upgraded[0]["checkpoints"][0], "rank": "first"}]}
    with pytest.raises(jsonschema.ValidationError, match="'first'"):
        jsonschema.validate(wrong, schema)
