"""Where images come from: folders, parquet, CSV, timm's datasets, and what is wrong with them."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat
from timm.data import ImageDataset
from torch.utils.data import ConcatDataset
from torchvision.datasets import ImageFolder

from ckptsel.errors import DataError
from ckptsel.target.images import dataset_as_image_set
from ckptsel.target.sources import open_source
from tests.conftest import save_images


def save_parquet(path: Path, labels: list, names: tuple[str, ...] = (), column: str = "label"):
    png = Path(path.parent / "one.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (10, 20, 30)).save(png)
    image = {"bytes": png.read_bytes(), "path": "one.png"}
    png.unlink()
    features = {"img": {"_type": "Image"}}
    if names:
        features[column] = {"_type": "ClassLabel", "names": list(names)}
    table = pa.table({"img": [image] * len(labels), "extra": labels, column: labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_folder_with_splits(images: Path) -> None:
    source = open_source(str(images))
    assert source.splits() == ["train", "validation"]
    validation = source.read("validation")
    assert np.bincount(validation.labels).tolist() == [10, 10, 10]
    assert validation.class_names == ("class0", "class1", "class2")
    assert validation.locate(0) == str(images / "val" / "class0" / "0.png")


def test_a_folder_without_splits_is_training_images(images: Path) -> None:
    source = open_source(str(images / "train"))
    assert source.splits() == ["train"]
    assert len(source.read("train")) == 36


def test_a_subset_keeps_images_and_labels_together(images: Path) -> None:
    train = open_source(str(images)).read("train")
    part = train.subset(np.array([30, 2]))
    assert part.labels.tolist() == [2, 0]
    assert part.locate(0) == train.locate(30)
    assert part.fingerprint != train.fingerprint


def test_the_fingerprint_is_of_what_the_images_hold(images: Path, tmp_path: Path) -> None:
    before = open_source(str(images)).read("train").fingerprint
    copied = tmp_path / "copied"
    shutil.copytree(images, copied, copy_function=shutil.copyfile)
    first = copied / "train" / "class0" / "0.png"
    os.utime(first, (0, 0))
    assert open_source(str(copied)).read("train").fingerprint == before

    times, data = first.stat(), first.read_bytes()
    first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_source(str(copied)).read("train").fingerprint != before


def test_the_fingerprint_is_of_labels_and_order_too(images: Path) -> None:
    train = open_source(str(images)).read("train")
    swapped = np.arange(len(train))
    swapped[[0, 1]] = 1, 0
    relabelled = dataclasses.replace(train, labels=np.roll(train.labels, 1))
    sets = (train, train.subset(swapped), relabelled)
    assert len({images.fingerprint for images in sets}) == 3


def test_the_same_images_in_parquet_and_in_a_folder_have_one_fingerprint(
    images: Path, tmp_path: Path
) -> None:
    train = open_source(str(images)).read("train")
    column = [{"bytes": train.image_bytes(i), "path": None} for i in range(len(train))]
    table = pa.table({"image": column, "label": train.labels})
    pq.write_table(table, tmp_path / "train.parquet")
    assert open_source(str(tmp_path)).read("train").fingerprint == train.fingerprint


def test_parquet_in_the_hugging_face_layout(tmp_path: Path) -> None:
    save_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [0, 1, 1], ("cat", "dog"))
    save_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0], ("cat", "dog"))
    source = open_source(str(tmp_path))
    assert sorted(source.splits()) == ["test", "train"]
    train = source.read("train")
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.open_image(1).size == (4, 4)


def test_a_row_that_holds_only_a_path_says_what_to_do(tmp_path: Path) -> None:
    """As `to_parquet` of datasets leaves it; its `save_to_disk` stores the images."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    images = pa.array([{"bytes": None, "path": "/images/1.png"}], kind)
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "train.parquet")
    found = open_source(str(tmp_path)).read("train")
    with pytest.raises(OSError, match="save_to_disk stores the images themselves; paths can be"):
        found.samples.read(0)


