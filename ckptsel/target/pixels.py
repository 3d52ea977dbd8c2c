"""From images to pixels: one preprocessing for all checkpoints, decoded once.

Decoding costs more than a forward pass on a GPU, so the images are decoded, resized and cropped
once into a uint8 array on disk that every checkpoint reads. Normalisation is left to the device.
"""

import dataclasses
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from ckptsel.common.progress import Progress
from ckptsel.errors import MAX_LISTED, DataError, listed_below
from ckptsel.target.images import ImageSet, digest_of
from ckptsel.target.workers import batches_of, loader_options, worker_deaths_named

PIXELS_VERSION = 1
"""Part of the cache key; raised whenever the same settings would give other pixels."""

PARALLEL_FROM = 5000
"""Images from which starting worker processes costs less than it saves."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model (timm's evaluation transform).

    input_size: channels, height, width in pixels. mean, std: one number a channel, for pixels
    scaled to [0, 1]. crop_pct: the part of the resized image that the centre crop keeps.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def pixel_key(self) -> str:
        """What decides the stored pixels: everything but mean and std."""
        return digest_of(
            f"{PIXELS_VERSION} {self.input_size} {self.interpolation} {self.crop_pct:.6f}"
        )


def normalise(
    pixels: torch.Tensor,
    preprocessing: Preprocessing,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """uint8 pixels (N, C, H, W) as float32, with the mean taken off and divided by std.

    memory_format: how the result lies in memory, such as `torch.channels_last`; None leaves it.
    """
    shape = (1, -1, 1, 1)
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(shape) * 255
    std = torch.tensor(preprocessing.std, device=pixels.device).view(shape) * 255
    images = (pixels.float() - mean) / std
    return images if memory_format is None else images.contiguous(memory_format=memory_format)


def to_colour_mode(image: Image.Image, n_channels: int) -> Image.Image:
    """The image upright, with 8 bits a channel, as RGB (3 channels) or grey (1 channel).

    16-bit grey keeps its eight high bits; palettes are resolved; transparency is dropped.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB" if n_channels == 3 else "L")


def auto_workers(asked: int | None, n_images: int) -> int:
    """Processes that decode: as asked, else all cores where starting them pays."""
    if asked is not None:
        return asked
    return (os.cpu_count() or 1) if n_images >= PARALLEL_FROM else 0


def decode(
    images: ImageSet,
    preprocessing: Preprocessing,
    cache: Path | None,
    n_workers: int = 0,
    quiet: bool = False,
) -> NDArray[np.uint8]:
    """Pixels of all images, (N, C, H, W) uint8, from the cache where they are there already.

    cache: folder of decoded pixels (the array is then mapped from disk), None for memory only.
    n_workers: processes that decode; 0 decodes in this one. Has no effect on the pixels.
    Raises DataError naming up to ten images that cannot be read, or a worker process that died.
    """
    shape = (len(images), *preprocessing.input_size)
    if cache is None:
        pixels = np.empty(shape, dtype=np.uint8)
        _fill(pixels, images, preprocessing, n_workers, quiet)
        return pixels
    folder = cache / digest_of(images.fingerprint, preprocessing.pixel_key())[:32]
    path = folder / "pixels.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".decoding-") as temporary:
            part = Path(temporary) / "part"
            part.mkdir()
            store = np.lib.format.open_memmap(
                part / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape
            )
            _fill(store, images, preprocessing, n_workers, quiet)
            store.flush()
            del store
            (part / "about.json").write_text(
                json.dumps({"n_images": len(images), **preprocessing.to_dict()}, indent=2)
            )
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    # Copy on write: torch wants arrays that it could write to; the file never changes.
    return np.load(path, mmap_mode="c")


class _DecodedImages(Dataset[tuple[int, Any, str]]):
    """One image: (index, pixels or None, why it cannot be read)."""

    def __init__(self, images: ImageSet, preprocessing: Preprocessing) -> None:
        self._images, self._n_channels = images, preprocessing.input_size[0]
        settings = preprocessing.to_dict()
        self._transform = create_transform(**settings, is_training=False, use_prefetcher=True)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[int, Any, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = to_colour_mode(self._images.open_image(index), self._n_channels)
                return index, np.asarray(self._transform(image)), ""
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return index, None, f"{type(error).__name__}: {error}"


def _fill(
    store: NDArray[np.uint8],
    images: ImageSet,
    preprocessing: Preprocessing,
    n_workers: int,
    quiet: bool,
) -> None:
    unreadable: list[str] = []
    dataset = _DecodedImages(images, preprocessing)
    task = f"decode {images.split}"
    with Progress(task, len(images), quiet=quiet) as progress, worker_deaths_named(task):
        for index, pixels, problem in _decoded(dataset, n_workers, task):
            if problem:
                unreadable.append(f"{images.locate(index)} ({problem})")
            else:
                store[index] = pixels
            progress.advance()
    if unreadable:
        listed = listed_below(unreadable, MAX_LISTED)
        raise DataError(
            f"{len(unreadable)} of {len(images)} images cannot be read:{listed}\n"
            "Repair or remove them: a ranking on part of the images would not be the one asked for."
        )


def _decoded(dataset: _DecodedImages, n_workers: int, task: str) -> Iterator[tuple[int, Any, str]]:
    if n_workers == 0:
        return (dataset[i] for i in range(len(dataset)))
    options = loader_options(n_workers)
    loader = DataLoader(dataset, batch_size=32, collate_fn=list, **options)
    return (item for batch in batches_of(loader, task) for item in batch)
