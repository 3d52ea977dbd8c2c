"""The paper's targets by name: their layouts, their splits, and what is said when they are missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ckptsel.errors import DataError, UsageError
from ckptsel.target.paper import TARGETS
from ckptsel.target.sources import open_source
from ckptsel.target.target import load_target


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)


@pytest.mark.parametrize("name", TARGETS)
def test_missing_data_says_what_to_fetch_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        open_source(f"paper/{name}", tmp_path).read("train")
    target = TARGETS[name]
    message = str(raised.value)
    assert message.startswith(f"{target.title} is not there: ")
    assert f"Fetch {target.fetch} and put it at {tmp_path / target.place}" in message


def test_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target 'paper/flower102'.*paper/flowers102"):
        open_source("paper/flower102", tmp_path)
    with pytest.raises(UsageError, match="give --data-root"):
        open_source("paper/cars")


@pytest.mark.parametrize("name", TARGETS)
def test_class_folders_of_that_name_do_for_every_target(name: str, tmp_path: Path) -> None:
    for split, n in (("train", 2), ("test", 3)):
        for label in ("a", "b"):
            for i in range(n):
                save(tmp_path / name / split / label / f"{i}.png")
    target = load_target(f"paper/{name}", data_root=tmp_path, eval_split="test")
    ((fitted, held),) = target.evaluation.folds
    assert (len(fitted), len(held)) == (4, 6)


def test_cub_has_its_published_split(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Auklet/c.jpg", "002.Auklet/d.jpg"]
    for i, name in enumerate(names):
        save(folder / "images" / name, i)
    (folder / "classes.txt").write_text("1 001.Albatross\n2 002.Auklet\n")
    (folder / "images.txt").write_text("".join(f"{i + 1} {n}\n" for i, n in enumerate(names)))
    (folder / "image_class_labels.txt").write_text("1 1\n2 1\n3 2\n4 2\n")
    (folder / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n4 1\n")
    train = open_source("paper/cub200", tmp_path).read("train")
    test = open_source("paper/cub200", tmp_path).read("test")
    assert train.labels.tolist() == test.labels.tolist() == [0, 1]
    assert train.class_names == ("001.Albatross", "002.Auklet")
    assert [Path(train.locate(i)).name for i in range(2)] == ["a.jpg", "d.jpg"]
    assert np.asarray(test.open_image(0)).max() < 5


def test_indoor67_has_its_published_lists(tmp_path: Path) -> None:
    folder = tmp_path / "indoor67"
    for name in ("bar/1.jpg", "bar/2.jpg", "attic/3.jpg", "attic/4.jpg"):
        save(folder / "Images" / name)
    (folder / "TrainImages.txt").write_text("bar/1.jpg\nattic/3.jpg\n")
    (folder / "TestImages.txt").write_text("bar/2.jpg\nattic/4.jpg\n")
    source = open_source("paper/indoor67", tmp_path)
    assert source.read("train").class_names == ("attic", "bar")
    assert source.read("train").labels.tolist() == [1, 0]
    assert source.read("test").locate(1).endswith("attic/4.jpg")


def test_of_the_xrays_thirty_percent_are_for_training(tmp_path: Path) -> None:
    for i in range(40):
        save(tmp_path / "shenzhen" / "CXR_png" / f"CHNCXR_{i:04d}_{i % 2}.png")
    train, test = (open_source("paper/shenzhen", tmp_path).read(s) for s in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [6, 6]
    assert len(test) == 28
    seen = {images.locate(i) for images in (train, test) for i in range(len(images))}
    assert len(seen) == 40


def test_flowers_train_on_their_training_and_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.Flowers102._check_integrity", lambda self: True)
    folder = tmp_path / "flowers-102"
    for i in range(1, 7):
        save(folder / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(folder / "imagelabels.mat", {"labels": [[1, 2, 1, 2, 1, 2]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    source = open_source("paper/flowers102", tmp_path)
    assert source.read("train").labels.tolist() == [0, 1, 0, 1]
    assert source.read("test").labels.tolist() == [0, 1]
    assert np.asarray(source.read("train").open_image(3)).mean() == pytest.approx(4, abs=2)