def test_parquet_columns_are_found_or_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    save_parquet(path, [0, 1], column="fine_label")
    assert open_source(str(path)).read("train").labels.tolist() == [0, 1]
    named = open_source(str(path), label_column="extra").read("train")
    assert named.labels.tolist() == [0, 1]
    with pytest.raises(
        DataError, match=r"no column 'fine_labl'; it has .* Did you mean fine_label"
    ):
        open_source(str(path), label_column="fine_labl").read("train")
    save_parquet(path, [0, 1], column="y")
    with pytest.raises(DataError, match=r"no label column .*Name it with --label-column"):
        open_source(str(path)).read("train")


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="Is it a whole file"):
        open_source(str(tmp_path)).read("train")


def save_csv(folder: Path, rows: list[str], header: str = "path,label") -> str:
    save_images(folder, 2)
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_csv_with_splits(tmp_path: Path) -> None:
    rows = ["class0/0.png,0,train", "class1/0.png,1,train", "class1/1.png,1,val"]
    source = open_source(save_csv(tmp_path, rows, "path,label,split"))
    assert source.splits() == ["train", "validation"]
    assert source.read("train").labels.tolist() == [0, 1]
    assert source.read("validation").open_image(0).size == (8, 8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["class0/0.png,0", "class1/0.png,0.5"],
            r"label '0\.5' .*labels\.csv, line 3 is not a whole",
        ),
        (["class0/0.png,-1"], r"label '-1' .*Remove rows without one \(often -1\)"),
        (["class0/0.png,0", "", "class0/1.png,"], r"no label in .*labels\.csv, line 4 \(''\)"),
        (["class0/0.png"], r"no label in .*labels\.csv, line 2"),
        (
            ["class0/0.png,0", "class1/0.png,cat"],
            r"some are words: '0' in .*line 2, 'cat' in .*line 3\. Name every class by a word, or",
        ),
        (
            ["nowhere.png,0"],
            r"1 of 1 images of split train are not there:\n  line 2 of .*nowhere\.png",
        ),
        ([",0"], r"line 2 names no image in column 'path' \(''\)"),
        (["a,b.png,0"], r"line 2 has 3 cells, the header 2. Put quotation marks"),
        ([], "has a header but no rows"),
    ],
)
def test_csv_mistakes(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(save_csv(tmp_path, rows)).read("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"class0/0.png,cat\nclass1/0.png,dog\n",
            r"has no header: its first line is class0/0\.png, cat",
        ),
        (b"", "is empty: there are no images"),
        (
            "path,label\n1.png,caf\xe9\n".encode("latin-1"),
            r"line 2 has the byte 0xe9 .*iconv -f WINDOWS",
        ),
        ("path,label\n1.png,a\n".encode("utf-16"), r"begins like UTF-16.*save it as 'CSV UTF-8'"),
        ("path,label\n1.png,a\n".encode("utf-16-le"), r"or holds bytes of value 0"),
        (
            b"path,species\n1.png,a\n",
            r"no label column .*; it has path, species\. Name it with --label",
        ),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(str(path)).read("train")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "path,label\nclass0/0.png,dog\nclass1/0.png, cat\nclass1/1.png,dog\n"),
        (
            "labels.csv",
            "Path;Label;note\nclass0/0.png;dog;a, b, c\nclass1/0.png;cat;\nclass1/1.png;dog",
        ),
        (
            "labels.CSV",
            "\ufeffpath,label\r\nclass0/0.png,dog\r\nclass1/0.png,cat\r\nclass1/1.png,dog",
        ),
        ("labels.tsv", "path\tlabel\nclass0/0.png\tdog\nclass1/0.png\tcat\nclass1/1.png\tdog\n"),
        (
            "labels.jsonl",
            '{"file_name": "class0/0.png", "label": "dog"}\n\n{"label": "cat", "file_name": '
            '"class1/0.png"}\n{"file_name": "class1/1.png", "label": "dog"}\n',
        ),
    ],
)
def test_labels_that_are_words(tmp_path: Path, name: str, text: str) -> None:
    save_images(tmp_path, 2)
    (tmp_path / name).write_text(text)
    train = open_source(str(tmp_path / name)).read("train")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert train.locate(1) == str(tmp_path / "class1/0.png")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[1, 2]"], "line 1 is not an object of JSON"),
        (['{"path": "1.png", "label": "a"}', "{"], "line 2 is not JSON"),
        (
            ['{"path": "1.png", "label": ["a", "b"]}'],
            r"label \['a', 'b'\] in .*line 1 is not one class",
        ),
        (
            ['{"path": "1.png", "label": "a"}', '{"path": "1.png"}'],
            r"no label in .*line 2 \(None\)",
        ),
        (['{"path": 3, "label": "a"}'], r"line 1 names no image in column 'path' \(3\)"),
        (["[" * 100_000], "line 1 is not JSON"),
    ],
)
def test_json_lines_mistakes(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        open_source(str(path)).read("train")


def test_numbers_that_are_names(tmp_path: Path) -> None:
    """A date is no number of a class: it would stand for 20 million others."""
    rows = ["class0/0.png,20240131", "class0/1.png,7", "class1/0.png,20240131"]
    train = open_source(save_csv(tmp_path, rows)).read("train")
    assert (train.class_names, train.labels.tolist()) == (("7", "20240131"), [1, 0, 1])


def test_words_in_parquet(tmp_path: Path) -> None:
    save_parquet(tmp_path / "train-0.parquet", ["dog", "cat"])
    save_parquet(tmp_path / "train-1.parquet", ["owl", "cat"])
    train = open_source(str(tmp_path)).read("train")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog", "owl"), [1, 0, 2, 0])
    save_parquet(tmp_path / "train-1.parquet", [0, 1])
    with pytest.raises(
        DataError, match=r"some are words: 0 in column 'label' .*\(row 2\), 'dog' in"
    ):
        open_source(str(tmp_path)).read("train")


def test_folders_above_the_data_name_no_split(tmp_path: Path) -> None:
    save_parquet(tmp_path / "test" / "mine" / "0000.parquet", [0, 1])
    assert open_source(str(tmp_path / "test" / "mine")).splits() == ["train"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_in_the_folders_of_splits(images: Path, name: str) -> None:
    for split, n in (("train", 12), ("val", 10)):
        lines = [(f"class{c}/{i}.png", "dog" if c else "cat") for c in range(3) for i in range(n)]
        text = (
            "\n".join(json.dumps({"file_name": p, "label": label}) for p, label in lines)
            if name.endswith("jsonl")
            else "\n".join(["file_name,label", *(f"{p},{label}" for p, label in lines)])
        )
        (images / split / name).write_text(text)
    source = open_source(str(images))
    assert (source.kind, source.splits()) == ("metadata of a folder", ["train", "validation"])
    assert source.read("validation").class_names == ("cat", "dog")
    assert np.bincount(source.read("train").labels).tolist() == [12, 24]


def test_metadata_of_the_whole_folder(images: Path) -> None:
    rows = ["train/class0/0.png,cat", "train/class1/0.png,dog", "val/class0/0.png,dog"]
    (images / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    source = open_source(str(images))
    assert source.splits() == ["train", "validation"]
    assert source.read("validation").labels.tolist() == [1]


def test_metadata_without_labels_leaves_them_to_the_folders(images: Path) -> None:
    (images / "train/metadata.csv").write_text("file_name,caption\nclass0/0.png,a cat\n")
    assert open_source(str(images)).kind == "image folder"
    with pytest.raises(DataError, match="no label column"):
        shutil.rmtree(images / "val")
        for i in range(3):
            (images / f"train/class{i}/0.png").rename(images / f"train/{i}.png")
            shutil.rmtree(images / f"train/class{i}")
        open_source(str(images))


def test_a_class_that_has_the_name_of_a_split(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    (tmp_path / "class1").rename(tmp_path / "train")
    (tmp_path / "class2").rename(tmp_path / "valid")
    source = open_source(str(tmp_path))
    assert source.splits() == ["train"]
    assert source.read("train").class_names == ("class0", "train", "valid")
    (tmp_path / "class0").rename(tmp_path / "test")
    with pytest.raises(DataError, match="images lie there, but not in sub-folders named after"):
        open_source(str(tmp_path))


def test_two_folders_for_one_split_and_folders_beside_are_said(images: Path) -> None:
    shutil.copytree(images / "val", images / "validation")
    shutil.copytree(images / "val", images / "extra")
    (images / "validation/class0/0.png").unlink()
    source = open_source(str(images))
    validation = source.read("validation")
    assert len(validation) == 30
    assert (
        "two folders for the validation split: val/ is taken, validation/ is not read"
        in (validation.notes[0])
    )
    assert validation.notes[1].endswith("beside them are not read: extra")


def test_a_split_without_class_folders(images: Path) -> None:
    """As Kaggle's test images, which have no labels."""
    save_images(images / "test", 1)
    for i in range(3):
        (images / f"test/class{i}/0.png").rename(images / f"test/{i}.png")
        (images / f"test/class{i}").rmdir()
    source = open_source(str(images))
    assert len(source.read("train")) == 36
    with pytest.raises(DataError, match=r"test holds images, but not in sub-folders named after"):
        source.read("test")


def test_what_systems_leave_behind_is_no_image(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    png = (tmp_path / "class0/0.png").read_bytes()
    for name in ("class0/._0.png", "__MACOSX/class0/0.png", ".hidden/a/0.png", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png)
    (tmp_path / "class1/Thumbs.db").write_bytes(b"x")
    train = open_source(str(tmp_path)).read("train")
    assert (len(train), train.class_names, train.notes) == (6, ("class0", "class1", "class2"), ())


def test_only_pictures_are_images_and_other_files_are_counted(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    for name in ("a.pdf", "b.mpg", "c.h5", "d.heic", "e.heic"):
        (tmp_path / "class0" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "class0" / "pipe.png")
    train = open_source(str(tmp_path)).read("train")
    assert len(train) == 6
    assert train.notes[0].startswith(
        "5 files are not pictures by the suffix, in folders of classes"
    )
    assert ".heic 2" in train.notes[0]


def test_links_that_go_round_end(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 2)
    (tmp_path / "images/class0/up").symlink_to(tmp_path / "images")
    assert len(open_source(str(tmp_path / "images")).read("train")) == 6
    (tmp_path / "linked").mkdir()
    for i in range(3):
        (tmp_path / f"linked/class{i}").symlink_to(tmp_path / f"images/class{i}")
    assert len(open_source(str(tmp_path / "linked")).read("train")) == 6


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"a.jpg": b"", "labels.csv": b"x"},
            r"holds 1 images, but not in .*give it: --data .*labels\.csv",
        ),
        ({"cats/a.heic": b"", "cats/b.heic": b""}, r"other files \(\.heic 2\)"),
        ({}, "it is empty"),
    ],
)
def test_folders_without_images_by_class(tmp_path: Path, made: dict, message: str) -> None:
    for name, data in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path))


