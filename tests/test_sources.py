"""Where images come from: folders, parquet, CSV, timm's datasets, and what is wrong with them."""

import dataclasses
import io
import json
import os
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
        (["class0/0.png,cat"], r"label 'cat' in .*labels\.csv \(row 0\) is not a whole number"),
        (["class0/0.png,0", "class1/0.png,0.5"], r"label '0\.5' .*row 1.* is not a whole number"),
        (["class0/0.png,-1"], r"label '-1'"),
        (["class0/0.png,"], r"label ''"),
        (["nowhere.png,0"], r"1 of 1 images named in .* are not there, for example .*nowhere\.png"),
        ([], "has a header but no rows"),
    ],
)
def test_csv_mistakes(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(save_csv(tmp_path, rows)).read("train")


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
