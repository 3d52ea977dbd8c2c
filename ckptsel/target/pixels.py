"""From images to pixels: one preprocessing for all checkpoints, decoded once.

Decoding costs more than a forward pass on a GPU, so the images are decoded, resized and cropped
once into a uint8 array that every checkpoint reads and that is kept. Normalisation is left to the
device.
"""

import dataclasses
import math
import mmap
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from ckptsel.common.cache import CacheFolder
from ckptsel.common.progress import Progress
from ckptsel.common.quantities import size_text
from ckptsel.errors import DataError, OutputError, listed_below
from ckptsel.target.images import ImageSet, digest_of
from ckptsel.target.samples import Samples
from ckptsel.target.workers import batches_of, loader_options, worker_deaths_named

PIXELS_VERSION = 1
"""Part of the cache key; raised whenever the same settings would give other pixels."""

PARALLEL_FROM = 5000
"""Images from which starting worker processes costs less than it saves."""

MAPPED_FROM = 2**30
"""Bytes of prepared samples from which they are not held in memory, but mapped from the cache."""

BLOCK = 64
"""Prepared samples that are written at a time."""


class UnreadableImages(DataError):
    """Some images cannot be read. indices: (n,) which of the image set."""

    def __init__(self, indices: Sequence[int], *lines: str) -> None:
        super().__init__(*lines)
        self.indices = np.array(indices, dtype=np.int64)


class Preparation(Protocol):
    """How a sample becomes one entry of an array, once for all checkpoints.

    Plain data, which passes to worker processes. shape, dtype: of one prepared sample.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    def key(self) -> str:
        """A digest of everything that decides what is prepared."""

    def prepare(self, samples: Samples, index: int) -> NDArray[Any]:
        """The prepared sample. Raises OSError, SyntaxError or ValueError where it cannot be read."""

    def to_dict(self) -> dict[str, Any]:
        """For people and the ranking."""


LONGEST = 1000
"""A side so many times the other is no picture: the short side is brought to the network's size, and the
long one would become as many thousand pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model (timm's evaluation transform).

    input_size: channels, height, width in pixels.
    mean, std: one number a channel, for pixels scaled to [0, 1].
    crop_pct: the part of the resized image that the centre crop keeps. crop_mode: timm's; `squash`
    resizes to the square whatever the sides. Prepared are pixels, uint8, not yet normalised.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str = "center"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_size

    @property
    def dtype(self) -> str:
        return "uint8"

    def prepare(self, samples: Samples, index: int) -> NDArray[np.uint8]:
        return self.pixels_of(samples.open(index))

    def pixels_of(self, image: Image.Image) -> NDArray[np.uint8]:
        """The prepared pixels (C, H, W) of an image. Raises ValueError where one side is far longer."""
        image = to_colour_mode(image, self.input_size[0])
        if max(image.size) > LONGEST * min(image.size):
            raise ValueError(
                f"{image.width} x {image.height} pixels: one side is more than {LONGEST} times the other"
            )
        return np.asarray(_transform(self)(image))

    def key(self) -> str:
        """What decides the stored pixels: everything but mean and std."""
        mode = "" if self.crop_mode == "center" else f" {self.crop_mode}"
        return digest_of(
            f"{PIXELS_VERSION} {self.input_size} {self.interpolation} {self.crop_pct:.6f}{mode}"
        )


@cache
def _transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Any]:
    """timm's, made once in each process."""
    settings = preprocessing.to_dict()
    transform: Callable[[Image.Image], Any] = create_transform(
        **settings, is_training=False, use_prefetcher=True
    )
    return transform


def normalise(
    pixels: torch.Tensor,
    preprocessing: Preprocessing,
    memory_format: torch.memory_format = torch.preserve_format,
) -> torch.Tensor:
    """uint8 pixels (N, C, H, W) as float32, with the mean taken off and divided by std.

    memory_format: how the result lies in memory, such as `torch.channels_last`; it may stay as it is.
    """
    of_channels = _mean_and_std(tuple(preprocessing.mean), tuple(preprocessing.std), pixels.device)
    images = pixels.to(torch.float32, memory_format=memory_format, copy=True)
    if memory_format is not torch.channels_last:
        mean, std = (values.view(-1, 1, 1) for values in of_channels)
        return images.sub_(mean).div_(std)
    # A row of the picture at once: what is repeated after three numbers is slow.
    n, n_channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).view(n, height, width * n_channels)
    mean, std = (values.repeat(width) for values in of_channels)
    rows.sub_(mean).div_(std)
    return images