def test_csv_with_an_unknown_split_or_column(tmp_path: Path) -> None:
    path = save_csv(tmp_path / "a", ["class0/0.png,0,holdout"], "path,label,split")
    with pytest.raises(DataError, match="unknown split 'holdout'"):
        open_source(path).splits()
    with pytest.raises(DataError, match="no image column"):
        open_source(save_csv(tmp_path / "b", ["x,0"], "where,label"))


def test_float_labels_in_parquet_are_refused(tmp_path: Path) -> None:
    save_parquet(tmp_path / "train.parquet", [0.5, 1.0])
    with pytest.raises(DataError, match=r"label 0\.5 in column 'label'"):
        open_source(str(tmp_path)).read("train")


def test_a_timm_dataset_by_name(tmp_path: Path) -> None:
    save_images(tmp_path / "train", 3)
    save_images(tmp_path / "val", 2)
    source = open_source("torch/image_folder", data_root=tmp_path)
    assert source.splits() == ["train", "validation"]
    validation = source.read("validation")
    assert validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert validation.class_names == ("class0", "class1", "class2")
    assert validation.open_image(5).size == (8, 8)


def repaint(path: Path) -> None:
    """The same file with another picture in it, of the same time."""
    times = path.stat()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    os.utime(path, (times.st_atime, times.st_mtime))


