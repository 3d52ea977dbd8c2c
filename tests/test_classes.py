"""Class names: matched by name between splits and files, whatever their order; or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ckptsel
from ckptsel.errors import DataError
from ckptsel.reproduce.run import write_parquet
from ckptsel.target.classes import match_classes
from ckptsel.target.images import ImageSet
from ckptsel.target.samples import MemorySamples
from ckptsel.target.target import load_target
from tests.conftest import TINY_MODEL, save_images

NAMES = ("cat", "dog", "owl")


def save_split(path: Path, names: tuple[str, ...], n: int = 45, seed: int = 0) -> None:
    """Pictures of NAMES in equal parts, each with a colour of its own, numbered in the order of
    `names`."""
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    colours = np.array([(150, 100, 100), (100, 150, 100), (100, 100, 150)])
    pixels = colours[kinds][:, None, None] + 40 * random.standard_normal((n, 8, 8, 3))
    numbers = [i if not names else names.index(NAMES[i]) for i in range(3)]
    samples = MemorySamples.of(np.clip(pixels, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, ImageSet("x", np.array(numbers)[kinds], names, samples))


def test_another_order_in_the_other_file(run, trajectory: Path, tmp_path: Path) -> None:
    save_split(tmp_path / "train.parquet", NAMES)
    save_split(tmp_path / "validation.parquet", ("owl", "cat", "dog"), seed=1)
    ranking = ckptsel.rank(trajectory, tmp_path, scores=("linear_probe",))
    assert ranking[ranking.best].scores["linear_probe"].value > 0.8
    assert ranking.target["class_names"] == list(NAMES)
    save_split(tmp_path / "validation.parquet", NAMES, seed=1)
    same = ckptsel.rank(trajectory, tmp_path, scores=("linear_probe",))
    assert [row.scores for row in same] == [row.scores for row in ranking]
    assert same.target["fingerprint"] == ranking.target["fingerprint"]


def test_names_that_are_numbers_in_another_order() -> None:
    """They are names as others are: only where the other split has other names are they places."""
    labels, samples = np.array([0, 1, 2]), MemorySamples.of(np.zeros((3, 8, 8, 3), np.uint8))
    train = ImageSet("train", labels, ("0", "1", "2"), samples)
    for names, there, n_notes in ((("2", "0", "1"), [2, 0, 1], 0), (NAMES, [0, 1, 2], 1)):
        held = ImageSet("validation", labels, names, samples)
        matched, notes = match_classes([train, held], "data")
        assert [images.labels.tolist() for images in matched] == [[0, 1, 2], there]
        assert len(notes) == n_notes
    assert notes[0].startswith("split train of data calls its classes by numbers: ")


def test_another_order_in_the_second_file_of_a_split(tmp_path: Path) -> None:
    save_split(tmp_path / "train-00000-of-00002.parquet", NAMES)
    save_split(tmp_path / "train-00001-of-00002.parquet", ("dog", "owl", "cat"))
    target = load_target(str(tmp_path))
    assert target.class_names == NAMES
    assert target.labels.tolist() == (np.arange(90) % 3).tolist()


def test_names_that_one_split_has_besides(tmp_path: Path) -> None:
    """They stand for no images, and only shift the numbers of the others."""
    save_split(tmp_path / "train.parquet", NAMES)
    save_split(tmp_path / "validation.parquet", ("ant", "cat", "dog", "owl"))
    target = load_target(str(tmp_path))
    assert target.class_names == NAMES
    assert np.array_equal(target.labels[:45], target.labels[45:])


@pytest.mark.parametrize(
    ("other", "sentences"),
    [
        (
            ("Cat", "dog", "owl"),
            (
                "1 classes of {} have images in train but none in validation: cat.",
                "1 classes of {} have images in validation but none in train: Cat.",
                "by the same names",
            ),
        ),
        (("cat", "dog", "dog"), ("dog stands for two classes in one of them",)),
    ],
)
def test_names_that_differ_are_refused(
    run, trajectory: Path, tmp_path: Path, other: tuple[str, ...], sentences: tuple[str, ...]
) -> None:
    data = tmp_path / "data"
    save_split(data / "train.parquet", NAMES)
    images = ImageSet("x", np.arange(6) % 3, other, MemorySamples.of(np.zeros((6, 8, 8), np.uint8)))
    write_parquet(data / "validation.parquet", images)
    code, _, err = run("rank", trajectory, "-d", data, "-m", TINY_MODEL, "-q")
    assert code == 3
    for sentence in sentences:
        assert sentence.format(data) in err


def test_a_split_without_names_is_taken_by_number_and_said(tmp_path: Path) -> None:
    save_split(tmp_path / "train.parquet", NAMES)
    save_split(tmp_path / "validation.parquet", ())
    target = load_target(str(tmp_path))
    assert target.class_names == NAMES
    assert np.array_equal(target.labels[:45], target.labels[45:])
    (note,) = target.notes
    assert "split validation of" in note and "in the order of split train (cat, dog, owl)" in note


def test_numbers_are_matched_as_they_are(tmp_path: Path) -> None:
    save_split(tmp_path / "train.parquet", ())
    save_split(tmp_path / "validation.parquet", ())
    assert load_target(str(tmp_path)).notes == ()


def test_folders_are_matched_by_name(images: Path) -> None:
    """A folder that is only in one split shifts no other."""
    (images / "val" / "a-new-one").mkdir()
    shutil.copyfile(images / "val/class0/0.png", images / "val/a-new-one/0.png")
    with pytest.raises(
        DataError, match=r"have images in validation but none in train: a-new-one\."
    ):
        load_target(str(images))
    shutil.rmtree(images / "val/a-new-one")
    target = load_target(str(images))
    assert target.class_names == ("class0", "class1", "class2")


def test_a_timm_dataset_is_matched_by_name(tmp_path: Path) -> None:
    """torchvision numbers the folders of each split by themselves."""
    save_images(tmp_path / "train", 3)
    save_images(tmp_path / "val", 2)
    (tmp_path / "val/class0").rename(tmp_path / "val/zero")
    with pytest.raises(DataError, match=r"none in validation: class0\. .* none in train: zero\."):
        load_target("torch/image_folder", data_root=tmp_path)


def test_numbers_of_a_csv_file_are_one_list(tmp_path: Path) -> None:
    save_images(tmp_path, 4)
    rows = [
        f"class{label}/{i}.png,{label + 1},{'val' if i == 3 else 'train'}"
        for label in (2, 0, 1)
        for i in range(4)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    target = load_target(str(tmp_path / "labels.csv"))
    assert target.class_names == ("1", "2", "3")
    assert target.labels[-3:].tolist() == [2, 0, 1]


def test_the_names_of_the_file_are_recorded(run, trajectory: Path, tmp_path: Path) -> None:
    save_split(tmp_path / "data/train.parquet", NAMES)
    options = ("-m", TINY_MODEL, "--scores", "linear_probe", "-q")
    _, text, _ = run("rank", trajectory, "-d", tmp_path / "data", *options)
    chance = "chance: always naming the largest class ('cat') is right on 33.3 % of the 45 held-out"
    assert f"{chance} images; 3 classes." in text
    _, text, _ = run("rank", trajectory, "-d", tmp_path / "data", *options, "-f", "json")
    assert json.loads(text)["target"]["largest_class"] == {"name": "cat", "share": 15 / 45}
