"""Labelled images: parquet, CSV, image files of every common format; opened, split and decoded."""

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ckptsel.reproduce.run import write_parquet
from ckptsel.target.images import ImageSet
from ckptsel.target.pixels import Preprocessing, prepare_all
from ckptsel.target.samples import MemorySamples
from ckptsel.target.target import load_target
from tools.fuzzing.mutate import mutate_bytes
from tools.fuzzing.targets import Target

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


def make() -> Target:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (9, 8, 3)).astype(np.uint8) for _ in range(12)]
    seeds = {"train-00000-of-00001.parquet": _parquet(pixels), "table.csv": _csv()}
    for form in FORMATS:
        buffer = io.BytesIO()
        Image.fromarray(pixels[0]).save(buffer, form)
        seeds[f"odd.{SUFFIXES.get(form, form)}"] = buffer.getvalue()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-data-"))
    for label in range(2):
        (folder / "images" / f"c{label}").mkdir(parents=True)
        for i in range(6):
            Image.fromarray(pixels[i]).save(folder / "images" / f"c{label}" / f"{i}.png")
    for i in range(12):
        (folder / "csv").mkdir(exist_ok=True)
        Image.fromarray(pixels[i]).save(folder / "csv" / f"{i}.png")

    def read(where: Path, name: str) -> object:
        if name.endswith(".parquet"):
            return _prepare(where / name)
        if name.endswith(".csv"):
            (folder / "csv" / name).write_bytes((where / name).read_bytes())
            return _prepare(folder / "csv" / name)
        odd = folder / "images" / "c0" / name
        odd.write_bytes((where / name).read_bytes())
        try:
            return _prepare(folder / "images")
        finally:
            odd.unlink()

    return Target(seeds, read, mutate_bytes)


def _prepare(data: Path) -> object:
    target = load_target(str(data))
    target.describe()
    return [prepare_all(images, SMALL, None, 0, True) for images in target.image_sets]


def _csv() -> bytes:
    rows = "".join(f"{i}.png,{i % 2},{'train' if i < 8 else 'val'}\n" for i in range(12))
    return b"image,label,split\n" + rows.encode()


def _parquet(pixels: list[np.ndarray]) -> bytes:
    labels = np.arange(12) % 2
    images = ImageSet("train", labels, ("a", "b"), MemorySamples.of(pixels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        write_parquet(path, images)
        return path.read_bytes()