def test_a_timm_dataset_is_known_by_its_contents(tmp_path: Path) -> None:
    save_images(tmp_path / "train", 3)

    def fingerprint(root: Path) -> str:
        return open_source("torch/image_folder", data_root=root).read("train").fingerprint

    before = fingerprint(tmp_path)
    shutil.copytree(tmp_path / "train", tmp_path / "copy" / "train")
    assert fingerprint(tmp_path / "copy") == before
    assert open_source(str(tmp_path)).read("train").fingerprint == before, "whoever reads them"
    repaint(tmp_path / "train" / "class1" / "2.png")
    assert fingerprint(tmp_path) != before


class InMemory(list):
    """A dataset that names no files."""


@pytest.mark.parametrize("joined", [False, True])
def test_images_without_files_are_known_by_their_pixels(joined: bool) -> None:
    def fingerprint(colour: int, mode: str = "RGB") -> str:
        images = [Image.new("RGB", (2, 2), (i, 0, colour if i == 3 else 0)) for i in range(5)]
        pairs = [(image.convert(mode), 0) for image in images]
        samples = ConcatDataset([InMemory(pairs[:2]), InMemory(pairs[2:])]) if joined else pairs
        return dataset_as_image_set(samples, (), "made", "train").fingerprint

    assert fingerprint(0) == fingerprint(0)
    assert len({fingerprint(0), fingerprint(1), fingerprint(1, "RGBA")}) == 3


