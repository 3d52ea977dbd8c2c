"""Held-out images that are fitted on as well: found, named, left out; and nothing else is."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ckptsel
from ckptsel.ranking import workspace
from ckptsel.target.duplicates import find_duplicates
from ckptsel.target.pixels import Preprocessing, prepare_all
from ckptsel.target.sources import open_source
from ckptsel.target.target import load_target
from tests.conftest import TINY_MODEL, save_images

MNIST = Path(__file__).parents[1] / "reference_runs/cifar10-mnist-small/targets/mnist-1000"
FAST = ("-m", TINY_MODEL, "--scores", "linear_probe", "-q")


def smooth(n: int, seed: int = 0, size: int = 32) -> np.ndarray:
    """Pictures (n, 3, size, size) uint8 with the soft edges of photographs."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)
    large = [np.array(Image.fromarray(s).resize((size, size), 2)) for s in small]
    return np.stack(large).transpose(0, 3, 1, 2)


def changed(pictures: np.ndarray, how: str) -> np.ndarray:
    def one(picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray(picture.transpose(1, 2, 0))
        if how == "jpeg":
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=75)
            image = Image.open(buffer)
        if how == "resized":
            image = image.resize((48, 48), 2).resize(image.size, 2)
        array = np.asarray(image).astype(int) + (12 if how == "brighter" else 0)
        if how == "a spot":
            array[4:9, 4:9] = 255 - array[4:9, 4:9]
        if how == "another tint":
            array += np.array([45, 0, -45])
        if how == "mirrored":
            array = array[:, ::-1]
        return np.clip(array, 0, 255).astype(np.uint8).transpose(2, 0, 1)

    return np.stack([one(picture) for picture in pictures])


@pytest.mark.parametrize("how", ["jpeg", "resized", "brighter"])
def test_what_was_saved_again_is_a_near_duplicate(how: str) -> None:
    fitted = smooth(300)
    held = np.concatenate([smooth(300, seed=1), changed(fitted[100:110], how)])
    found = find_duplicates([fitted, held])
    assert found.left_out.tolist() == list(range(600, 610))
    assert found.originals.tolist() == list(range(100, 110))
    assert not found.exact.any()
    assert len(find_duplicates([fitted, held], near=False)) == 0


@pytest.mark.parametrize("how", ["a spot", "another tint", "mirrored"])
def test_what_differs_in_substance_is_none(how: str) -> None:
    fitted = smooth(20)
    assert len(find_duplicates([fitted, changed(fitted, how)])) == 0


def test_the_same_pixels_are_exact_however_plain() -> None:
    plain = np.stack([np.full((3, 32, 32), level, np.uint8) for level in (0, 1, 200, 1)])
    found = find_duplicates([plain])
    assert (found.left_out.tolist(), found.originals.tolist()) == ([3], [1])
    assert found.exact.all()


def test_faint_pictures_are_compared_exactly_only() -> None:
    """Two skies with the same faint gradient."""
    gradient = np.linspace(0, 6, 32).astype(np.uint8) + np.zeros((1, 3, 32, 1), np.uint8)
    assert len(find_duplicates([gradient + np.uint8(100), gradient + np.uint8(110)])) == 0
    assert len(find_duplicates([10 * gradient + np.uint8(100), 10 * gradient + np.uint8(110)])) == 1


def test_a_faint_difference_all_over_is_one() -> None:
    """Nowhere more than some levels, as between two parts in front of a camera that does not move."""
    one, other = smooth(20).astype(float) - 128, smooth(20, seed=1).astype(float) - 128
    scene, changes = 128 + 0.25 * one, 0.07 * other
    pictures = [scene.astype(np.uint8), (scene + changes).astype(np.uint8)]
    assert np.abs(changes).max() < 9 and len(find_duplicates(pictures)) == 0


def test_of_one_part_every_image_but_the_first_is_left_out() -> None:
    """Beyond one block of the search, too."""
    pictures = smooth(300)
    again = np.concatenate([pictures, changed(pictures[:3], "jpeg"), pictures[2:4]])
    found = find_duplicates([again])
    assert found.left_out.tolist() == [300, 301, 302, 303, 304]
    assert found.originals.tolist() == [0, 1, 2, 2, 3]
    assert found.exact.tolist() == [False] * 3 + [True] * 2


def test_digits_are_no_duplicates() -> None:
    """The shipped target: 2,000 held-out digits against 1,000, and the 2,000 among themselves."""
    settings = Preprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.2,) * 3, 1.0)
    source = open_source(str(MNIST))
    parts = [prepare_all(source.read(s), settings, None, 0, True) for s in source.splits()]
    assert len(find_duplicates(parts)) == len(find_duplicates(parts[1:])) == 0


@pytest.fixture
def one(trajectory: Path) -> Path:
    """A folder of one checkpoint."""
    return trajectory / "checkpoint-010.safetensors"


def split_images(folder: Path, n_train: int = 20, n_val: int = 20) -> Path:
    save_images(folder / "train", n_train, seed=0)
    save_images(folder / "val", n_val, seed=1)
    return folder


def copy_into(folder: Path, n: int) -> None:
    """The first n images of each class are held out as well, in place of others."""
    for label in range(3):
        for i in range(n):
            shutil.copyfile(
                folder / f"train/class{label}/{i}.png", folder / f"val/class{label}/{i}.png"
            )


