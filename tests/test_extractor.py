"""An exported network gives, alone, the features that were ranked; nothing that its file says is run."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import InputError, ModelError
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.files import write_ranking
from ckptsel.settings.rank import RankSettings
from tests.conftest import TINY_MODEL, save_checkpoint, save_images

NETWORKS = {
    "cifar_resnet18_w16_s2": (TINY_MODEL, "layer2", {}),
    "test_vit": ("test_vit", "blocks.2", {}),
    "torchvision": ("torchvision:shufflenet_v2_x0_5", "stage3", {"image_size": 64}),
}
"""By a short name: (network, one of its stages, options)."""

ALONE = """
import json, sys
import numpy as np, torch
from PIL import Image
import ckptsel
torch.set_num_threads(1)
for file in sys.argv[2:]:
    extractor = ckptsel.load_extractor(file)
    images = [extractor.transform(Image.open(path)) for path in json.loads(sys.argv[1])]
    with torch.inference_mode():
        np.save(file + ".npy", extractor(torch.stack(images)).numpy())
    print(extractor.candidate, extractor.layer, extractor.n_features, *extractor.classes)
"""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n == "torchvision" else n for n in NETWORKS],
)
def ranked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder of a ranking of a checkpoint at three layers, its images, its workspace, the network)."""
    name, stage, options = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp("ranked")
    save_images(folder / "images" / "train", 8)
    torch.manual_seed(0)
    module = (
        torchvision.models.get_model(name.partition(":")[2], weights=None)
        if ":" in name
        else timm.create_model(name)
    )
    for name_of, tensor in module.named_buffers():
        if name_of.endswith("running_var"):  # as trained: batch norm that does something
            tensor.uniform_(0.5, 1.5)
    (folder / "ckpts").mkdir()
    torch.save(module.state_dict(), folder / "ckpts" / "epoch_1.pth")
    layers = ("last", stage, "all")
    settings = RankSettings(
        model=name,
        layers=layers,
        scores=("linear_probe",),
        cache_dir=str(folder / "cache"),
        workers=0,
        duplicates="keep",
        **options,
    )
    write_ranking(
        folder / "ranking",
        *rank_with_predictions(folder / "ckpts", folder / "images", settings),
    )
    found = scan_checkpoints(folder / "ckpts")
    return folder, open_workspace(settings, found, str(folder / "images"), quiet=True), found[0]