def test_joined_images_are_known_by_their_own_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_images(tmp_path / name, 2, seed=len(name))
    parts = [ImageFolder(str(tmp_path / name)) for name in ("first", "second")]
    joined = dataset_as_image_set(ConcatDataset(parts), (), "made", "train")
    files = [Path(path).read_bytes() for part in parts for path, _ in part.samples]
    assert [joined.image_bytes(i) for i in range(12)] == files


class OneFile:
    """A reader as timm's of tars: it answers through one open file, which stands at one place."""

    def __init__(self) -> None:
        self.at = -1

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        reader = self
        reader.at = index

        class Part(io.BytesIO):
            def read(self, *_: object) -> bytes:
                time.sleep(0.001)
                return b"image %d" % reader.at

        return Part(), 0


def test_images_in_one_file_are_read_one_at_a_time() -> None:
    """Threads read them for the fingerprint."""
    dataset = type("Dataset", (list,), {"reader": OneFile()})([(None, 0)] * 40)
    made = dataset_as_image_set(dataset, (), "made", "train")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made.image_bytes, range(40)))
    assert found == [b"image %d" % i for i in range(40)]


def test_images_in_a_tar_are_known_by_their_files(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 2)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "images", arcname=".")
    made = dataset_as_image_set(ImageDataset(str(tmp_path / "images.tar")), (), "made", "train")
    folder = open_source(str(tmp_path / "images")).read("train")
    assert (len(made), made.fingerprint) == (6, folder.fingerprint)
    assert made.open_image(5).size == (8, 8)


def test_no_other_image_stands_in_for_one_that_cannot_be_read(tmp_path: Path) -> None:
    """timm itself would take the next."""
    save_images(tmp_path, 2)
    (tmp_path / "class1" / "0.png").write_bytes(b"no image")
    train = dataset_as_image_set(ImageDataset(str(tmp_path)), (), "made", "train")
    with pytest.raises(OSError, match="cannot identify image"):
        train.open_image(2)
    assert train.open_image(3).size == (8, 8)


def test_a_timm_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="timm cannot open torch/cifar10 below"):
        open_source("torch/cifar10", data_root=tmp_path).splits()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data at .*nowhere: no such file or folder"):
        open_source(str(tmp_path / "nowhere"))
    (tmp_path / "empty" / "class0").mkdir(parents=True)
    with pytest.raises(DataError, match="no images below"):
        open_source(str(tmp_path / "empty"))
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"a file of an unknown kind \(\.zip\)"):
        open_source(str(tmp_path / "x.zip"))


def test_a_folder_below_the_data_root(images: Path) -> None:
    assert len(open_source("images", data_root=images.parent).read("train")) == 36


