"""Labelled images: every layout that `--data` takes, and image files of every common format; opened,
split and decoded."""

import functools
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from ckptsel.reproduce.run import write_parquet
from ckptsel.target.imagenet import META, TRUTH
from ckptsel.target.images import ImageSet
from ckptsel.target.pixels import Preprocessing, UnreadableImages, prepare_all
from ckptsel.target.samples import MemorySamples
from ckptsel.target.target import load_target
from tools.fuzzing.mutate import (
    mutate_bytes,
    mutate_json,
    mutate_json_lines,
    mutate_table,
    mutate_tar,
)
from tools.fuzzing.targets import Mutate, Target

FORMATS = (
    "png",
    "jpeg",
    "webp",
    "gif",
    "bmp",
    "tiff",
    "ppm",
    "ico",
    "tga",
    "pcx",
    "sgi",
    "jpeg2000",
)
SUFFIXES = {"jpeg2000": "jp2"}
SMALL = Preprocessing((3, 16, 16), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0)
ARROW, STATE, SPLITS = "data-00000-of-00001.arrow", "state.json", "dataset_dict.json"
N = 12
WORDS = ("cat", "dog")


def make() -> Target:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (9, 8, 3)).astype(np.uint8) for _ in range(N)]
    pngs = [_encoded(array, "png") for array in pixels]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-data-"))
    places = _lay_out(folder, pngs)
    seeds = {
        "train-00000-of-00001.parquet": _parquet(pixels),
        "words.parquet": _word_parquet(pngs),
        "table.csv": _table(",", lambda i: str(i % 2)).encode(),
        "words.csv": _table(";", lambda i: WORDS[i % 2]).encode(),
        "utf16.csv": _table(",", lambda i: WORDS[i % 2]).encode("utf-16"),
        "table.tsv": _table("\t", lambda i: WORDS[i % 2]).encode(),
        "rows.jsonl": _json_lines().encode(),
        "metadata.csv": _table(",", lambda i: WORDS[i % 2], "file_name").encode(),
        "metadata.jsonl": _json_lines("file_name").encode(),
        "train.tar": _tar(pngs, "cls"),
        "val.tar": _tar(pngs, "json"),
        **{name: (folder / place / name).read_bytes() for name, place in places.items()},
        **{f"odd.{SUFFIXES.get(form, form)}": _encoded(pixels[0], form) for form in FORMATS},
    }
    read = functools.partial(_read, folder, places, seeds)
    how: dict[str, Mutate] = dict.fromkeys(seeds, mutate_bytes)
    how |= {name: mutate_table for name in seeds if name.endswith((".csv", ".tsv", ".txt"))}
    how |= {name: mutate_json_lines for name in seeds if name.endswith(".jsonl")}
    how |= {name: mutate_json for name in seeds if name.endswith(".json")}
    how |= {name: mutate_tar for name in seeds if name.endswith(".tar")}
    return Target(seeds, read, how | {"utf16.csv": mutate_bytes})


def _lay_out(folder: Path, pngs: list[bytes]) -> dict[str, str]:
    """Whole datasets on disk; the folder of each file of theirs that is broken, by its name."""
    for label in range(2):
        (folder / "images" / f"c{label}").mkdir(parents=True)
        for i in range(6):
            (folder / "images" / f"c{label}" / f"{i}.png").write_bytes(pngs[i])
    (folder / "listed").mkdir()
    for i, png in enumerate(pngs):
        (folder / "listed" / f"{i}.png").write_bytes(png)
    _save_to_disk(folder / "saved" / "train", pngs)
    (folder / "saved" / SPLITS).write_text(json.dumps({"splits": ["train"]}))
    devkit = _save_imagenet(folder / "imagenet", pngs)
    saved = {ARROW: "saved/train", STATE: "saved/train", SPLITS: "saved"}
    return saved | dict.fromkeys((META, TRUTH), str(devkit.relative_to(folder)))


