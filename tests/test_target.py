"""Splits: what is fitted on, what is evaluated on, and classes that are missing on one side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptsel.errors import DataError, UsageError
from ckptsel.target.splits import (
    plan_cross_validation,
    plan_holdout,
    stratified_folds,
    stratified_sample,
)
from ckptsel.target.target import load_target
from tests.conftest import TINY_MODEL, save_images

label_lists = st.lists(st.integers(0, 4), min_size=10, max_size=80).map(np.array)


@settings(max_examples=40, deadline=None)
@given(labels=label_lists, seed=st.integers(0, 5))
def test_folds_cover_each_image_once_and_balance_the_classes(labels, seed: int) -> None:
    folds = stratified_folds(labels, 5, seed)
    held = np.concatenate([held for _, held in folds])
    assert sorted(held.tolist()) == list(range(len(labels)))
    for fitted, out in folds:
        assert not set(fitted) & set(out)
        for label in np.unique(labels):
            share = (labels == label).sum() / 5
            assert abs((labels[out] == label).sum() - share) <= 1


@settings(max_examples=40, deadline=None)
@given(labels=label_lists, n=st.integers(5, 60))
def test_a_stratified_sample_has_the_size_and_keeps_every_class(labels, n: int) -> None:
    chosen = stratified_sample(labels, n, seed=0)
    assert len(chosen) == min(n, len(labels)) == len(set(chosen.tolist()))
    assert set(labels[chosen]) == set(labels)


def test_a_stratified_sample_keeps_proportions() -> None:
    labels = np.repeat([0, 1], [900, 100])
    chosen = stratified_sample(labels, 100, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [90, 10]
    assert not np.array_equal(chosen, stratified_sample(labels, 100, seed=1))


@pytest.mark.parametrize(("n", "n_repeats"), [(1000, 1), (999, 2), (500, 2), (50, 3)])
def test_small_sets_are_cross_validated_more_than_once(n: int, n_repeats: int) -> None:
    plan = plan_cross_validation(np.arange(n) % 5, seed=0)
    assert plan.n_repeats == n_repeats
    assert len(plan.folds) == 5 * n_repeats


def test_a_holdout_is_stratified_and_apart() -> None:
    labels = np.repeat([0, 1], [80, 20])
    plan = plan_holdout(labels, 0.2, seed=0)
    assert np.bincount(labels[plan.evaluated]).tolist() == [16, 4]
    assert not set(plan.fit_part) & set(plan.evaluated)


def test_validation_is_preferred_and_test_is_not_touched(images: Path) -> None:
    save_images(images / "test", 2, seed=9)
    target = load_target(str(images))
    assert [s.split for s in target.image_sets] == ["train", "validation"]
    assert target.evaluation.method == "validation split"
    assert load_target(str(images), eval_split="test").evaluation.method == "test split"
    shutil.rmtree(images / "val")
    assert load_target(str(images)).evaluation.method == "cross-validation"


def test_holdout_and_sizes(images: Path) -> None:
    target = load_target(str(images), holdout=0.25, max_train_samples=24)
    described = target.evaluation.describe()
    assert (described["method"], described["n_train"], described["n_eval"]) == ("holdout", 18, 6)
    target = load_target(str(images), max_eval_samples=6)
    assert np.bincount(target.labels[target.evaluation.evaluated]).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", r"1 classes of .* have images in validation but none in train: class1\."),
        ("val", r"1 classes of .* have images in train but none in validation: class1\."),
    ],
)
def test_a_class_in_one_split_only(images: Path, split: str, message: str) -> None:
    shutil.rmtree(images / split / "class1")
    with pytest.raises(DataError, match=message):
        load_target(str(images))


def test_one_class(images: Path) -> None:
    for name in ("class0", "class1"):
        shutil.rmtree(images / "train" / name)
    with pytest.raises(DataError, match=r"one class only \('class2'\)"):
        load_target(str(images / "train"))


def test_a_class_with_one_image_cannot_be_cross_validated(images: Path) -> None:
    for path in sorted((images / "train" / "class1").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="1 classes of .* have a single image.*: class1"):
        load_target(str(images / "train"))


def test_splits_that_are_not_there(images: Path) -> None:
    with pytest.raises(DataError, match=r"has no split 'test'; it has train, validation"):
        load_target(str(images), eval_split="test")
    with pytest.raises(UsageError, match="is the training split"):
        load_target(str(images), eval_split="train")


def test_empty_classes_are_left_out_of_the_numbering(tmp_path: Path) -> None:
    save_images(tmp_path, 4)
    for path in (tmp_path / "class1").iterdir():
        path.unlink()
    target = load_target(str(tmp_path))
    assert target.class_names == ("class0", "class2")
    assert target.labels.max() == 1


def break_images(images: Path, *names: str) -> None:
    for name in names:
        (images / name).write_bytes(b"no image")


BROKEN = ("train/class0/0.png", "train/class1/3.png", "train/class1/4.png", "val/class2/9.png")


def test_unreadable_images_are_listed_or_skipped(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    """Skipped, they are as if they were not there: the same numbers and the same fingerprint."""
    clean = tmp_path / "clean"
    shutil.copytree(images, clean)
    for name in BROKEN:
        (clean / name).unlink()
    break_images(images, *BROKEN)
    options = ("-m", TINY_MODEL, "--scores", "linear_probe", "-q", "-f", "json")
    code, _, err = run("rank", trajectory, "-d", images, *options)
    assert code == 3 and "3 of 36 images cannot be read:" in err and "--skip-unreadable" in err
    rankings = []
    for arguments in ((images, "--skip-unreadable"), (images, "--skip-unreadable"), (clean,)):
        code, out, err = run("rank", trajectory, "-d", *arguments, *options)
        assert code == 0, err
        rankings.append(json.loads(out))
    skipped, again, expected = rankings
    assert skipped["checkpoints"] == again["checkpoints"] == expected["checkpoints"]
    assert skipped["target"]["fingerprint"] == expected["target"]["fingerprint"]
    for ranking in (skipped, again):
        train, held = [note for note in ranking["notes"] if "skipped" in note]
        assert train.startswith(
            "3 of 36 images of split train cannot be read and were skipped: 1 of class class0, 2 of "
            f"class class1; for example {images / 'train/class0/0.png'}"
        )
        assert held.startswith("1 of 30 images of split validation")


def test_what_is_left_must_be_a_target(run, trajectory: Path, images: Path) -> None:
    break_images(images, *(f"val/class1/{i}.png" for i in range(10)))
    options = ("-m", TINY_MODEL, "--skip-unreadable", "-q")
    code, _, err = run("rank", trajectory, "-d", images, *options)
    assert code == 3
    assert "skipped: 10 of class class1" in err and "none in validation: class1" in err
    shutil.rmtree(images / "val")
    break_images(images, *(f"train/class{c}/{i}.png" for c in range(3) for i in range(12)))
    code, _, err = run("rank", trajectory, "-d", images, *options)
    assert code == 3 and "has no image that is left" in err


def test_words_that_only_one_split_has_are_named(tmp_path: Path) -> None:
    save_images(tmp_path, 4)
    rows = [f"class0/{i}.png,{'cat' if i % 2 else 'dog'},train" for i in range(4)]
    rows += ["class1/0.png,cat,val", "class1/1.png,Dog,val"]
    (tmp_path / "x.csv").write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(
        DataError, match=r"in train but none in validation: dog\. .* none in train: Dog\."
    ):
        load_target(str(tmp_path / "x.csv"))