def test_a_webdataset_by_name(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    splits = {}
    for split, n in (("train", 6), ("validation", 4)):
        shard = f"my-{split}-0000.tar"
        with tarfile.open(tmp_path / shard, "w") as tar:
            for i in range(n):
                for suffix, data in (("png", png_bytes(i)), ("cls", str(i % 2).encode())):
                    member = tarfile.TarInfo(f"{i:05d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        splits[split] = {
            "filenames": [shard],
            "shard_lengths": [n],
            "num_samples": n,
            "name": split,
        }
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))
    source = open_source("wds/my", data_root=tmp_path)
    assert source.splits() == ["train", "validation"]
    train = source.read("train")
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert train.open_image(3).getpixel((0, 0)) == (30, 0, 0)


def png_bytes(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (10 * i, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def save_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def sample(i: int, label: object, key: str = "cls", folder: str = "") -> list[tuple[str, bytes]]:
    data = json.dumps(label) if key == "json" else str(label)
    return [(f"{folder}{i:04d}.png", png_bytes(i)), (f"{folder}{i:04d}.{key}", data.encode())]


def test_tars_in_the_layout_of_webdataset(tmp_path: Path) -> None:
    words = ("dog", "cat", "owl")
    for shard in range(3):
        samples = [sample(i, words[(i + shard) % 3], folder="x/") for i in range(4)]
        save_tar(tmp_path / f"shards/data-00{shard}.tar", [m for s in samples for m in s])
    pattern = str(tmp_path / "shards/data-{000..002}.tar")
    for spec in (str(tmp_path / "shards"), pattern):
        source = open_source(spec)
        assert (source.kind, source.splits()) == ("webdataset", ["train"])
        train = source.read("train")
        assert train.class_names == ("cat", "dog", "owl")
        assert train.labels.tolist() == [1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2]
        assert train.open_image(6).getpixel((0, 0)) == (20, 0, 0)
        assert train.locate(6) == f"x/0002 in {tmp_path}/shards/data-001.tar"
    part = train.subset(np.array([7, 6]))
    assert [part.image_bytes(i) for i in range(2)] == [png_bytes(3), png_bytes(2)]
    with pytest.raises(DataError, match=r"1 of the 4 files of .* not there: .*data-003\.tar"):
        open_source(pattern.replace("002", "003"))
    with pytest.raises(DataError, match=r"at most 100,000"):
        open_source(pattern.replace("002", "999999999"))


def test_tars_of_splits_and_labels_in_json(tmp_path: Path) -> None:
    for name, labels in (("my-train-0.tar", "ab"), ("my-val-0.tar", "ba")):
        made = [sample(i, {"label": c, "species": "x" + c}, "json") for i, c in enumerate(labels)]
        save_tar(tmp_path / name, [m for s in made for m in s])
    source = open_source(str(tmp_path))
    assert sorted(source.splits()) == ["train", "validation"]
    assert source.read("validation").labels.tolist() == [1, 0]
    assert open_source(str(tmp_path), label_column="species").read("train").class_names[0] == "xa"
    with pytest.raises(DataError, match=r"0000 .* has no label .* with label, species in its json"):
        open_source(str(tmp_path), label_column="kind").read("train")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b"x")], "sample 1 of .* has no label that ckptsel knows: it has png"),
        ([("1.cls", b"0")], "sample 1 of .* has no image: it has cls"),
        ([("1.png", b""), ("1.jpg", b""), ("1.cls", b"0")], "several images: png, jpg"),
        ([("1.png", b""), ("1.json", b"{")], "the json of sample 1 of .* cannot be read"),
        ([("1.png", b""), ("1.cls", b"\xff")], "the label of sample 1 of .* is not text in UTF-8"),
        ([("1.png", b""), ("1.cls", b"1" * (2**20 + 1))], "has 1,048,577 bytes, too many"),
        ([("readme", b"")], "no samples in"),
        ([*sample(1, "cat"), *sample(2, "3")], r"'3' in sample 0002 of .*, 'cat' in sample"),
    ],
)
def test_tars_with_mistakes(tmp_path: Path, members: list, message: str) -> None:
    save_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path)).read("train")