@cache
def _mean_and_std(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(C,) each, of values from 0 to 255. Kept: a GPU would wait for the copy of each."""
    with torch.inference_mode(False):
        values = torch.tensor([mean, std], device=device) * 255
    return values[0], values[1]


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


def prepare_all(
    images: ImageSet,
    preparation: Preparation,
    cache: CacheFolder | None,
    n_workers: int = 0,
    quiet: bool = False,
    mapped_from: int | None = None,
) -> NDArray[Any]:
    """All samples prepared, (N, *shape), from the cache where they are there already.

    cache: None keeps nothing. Large arrays, of `mapped_from` bytes on (None: MAPPED_FROM), are mapped
    from its file, all others lie in memory.
    n_workers: processes that prepare; 0 prepares in this one. Has no effect on what comes out.
    Raises UnreadableImages naming up to ten samples, or DataError for a worker process that died;
    OutputError where a large array does not fit into the cache.
    """
    shape, dtype = (len(images), *preparation.shape), np.dtype(preparation.dtype)
    blocks = _blocks(images, preparation, n_workers, quiet)
    if cache is None or cache.folder is None:
        return _in_memory(blocks, shape, dtype)
    key = digest_of(images.fingerprint, preparation.key(), f"{shape} {dtype}")
    if math.prod(shape) * dtype.itemsize < (MAPPED_FROM if mapped_from is None else mapped_from):
        kept = cache.read("pixels", key)
        if kept is not None:
            return np.ndarray(shape, dtype, buffer=kept)
        prepared = _in_memory(blocks, shape, dtype)
        cache.write("pixels", key, prepared)
        return prepared
    mapped = cache.map("pixels", key) or _on_disk(blocks, shape, dtype, cache, key)
    # A copy on write, since torch wants arrays that it could write to.
    return np.ndarray(shape, dtype, buffer=mapped)


def _in_memory(
    blocks: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    prepared, end = np.empty(shape, dtype), 0
    for block in blocks:
        prepared[end : end + len(block)] = block
        end += len(block)
    return prepared


def _on_disk(
    blocks: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    cache: CacheFolder,
    key: str,
) -> mmap.mmap:
    """The new entry; raises OutputError where it cannot be written.

    By ordinary writes: a disk that is full answers a write to a mapped file with a signal.
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        with cache.writing("pixels", key) as file:
            cache.check_room(size)
            for block in blocks:
                file.write(block)
        mapped = cache.map("pixels", key)
        if mapped is None:
            raise OutputError("it was removed, or damaged, as soon as it was written.")
        return mapped
    except OutputError as error:
        raise OutputError(
            f"the {size_text(size)} of decoded pixels cannot be kept: {error} Name another folder with "
            "--cache-dir, take fewer images (--max-train-samples), or hold them all in memory with "
            "--no-cache."
        ) from error


class _Prepared(Dataset[tuple[int, Any, str]]):
    """One sample: (index, prepared or None, why it cannot be read)."""

    def __init__(self, images: ImageSet, preparation: Preparation) -> None:
        self._images, self._preparation = images, preparation

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[int, Any, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return index, self._preparation.prepare(self._images.samples, index), ""
        except Exception as error:  # Pillow's readers end in errors of any type
            return index, None, f"{type(error).__name__}: {error}"


def _blocks(
    images: ImageSet, preparation: Preparation, n_workers: int, quiet: bool
) -> Iterator[NDArray[Any]]:
    """The prepared samples in their order, some at a time. Raises as `prepare_all` at their end."""
    unreadable: dict[int, str] = {}
    dataset = _Prepared(images, preparation)
    task = f"decode {images.split}"
    block, n = np.empty((BLOCK, *preparation.shape), preparation.dtype), 0
    with Progress(task, len(images), quiet=quiet) as progress, worker_deaths_named(task):
        for index, prepared, problem in _each(dataset, n_workers, task):
            if problem:
                unreadable[index] = f"{images.locate(index)} ({problem})"
            else:
                block[n] = prepared
                n += 1
            if n == BLOCK:
                yield block
                n = 0
            progress.advance()
    if unreadable:
        raise UnreadableImages(
            list(unreadable),
            f"{len(unreadable)} of {len(images)} images cannot be read:",
            *listed_below(list(unreadable.values())),
            "Repair or remove them: a ranking on part of the images would not be the one asked for. "
            "Where that is wanted, `ckptsel rank --skip-unreadable` leaves them out and says so.",
        )
    yield block[:n]


def _each(dataset: _Prepared, n_workers: int, task: str) -> Iterator[tuple[int, Any, str]]:
    if n_workers == 0:
        return (dataset[i] for i in range(len(dataset)))
    options = loader_options(n_workers)
    loader = DataLoader(dataset, batch_size=32, collate_fn=list, **options)
    return (item for batch in batches_of(loader, task) for item in batch)
