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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from ckptsel.common.progress import Progress
from ckptsel.errors import DataError, listed_below
from ckptsel.target.images import ImageSet, digest_of
from ckptsel.target.samples import Samples
from ckptsel.target.workers import batches_of, loader_options, worker_deaths_named

PIXELS_VERSION = 1
"""Part of the cache key; raised whenever the same settings would give other pixels."""

PARALLEL_FROM = 5000
"""Images from which starting worker processes costs less than it saves."""


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


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model (timm's evaluation transform).

    input_size: channels, height, width in pixels.
    mean, std: one number a channel, for pixels scaled to [0, 1].
    crop_pct: the part of the resized image that the centre crop keeps. Prepared are pixels, uint8,
    not yet normalised.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.input_size

    @property
    def dtype(self) -> str:
        return "uint8"

    def prepare(self, samples: Samples, index: int) -> NDArray[np.uint8]:
        image = to_colour_mode(samples.open(index), self.input_size[0])
        return np.asarray(_transform(self)(image))

    def key(self) -> str:
        """What decides the stored pixels: everything but mean and std."""
        return digest_of(
            f"{PIXELS_VERSION} {self.input_size} {self.interpolation} {self.crop_pct:.6f}"
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


def prepare_all(
    images: ImageSet,
    preparation: Preparation,
    folder: Path | None,
    n_workers: int = 0,
    quiet: bool = False,
) -> NDArray[Any]:
    """All samples prepared, (N, *shape), from the store where they are there already.

    folder: of prepared samples (the array is then mapped from disk), None for memory only.
    n_workers: processes that prepare; 0 prepares in this one. Has no effect on what comes out.
    Raises DataError naming up to ten samples that cannot be read, or a worker process that died.
    """
    shape = (len(images), *preparation.shape)
    if folder is None:
        prepared = np.empty(shape, dtype=preparation.dtype)
        _fill(prepared, images, preparation, n_workers, quiet)
        return prepared
    entry = folder / digest_of(images.fingerprint, preparation.key())[:32]
    path = entry / "pixels.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".decoding-") as temporary:
            part = Path(temporary) / "part"
            part.mkdir()
            store = np.lib.format.open_memmap(
                part / "pixels.npy", mode="w+", dtype=preparation.dtype, shape=shape
            )
            _fill(store, images, preparation, n_workers, quiet)
            store.flush()
            del store
            (part / "about.json").write_text(
                json.dumps({"n_images": len(images), **preparation.to_dict()}, indent=2)
            )
            shutil.rmtree(entry, ignore_errors=True)
            part.rename(entry)
    # Copy on write: torch wants arrays that it could write to; the file never changes.
    return np.load(path, mmap_mode="c")


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


def _fill(
    store: NDArray[Any],
    images: ImageSet,
    preparation: Preparation,
    n_workers: int,
    quiet: bool,
) -> None:
    unreadable: list[str] = []
    dataset = _Prepared(images, preparation)
    task = f"decode {images.split}"
    with Progress(task, len(images), quiet=quiet) as progress, worker_deaths_named(task):
        for index, prepared, problem in _each(dataset, n_workers, task):
            if problem:
                unreadable.append(f"{images.locate(index)} ({problem})")
            else:
                store[index] = prepared
            progress.advance()
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(images)} images cannot be read:",
            *listed_below(unreadable),
            "Repair or remove them: a ranking on part of the images would not be the one asked for.",
        )


def _each(dataset: _Prepared, n_workers: int, task: str) -> Iterator[tuple[int, Any, str]]:
    if n_workers == 0:
        return (dataset[i] for i in range(len(dataset)))
    options = loader_options(n_workers)
    loader = DataLoader(dataset, batch_size=32, collate_fn=list, **options)
    return (item for batch in batches_of(loader, task) for item in batch)