def test_what_is_no_file_in_a_tar_is_left_out(tmp_path: Path) -> None:
    """Links, devices and paths that lead out: nothing is unpacked, so a name is only a name."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png_bytes(1))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("1.png", tarfile.SYMTYPE), ("1.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        for name, data in [("../../2.png", png_bytes(2)), ("../../2.cls", b"0"), *sample(3, 1)]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    train = open_source(str(tmp_path / "a.tar")).read("train")
    assert [train.image_bytes(i) for i in range(len(train))] == [png_bytes(2), png_bytes(3)]


def test_broken_tars_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    save_tar(path, sample(1, 0))
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    with pytest.raises(DataError, match="a.tar"):
        open_source(str(path)).read("train")
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match=r"cannot read .* as a tar file.*not compressed"):
        open_source(str(path)).read("train")


@pytest.mark.parametrize(
    "spec", ["pipe:touch ran", "pipe:touch ran; cat {0..1}.tar", "| touch ran"]
)
def test_a_path_never_runs_a_command(
    run, trajectory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("rank", trajectory, "-d", spec, "-q")
    assert code == 3
    assert not (tmp_path / "ran").exists()
    assert "pipe:" in err or "not there" in err


def save_arrow(folder: Path, batches: list[list], names: tuple[str, ...] = ()) -> None:
    """As datasets' save_to_disk writes it."""
    folder.mkdir(parents=True)
    feature = {"_type": "ClassLabel", "names": list(names)} if names else {"_type": "Value"}
    features = {"image": {"_type": "Image"}, "label": feature}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    tables = []
    for number, labels in enumerate(batches):
        images = [{"bytes": png_bytes(10 * number + i), "path": None} for i in range(len(labels))]
        tables.append(
            pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
        )
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), tables[0].schema) as stream:
        for table in tables:
            stream.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    save_arrow(tmp_path / "set/train", [[0, 1], [1, 0, 1]], ("cat", "dog"))
    save_arrow(tmp_path / "set/test", [[1]], ("cat", "dog"))
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = open_source(str(tmp_path / "set"))
    assert (source.kind, source.splits()) == ("saved dataset", ["train", "test"])
    train = source.read("train")
    assert (train.class_names, train.labels.tolist()) == (("cat", "dog"), [0, 1, 1, 0, 1])
    assert train.image_bytes(3) == png_bytes(11)
    assert pickle.loads(pickle.dumps(train)).image_bytes(4) == png_bytes(12)
    assert open_source(str(tmp_path / "set/train")).read("train").fingerprint == train.fingerprint


def test_words_in_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    save_arrow(tmp_path / "set", [["owl", "ant"]])
    assert open_source(str(tmp_path / "set")).read("train").class_names == ("ant", "owl")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{", "cannot read .*state.json"),
        ("{}", r"names no \.arrow files of its own folder \(found \[\]\)"),
        (
            '{"_data_files": [{"filename": "../x.arrow"}]}',
            r"own folder \(found \['\.\./x\.arrow'\]\)",
        ),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "cannot read .*gone.arrow"),
    ],
)
def test_a_broken_folder_of_save_to_disk(tmp_path: Path, state: str, message: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path)).read("train")


