"""Recipes and pre-training: what a run folder holds, and that a killed run goes on as it was."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ckptsel.errors import InputError
from ckptsel.reproduce.pretrain import pretrain
from ckptsel.reproduce.recipes import early_dense_epochs, find_recipe
from ckptsel.reproduce.run import _write_parquet, run_recipe
from ckptsel.sources import ImageSet, open_source

SMOKE = find_recipe("cifar10-mnist", "smoke")


def make_data(folder: Path, split: str, n: int, mode: str) -> None:
    random = np.random.default_rng(len(split))
    labels = np.arange(n) % 10
    shape = (8, 8, 3) if mode == "RGB" else (8, 8)
    pixels = random.integers(0, 256, (n, *shape)).astype(np.uint8)
    images = ImageSet(
        split=split,
        labels=labels,
        class_names=tuple("abcdefghij"),
        open_image=lambda i: Image.fromarray(pixels[i]),
        locate=str,
        fingerprint="",
    )
    _write_parquet(folder / f"{split}-00000-of-00001.parquet", images)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root / "cifar10", "train", 220, "RGB")
    make_data(root / "cifar10", "test", 40, "RGB")
    make_data(root / "mnist", "train", 120, "L")
    return root


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_recipe(SMOKE, folder, data_root, seed=0, quiet=True)
    return folder


def test_a_run_folder_holds_checkpoints_target_log_and_manifest(finished: Path) -> None:
    names = [path.name for path in sorted((finished / "checkpoints").iterdir())]
    assert names == [f"checkpoint-00{epoch}.safetensors" for epoch in (1, 2, 3)]
    with safe_open(finished / "checkpoints" / names[1], "pt") as file:
        metadata = file.metadata()
    log = list(csv.DictReader((finished / "log.csv").open()))
    assert metadata["arch"] == "cifar_resnet18_w16_s2"
    assert metadata["epoch"] == "2"
    assert metadata["source_accuracy"] == log[1]["source_accuracy"]
    assert [row["lr"] for row in log] == ["0.05", "0.05", "0.005"]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["recipe"]["preset"] == "smoke"
    assert len(manifest["sha256"]) == 5


def test_the_target_is_balanced_and_its_splits_do_not_overlap(finished: Path) -> None:
    source = open_source(str(finished / "target"))
    train, validation = source.read("train"), source.read("validation")
    assert np.bincount(train.labels).tolist() == [5] * 10
    assert np.bincount(validation.labels).tolist() == [5] * 10
    pixels = [
        np.asarray(images.open_image(i)).tobytes()
        for images in (train, validation)
        for i in range(50)
    ]
    assert len(set(pixels)) == 100


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_with_the_same_numbers(
    data_root: Path, finished: Path, tmp_path: Path
) -> None:
    def kill(epoch: int) -> None:
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        pretrain(SMOKE.pretraining, tmp_path, data_root, quiet=True, on_epoch=kill)
    assert not (tmp_path / "checkpoints" / "checkpoint-003.safetensors").exists()
    pretrain(SMOKE.pretraining, tmp_path, data_root, quiet=True)
    resumed = load_file(tmp_path / "checkpoints" / "checkpoint-003.safetensors")
    undisturbed = load_file(finished / "checkpoints" / "checkpoint-003.safetensors")
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


def test_a_folder_of_another_seed_is_not_continued(data_root: Path, finished: Path) -> None:
    with pytest.raises(InputError, match=r"belongs to another recipe or seed \(seed 0\)"):
        pretrain(SMOKE.pretraining, finished, data_root, seed=1, quiet=True)


def test_half_precision_keeps_vectors_as_they_are(data_root: Path, tmp_path: Path) -> None:
    import dataclasses

    recipe = dataclasses.replace(
        SMOKE.pretraining, epochs=1, checkpoint_epochs=(1,), weights_dtype="float16"
    )
    pretrain(recipe, tmp_path, data_root, quiet=True)
    weights = load_file(tmp_path / "checkpoints" / "checkpoint-001.safetensors")
    assert weights["conv1.weight"].dtype == torch.float16
    assert weights["bn1.running_var"].dtype == torch.float32


def test_missing_data_says_where_it_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no data at {tmp_path / 'cifar10'}"):
        pretrain(SMOKE.pretraining, tmp_path / "run", tmp_path, quiet=True)


def test_early_epochs_are_dense() -> None:
    assert early_dense_epochs(120) == (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 100, 120)
    assert early_dense_epochs(12) == (1, 2, 3, 5, 7, 10, 12)