def test_a_fresh_process_gives_the_ranked_features(
    run, ranked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last layer, one stage and all of them; the checkpoint is gone by then."""
    folder, workspace, checkpoint = ranked
    monkeypatch.setattr(Workspace, "_extract", None)  # what is ranked lies in the store
    candidates = [Candidate(checkpoint, layer) for layer in workspace.settings.layers]
    stored = [workspace.features(candidate) for candidate in candidates]
    files = [tmp_path / f"{candidate.layer}.safetensors" for candidate in candidates]
    for candidate, file in zip(candidates, files, strict=True):
        arguments = ("--checkpoint", candidate.name, "--to", file)
        code, _, err = run("pick", folder / "ranking", *arguments)
        assert code == 0, err
    checkpoint.path.unlink()
    paths = json.dumps(workspace.target.image_sets[0].samples.paths)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, paths, *map(str, files)],
        env={"PYTHONPATH": str(Path(ckptsel.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{candidate.name} {candidate.layer} {features.shape[1]} class0 class1 class2"
        for candidate, features in zip(candidates, stored, strict=True)
    ]
    for file, features in zip(files, stored, strict=True):
        np.testing.assert_allclose(np.load(f"{file}.npy"), features, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def ranked_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ranking of one checkpoint at all stages."""
    folder = tmp_path_factory.mktemp("once")
    save_images(folder / "images" / "train", 8)
    save_checkpoint(folder / "ckpts" / "checkpoint-001.safetensors", 0, 1, 0.4)
    options: dict[str, Any] = {"scores": ("linear_probe",), "layers": ("all",), "cache": False}
    scored = rank_with_predictions(folder / "ckpts", folder / "images", **options)
    write_ranking(folder / "ranking", *scored)
    return folder / "ranking"


@pytest.fixture
def picked(run, ranked_once: Path, tmp_path: Path) -> Path:
    """A file of pick, of the best."""
    file = tmp_path / "best.safetensors"
    assert run("pick", ranked_once, "--to", file)[0] == 0
    return file


def reading_of(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["reading"])


def say_otherwise(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same weights with another reading."""
    value = reading_of(file)
    change(value)
    save_file(load_file(file), file, {"reading": json.dumps(value)})


def test_it_is_a_module_to_go_on_with(picked: Path) -> None:
    extractor = ckptsel.load_extractor(picked)
    head = torch.nn.Linear(extractor.n_features, 3)
    grey = Image.fromarray(np.zeros((40, 60), np.uint8))
    image = extractor.transform(grey)
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    again = pickle.loads(pickle.dumps(extractor.transform))
    assert torch.equal(again(grey), image)
    whole = pickle.loads(pickle.dumps(extractor))
    assert torch.equal(whole(image[None]), extractor(image[None]))
    model = torch.nn.Sequential(copy.deepcopy(extractor), head)
    before = {name: tensor.clone() for name, tensor in extractor.network.state_dict().items()}
    model(image[None].repeat(2, 1, 1, 1)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = extractor.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not extractor.training and model[0].network.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(version=2), "version: .* It is of a later version of ckptsel"),
        (lambda r: r["stages"][0].update(name="os"), "has no module 'os', which is to be read"),
        (
            lambda r: r["stages"][0].update(scale=0),
            "stages.0.scale: Input should be greater than 0",
        ),
        (lambda r: r["stages"][0].update(grid=10**6), "stages.0.grid: .* less than or equal to 64"),
        (lambda r: r.update(stages=[]), "stages are read at every layer but the last"),
        (lambda r: r["preprocessing"].update(mean=[0.5]), "a number for each channel"),
        (lambda r: r["preprocessing"].update(input_size=[3, 10**6, 10**6]), "equal to 4096"),
        (
            lambda r: r["preprocessing"].update(input_size=[1, 32, 32], mean=[0], std=[1]),
            "does not run as checkpoint-.* is to be read: .* to have 3 channels",
        ),
        (lambda r: r["network"].update(name="resnet18d"), "the weights do not fit resnet18d"),
        (
            lambda r: r["network"].update(name="test_vit", arguments={"patch_size": 0}),
            "the weights do not fit test_vit",
        ),
        (lambda r: r.pop("preprocessing"), "preprocessing: Field required"),
    ],
)
def test_a_reading_that_cannot_be(picked: Path, change: Any, message: str) -> None:
    say_otherwise(picked, change)
    with pytest.raises(InputError, match=message):
        ckptsel.load_extractor(picked)


def test_files_that_are_none_of_pick(trajectory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not written by ckptsel pick --to"):
        ckptsel.load_extractor(trajectory / "checkpoint-001.safetensors")
    with pytest.raises(InputError, match="is no file. Write one with: ckptsel pick"):
        ckptsel.load_extractor(tmp_path / "nowhere.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="cannot be read: "):
        ckptsel.load_extractor(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["singing_nets:make", "os:abort", "hf:folder"])
def test_what_a_file_names_is_not_run(
    picked: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = f"import timm\ndef make():\n    return timm.create_model({TINY_MODEL!r})\n"
    (tmp_path / "singing_nets.py").write_text(f"open('sung', 'w').close()\n{made}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "singing_nets", raising=False)
    expected = ckptsel.load_extractor(picked)
    say_otherwise(picked, lambda r: r["network"].update(name=name))
    with pytest.raises(ModelError, match=f"if it is yours, name it: model='{name}'"):
        ckptsel.load_extractor(picked)
    assert not Path("sung").exists()
    if name == "singing_nets:make":
        extractor = ckptsel.load_extractor(picked, model=name)
        images = torch.rand(2, 3, 32, 32)
        assert Path("sung").exists()
        torch.testing.assert_close(extractor(images), expected(images))


def test_a_ranking_that_kept_no_scales(
    run, ranked_once: Path, picked: Path, tmp_path: Path
) -> None:
    value = json.loads((ranked_once / "ranking.json").read_text())
    best = value["checkpoints"][0]
    scales = {stage["name"]: stage["scale"] for stage in reading_of(picked)["stages"]}
    assert best["stage_scales"] == scales and len(scales) == 5
    del best["stage_scales"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    code, _, err = run("pick", tmp_path / "old.json", "--to", picked)
    assert code == 3 and "does not say what its stages are divided by. Rank again" in err
