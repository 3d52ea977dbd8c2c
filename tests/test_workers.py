"""Worker processes: the same pixels however they are started, and what is said when one dies."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ckptsel.errors import DataError
from ckptsel.reproduce.source_data import _Crops
from ckptsel.target import parquet
from ckptsel.target.images import ImageSet
from ckptsel.target.pixels import Preprocessing, prepare_all
from ckptsel.target.samples import MemorySamples, Samples
from ckptsel.target.sources import open_source
from ckptsel.target.workers import batches_of, worker_context, worker_deaths_named
from tests.conftest import save_images

SETTINGS = Preprocessing((3, 8, 8), "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 1.0)

KINDS = ("folder", "csv", "parquet", "torchvision", "memory")


@dataclass(frozen=True)
class Joined:
    """Images of several sources as those of one, so that one start of workers reads them all."""

    parts: tuple[tuple[Samples, int], ...]

    def open(self, index: int) -> Image.Image:
        samples, i = self.parts[index]
        return samples.open(i)

    def locate(self, index: int) -> str:
        samples, i = self.parts[index]
        return samples.locate(i)


@dataclass(frozen=True)
class Deadly:
    """The process that opens an image ends there and then."""

    def open(self, index: int) -> Image.Image:
        os._exit(3)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, ImageSet]:
    """The same dozen images from sources of every kind."""
    folder = tmp_path / "data" / "train"
    save_images(folder, 4)
    train = open_source(str(tmp_path / "data")).read("train")
    rows = [f"train/class{c}/{i}.png,{c}" for c in range(3) for i in range(4)]
    csv = tmp_path / "data" / "labels.csv"
    csv.write_text("\n".join(["path,label", *rows]) + "\n")
    values = [{"bytes": train.image_bytes(i), "path": None} for i in range(12)]
    for number, part in enumerate((slice(0, 5), slice(5, 12))):
        table = pa.table({"image": values[part], "label": train.labels[part]})
        path = tmp_path / "parquet" / f"train-0000{number}-of-00002.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, row_group_size=3)
    arrays = [np.asarray(train.open_image(i)) for i in range(12)]
    return {
        "folder": train,
        "csv": open_source(str(csv)).read("train"),
        "parquet": open_source(str(tmp_path / "parquet")).read("train"),
        "torchvision": open_source("torch/image_folder", tmp_path / "data").read("train"),
        "memory": ImageSet("train", train.labels, train.class_names, MemorySamples.of(arrays)),
    }


@pytest.fixture
def started_by(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def pixels_of(images: ImageSet, n_workers: int = 0) -> np.ndarray:
    return prepare_all(images, SETTINGS, None, n_workers, quiet=True)


@pytest.mark.parametrize(
    "started_by",
    [
        pytest.param(how, marks=pytest.mark.slow if how == "spawn" else ())
        for how in multiprocessing.get_all_start_methods()
    ],
    indirect=True,
)
def test_workers_read_the_same_pixels_however_they_are_started(started_by, sets) -> None:
    assert worker_context().get_start_method() == started_by
    expected = np.concatenate([pixels_of(images) for images in sets.values()])
    parts = tuple((images.samples, i) for images in sets.values() for i in range(len(images)))
    joined = ImageSet("train", np.zeros(len(parts), np.int64), ("a",), Joined(parts))
    assert np.array_equal(pixels_of(joined, n_workers=2), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_passed_on_the_images_are_the_same(kind: str, sets) -> None:
    images = sets[kind]
    assert np.array_equal(pixels_of(images), pixels_of(sets["folder"]))
    passed = pickle.loads(pickle.dumps(images))
    assert np.array_equal(pixels_of(passed), pixels_of(images))
    assert [passed.image_bytes(i) for i in range(12)] == [images.image_bytes(i) for i in range(12)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_subset_of_a_subset_passed_on(kind: str, sets) -> None:
    images = sets[kind]
    part = images.subset(np.array([11, 0, 7, 2])).subset(np.array([2, 0]))
    passed = pickle.loads(pickle.dumps(part))
    assert passed.labels.tolist() == images.labels[[7, 11]].tolist()
    assert np.array_equal(pixels_of(passed), pixels_of(images)[[7, 11]])
    assert passed.image_bytes(1) == images.image_bytes(11)
    if kind != "memory":
        assert passed.locate(0) == images.locate(7)


@pytest.mark.parametrize("kind", KINDS)
def test_random_crops_of_images_passed_on(kind: str, sets) -> None:
    crops = _Crops(sets[kind], 8, ("resized_crop", "flip"), seed=0, epoch=1)
    passed = pickle.loads(pickle.dumps(crops))
    assert all(torch.equal(passed[i][0], crops[i][0]) for i in range(12))
    assert passed[11][1] == 2


def test_what_was_read_of_parquet_is_not_passed_on(sets) -> None:
    images = sets["parquet"]
    before = len(pickle.dumps(images))
    assert images.image_bytes(0)
    assert len(pickle.dumps(images)) == before


def test_few_row_groups_are_kept_and_rows_may_be_read_in_any_order(sets, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "KEPT_BYTES", 1)
    read: list[int] = []
    read_group = parquet._read_group

    def noted(group: parquet.RowGroup, column: str) -> pa.ChunkedArray:
        read.append(group.number)
        return read_group(group, column)

    monkeypatch.setattr(parquet, "_read_group", noted)
    images, expected = sets["parquet"], sets["folder"]
    order = [0, 4, 1, 3, 11, 5, 0]
    assert [images.image_bytes(i) for i in order] == [expected.image_bytes(i) for i in order]
    # Two files, rows 0-2 3-4 and 5-7 8-10 11: the two groups read last are kept.
    assert read == [0, 1, 2, 0, 0]


def test_a_parquet_file_that_changes_is_named(sets, tmp_path: Path) -> None:
    path = tmp_path / "parquet" / "train-00000-of-00002.parquet"
    pq.write_table(pq.ParquetFile(path).read().slice(0, 1), path)
    with pytest.raises(DataError, match=r"5 of 12 images .*\n  row 0 of .* has changed since"):
        pixels_of(sets["parquet"])
    path.unlink()
    with pytest.raises(DataError, match=r"row 0 of split train of .*FileNotFoundError"):
        pixels_of(pickle.loads(pickle.dumps(sets["parquet"])))


def test_a_file_without_the_columns_of_the_first_is_named(sets, tmp_path: Path) -> None:
    path = tmp_path / "parquet" / "train-00001-of-00002.parquet"
    pq.write_table(pa.table({"label": [0, 1]}), path)
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet has no column 'image'"):
        open_source(str(tmp_path / "parquet")).read("train")


def test_a_worker_that_dies_is_named() -> None:
    images = ImageSet("train", np.zeros(4, np.int64), ("a",), Deadly())
    message = r"a worker process died while it was to decode train: DataLoader worker \(pid.*\d+\)"
    with pytest.raises(DataError, match=message):
        pixels_of(images, n_workers=1)


def test_an_error_of_the_reading_itself_is_left_alone() -> None:
    with pytest.raises(RuntimeError, match="not a worker"), worker_deaths_named("read"):
        raise RuntimeError("not a worker")


@pytest.mark.filterwarnings("ignore:Got pickle error")  # torch warns, and passes the error on
@pytest.mark.parametrize("started_by", ["spawn"], indirect=True)
def test_images_that_cannot_be_passed_on_say_so(started_by) -> None:
    loader = DataLoader([lambda: 1], num_workers=1, multiprocessing_context=worker_context())
    with pytest.raises(
        DataError, match="cannot be passed to the worker processes that are to read"
    ):
        batches_of(loader, "read")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.parametrize("started_by", ["fork"], indirect=True)
def test_nothing_is_forked_once_a_gpu_is_in_use(started_by, monkeypatch) -> None:
    assert worker_context().get_start_method() == "fork"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert worker_context().get_start_method() == "forkserver"


def test_a_worker_that_dies_before_it_started_is_named() -> None:
    """As where a script has no main guard: its workers run it again instead of reading."""

    class Broken:
        def __iter__(self) -> Iterator[None]:
            raise BrokenPipeError

    with pytest.raises(DataError, match=r"it did not start \(BrokenPipeError\).* `if __name__"):
        batches_of(Broken(), "read")