def _read(
    folder: Path, places: dict[str, str], seeds: dict[str, bytes], where: Path, name: str
) -> object:
    if name.startswith("odd."):
        return _read_with(folder / "images", folder / "images" / "c0" / name, where / name)
    if name.startswith("metadata."):
        return _read_with(folder / "listed", folder / "listed" / name, where / name)
    if name.endswith((".csv", ".tsv", ".jsonl")):
        place = folder / "listed" / name
        return _read_with(place, place, where / name)
    if name in places:
        whole = folder / places[name] / name
        try:
            whole.write_bytes((where / name).read_bytes())
            return _prepare(folder / places[name].split("/")[0])
        finally:
            whole.write_bytes(seeds[name])
    return _prepare(where / name)


def _read_with(data: Path, place: Path, broken: Path) -> object:
    """Reads `data` while the broken file lies at `place`."""
    place.write_bytes(broken.read_bytes())
    try:
        return _prepare(data)
    finally:
        place.unlink()


def _prepare(data: Path) -> object:
    """All images, and then those that can be read, as --skip-unreadable does."""
    splits = {"train_split": "validation"} if data.name == "val.tar" else {}
    target = load_target(str(data), **splits)
    target.describe()
    unreadable = []
    for images in target.image_sets:
        try:
            prepare_all(images, SMALL, None, 0, True)
            unreadable.append(np.empty(0, np.int64))
        except UnreadableImages as error:
            unreadable.append(error.indices)
    readable = target.readable(unreadable)
    return [prepare_all(images, SMALL, None, 0, True) for images in readable.image_sets]


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def _table(separator: str, label: Callable[[int], str], name: str = "image") -> str:
    rows = [(f"{i}.png", label(i), "train" if i < 8 else "val") for i in range(N)]
    return "".join(separator.join(row) + "\n" for row in [(name, "label", "split"), *rows])


def _json_lines(name: str = "image") -> str:
    return "".join(json.dumps({name: f"{i}.png", "label": WORDS[i % 2]}) + "\n" for i in range(N))


def _tar(pngs: list[bytes], key: str) -> bytes:
    labels = [json.dumps({"label": i % 2}) if key == "json" else WORDS[i % 2] for i in range(N)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for i, png in enumerate(pngs):
            for suffix, data in (("png", png), (key, labels[i].encode())):
                member = tarfile.TarInfo(f"{i:03d}.{suffix}")
                member.size = len(data)
                member.pax_headers = {"comment": "é" * 9} if i % 3 == 0 else {}
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _parquet(pixels: list[np.ndarray]) -> bytes:
    labels = np.arange(N) % 2
    images = ImageSet("train", labels, ("a", "b"), MemorySamples.of(pixels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        write_parquet(path, images)
        return path.read_bytes()


def _word_table(pngs: list[bytes]) -> pa.Table:
    images = [{"bytes": png, "path": None} for png in pngs]
    return pa.table({"image": images, "label": [WORDS[i % 2] for i in range(N)]})


def _word_parquet(pngs: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(_word_table(pngs), buffer)
    return buffer.getvalue()


def _save_to_disk(folder: Path, pngs: list[bytes]) -> None:
    folder.mkdir(parents=True)
    table = _word_table(pngs)
    with pa.ipc.new_stream(str(folder / ARROW), table.schema) as stream:
        stream.write_table(table, max_chunksize=5)
    (folder / STATE).write_text(json.dumps({"_data_files": [{"filename": ARROW}]}))


def _save_imagenet(root: Path, pngs: list[bytes]) -> Path:
    """Two classes of it; returns the devkit's folder."""
    ids = ["n00000002", "n00000001"]
    for name in ids:
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "1.JPEG").write_bytes(pngs[0])
    (root / "val").mkdir()
    for i, png in enumerate(pngs, 1):
        (root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG").write_bytes(png)
    devkit = root / "devkit" / "data"
    devkit.mkdir(parents=True)
    (devkit / TRUTH).write_text("".join(f"{1 + i % 2}\n" for i in range(N)))
    kinds = np.dtype([("ILSVRC2012_ID", object), ("WNID", object)])
    rows = [(float(i), name) for i, name in enumerate(ids, 1)]
    savemat(devkit / META, {"synsets": np.array(rows, kinds)[:, None]})
    return devkit