def save_imagenet(root: Path, truth: list[int], packed: bool = False) -> None:
    ids = ["n00000002", "n00000001"]
    for name in ids:
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / f"{name}_1.JPEG").write_bytes(png_bytes(1))
    (root / "val").mkdir()
    for i in range(len(truth)):
        (root / f"val/ILSVRC2012_val_{i + 1:08d}.JPEG").write_bytes(png_bytes(i))
    devkit = root / "ILSVRC2012_devkit_t12/data"
    devkit.mkdir(parents=True)
    lines = "".join(f"{i}\n" for i in truth)
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    kinds = np.dtype([("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    rows = [(float(i), name, "x, y") for i, name in enumerate(ids, 1)]
    tables = {"other": np.ones(3), "synsets": np.array(rows, kinds)[:, None]}
    savemat(devkit / "meta.mat", tables, do_compression=packed)


@pytest.mark.parametrize("packed", [True, False])
def test_imagenet_as_it_is_handed_out(tmp_path: Path, packed: bool) -> None:
    save_imagenet(tmp_path, [1, 2, 2], packed)
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert (source.kind, source.splits()) == ("ImageNet", ["train", "validation"])
    validation = source.read("validation")
    assert validation.class_names == source.read("train").class_names == ("n00000001", "n00000002")
    assert validation.labels.tolist() == [1, 0, 0]
    (tmp_path / "val/ILSVRC2012_val_00000001.JPEG").unlink()
    assert open_source(str(tmp_path)).read("validation").labels.tolist() == [0, 0]


def test_imagenet_as_torchvision_sorts_it(tmp_path: Path) -> None:
    save_imagenet(tmp_path, [1, 2])
    for i, name in enumerate(("n00000002", "n00000001"), 1):
        (tmp_path / "val" / name).mkdir()
        image = f"ILSVRC2012_val_{i:08d}.JPEG"
        (tmp_path / "val" / image).rename(tmp_path / "val" / name / image)
    source = open_source(str(tmp_path))
    assert source.kind == "image folder"
    assert source.read("validation").labels.tolist() == [0, 1]


def test_imagenet_without_its_devkit(tmp_path: Path) -> None:
    save_imagenet(tmp_path, [1, 2, 3])
    devkit = tmp_path / "ILSVRC2012_devkit_t12"
    with pytest.raises(DataError, match="Each line is the number of a class, as meta.mat"):
        open_source(str(tmp_path)).read("validation")
    truth = devkit / "data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n")
    with pytest.raises(DataError, match="has 1 lines, and none for .*val_00000002"):
        open_source(str(tmp_path)).read("validation")
    (devkit / "data/meta.mat").write_bytes(b"no")
    with pytest.raises(DataError, match=r"cannot read ImageNet's classes in .*meta\.mat"):
        open_source(str(tmp_path)).read("validation")
    savemat(devkit / "data/meta.mat", {"synsets": np.ones(2)})
    with pytest.raises(DataError, match=r"it has no table 'synsets'\. Is the devkit whole"):
        open_source(str(tmp_path)).read("validation")
    shutil.rmtree(devkit)
    with pytest.raises(DataError, match=r"Unpack ILSVRC2012_devkit_t12\.tar\.gz there"):
        open_source(str(tmp_path)).read("validation")


def test_every_source_is_known_by_its_contents(tmp_path: Path) -> None:
    """The same images and labels are the same data, whatever they lie in; another image is not."""
    labels = [0, 1, 1]

    def made(kind: str, colours: tuple[int, ...]) -> str:
        root = tmp_path / kind / "".join(map(str, colours))
        root.mkdir(parents=True)
        for i, colour in enumerate(colours):
            (root / f"{i}.png").write_bytes(png_bytes(colour))
        if kind == "tar":
            members = zip(range(3), colours, labels, strict=True)
            pairs = [[(f"{i}.png", png_bytes(c)), (f"{i}.cls", b"%d" % n)] for i, c, n in members]
            save_tar(root / "tars/a.tar", [m for pair in pairs for m in pair])
            return str(root / "tars")
        name = {"jsonl": "x.jsonl", "metadata": "metadata.csv", "tsv": "x.tsv"}[kind]
        rows = [(f"{i}.png", label) for i, label in enumerate(labels)]
        if kind == "jsonl":
            lines = [json.dumps({"path": p, "label": n}) for p, n in rows]
        else:
            lines = [
                ("\t" if kind == "tsv" else ",").join(map(str, r))
                for r in [("path", "label"), *rows]
            ]
        (root / name).write_text("\n".join(lines))
        return str(root if kind == "metadata" else root / name)

    kinds = ("jsonl", "metadata", "tsv", "tar")
    first = {open_source(made(k, (1, 2, 3))).read("train").fingerprint for k in kinds}
    other = {open_source(made(k, (1, 2, 4))).read("train").fingerprint for k in kinds}
    assert (len(first), len(other), len(first | other)) == (1, 1, 2)