def test_held_out_copies_are_left_out_and_said_on_top(run, one: Path, tmp_path: Path) -> None:
    data = split_images(tmp_path / "data")
    copy_into(data, 10)
    code, text, _ = run("rank", one, "-d", data, *FAST)
    assert code == 0
    first = text.splitlines()[0]
    assert first.startswith("doubt: 30 of 60 images of validation are also in train (30 exactly, 0")
    assert f"{data}/val/class0/0.png is {data}/train/class0/0.png" in first
    ranking = json.loads(run("rank", one, "-d", data, *FAST, "-f", "json")[1])
    assert ranking["target"]["duplicates"]["n"] == 30
    assert ranking["target"]["evaluation"]["n_eval"] == 30
    score = ranking["checkpoints"][0]["scores"]["linear_probe"]
    assert score["n"] == 30
    for label in range(3):
        for i in range(10):
            (data / f"val/class{label}/{i}.png").unlink()
    clean = ckptsel.rank(one, data, scores=("linear_probe",))
    assert clean[clean.best].scores["linear_probe"].value == score["value"]
    assert clean.target["duplicates"]["n"] == 0 and clean.doubts == ()


def test_a_few_copies_are_a_note_and_can_be_kept(run, one: Path, tmp_path: Path) -> None:
    data = split_images(tmp_path / "data")
    copy_into(data, 1)
    _, text, _ = run("rank", one, "-d", data, *FAST)
    assert "doubt" not in text and "note: 3 of 60 images of validation are also in train" in text
    ranking = ckptsel.rank(one, data, scores=("linear_probe",), duplicates="keep")
    assert ranking.target["duplicates"] is None and ranking.notes == ()
    assert ranking.target["evaluation"]["n_eval"] == 60


def test_validation_images_that_are_the_training_images(run, one: Path, tmp_path: Path) -> None:
    data = split_images(tmp_path / "data")
    shutil.rmtree(data / "val")
    shutil.copytree(data / "train", data / "val")
    code, _, err = run("rank", one, "-d", data, *FAST)
    assert code == 3
    assert (
        "the images of split validation of" in err and "are those of split train: 60 of 60" in err
    )
    assert f"for example {data}/val/class0/0.png is {data}/train/class0/0.png" in err


def test_copies_are_not_cross_validated(run, one: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "data", 20)
    for label in range(3):
        path = tmp_path / f"data/class{label}/3.png"
        shutil.copyfile(path, path.with_name("again.png"))
    (tmp_path / "data/class0/0.png").rename(tmp_path / "data/class0/zero.png")
    shutil.copyfile(tmp_path / "data/class0/zero.png", tmp_path / "data/class1/zero.png")
    _, text, _ = run("rank", one, "-d", tmp_path / "data", *FAST)
    assert (
        "note: 4 of 64 images of train are there already (4 exactly, 0 nearly; 1 under another"
        in text
    )
    crossed = ckptsel.rank(one, tmp_path / "data", scores=("linear_probe",))
    evaluation = crossed.target["evaluation"]
    assert (evaluation["n_train"], evaluation["n_eval"]) == (60, 60)
    held = ckptsel.rank(one, tmp_path / "data", scores=("linear_probe",), holdout=0.5)
    assert held.target["evaluation"]["n_eval"] == 30


def test_folds_without_copies_are_those_of_the_images_that_are_left(tmp_path: Path) -> None:
    save_images(tmp_path, 10)
    clean = load_target(str(tmp_path))
    shutil.copyfile(tmp_path / "class1/3.png", tmp_path / "class1/3b.png")
    dirty = load_target(str(tmp_path))
    settings = Preprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.2,) * 3, 1.0)
    (images,) = dirty.image_sets
    apart = dirty.without(find_duplicates([prepare_all(images, settings, None, 0, True)]))
    kept = np.delete(np.arange(31), apart.duplicates.left_out)
    for (fitted, held), pair in zip(clean.evaluation.folds, apart.evaluation.folds, strict=True):
        assert np.array_equal(kept[fitted], pair[0]) and np.array_equal(kept[held], pair[1])


def test_a_class_of_copies_cannot_be_cross_validated(run, one: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "data", 8)
    for i in range(1, 8):
        shutil.copyfile(tmp_path / "data/class1/0.png", tmp_path / f"data/class1/{i}.png")
    code, _, err = run("rank", one, "-d", tmp_path / "data", *FAST)
    assert code == 3 and "fewer than two images, one to fit on and one to hold out: class1" in err


def test_they_are_looked_for_once(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = split_images(tmp_path / "data")
    copy_into(data, 1)
    first = ckptsel.rank(one, data, scores=("linear_probe",))
    monkeypatch.setattr(workspace, "find_duplicates", None)
    monkeypatch.setattr(workspace, "prepare_all", None)
    again = ckptsel.rank(one, data, scores=("linear_probe",))
    assert again.target == first.target and first.target["duplicates"]["n"] == 3
    with pytest.raises(TypeError):
        ckptsel.rank(one, data, scores=("linear_probe",), duplicates="exact")


def test_confirmed_on_the_same_images(run, trajectory: Path, tmp_path: Path) -> None:
    data = split_images(tmp_path / "data")
    copy_into(data, 5)
    out = tmp_path / "out"
    run("rank", trajectory, "-d", data, *FAST, "-o", out)
    assert run("confirm", out, "--steps", 5, "--seeds", 1, "--lr", "0.1", "-q")[0] == 0
    confirmed = json.loads((out / "ranking.json").read_text())["confirmation"]["fe"]
    assert (confirmed["n_fitted"], confirmed["n_held"]) == (60, 45)
