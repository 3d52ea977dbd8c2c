"""Where the images of a source lie, as plain data that any process can open them by.

Samples hold paths, rows and indices, no functions and no open files: they pass to worker processes
however these are started, and to other machines that see the same files.
"""

import io
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import ConcatDataset


@dataclass(frozen=True)
class Files:
    """Files that images lie in. where: a digest of which image is which part of them."""

    paths: Sequence[str]
    where: str = ""


class Samples(Protocol):
    """Images in an order, each known by its index. Can be pickled."""

    def read(self, index: int) -> bytes:
        """What tells the image from any other: its file as stored. Raises OSError."""

    def open(self, index: int) -> Image.Image:
        """The image as stored, in any mode. Raises what Pillow raises where it cannot be read."""

    def locate(self, index: int) -> str:
        """Where the image lies, for messages."""

    def take(self, indices: NDArray[np.int64]) -> "Samples":
        """The images at `indices`, in that order."""

    def files(self) -> Files | None:
        """What of which files they are; None where that is not known."""


@dataclass(frozen=True)
class FileSamples:
    """One file an image."""

    paths: tuple[str, ...]
    """As strings: many pickle in a fraction of the time and room that as many `Path` take."""

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> "FileSamples":
        return cls(tuple(os.fspath(path) for path in paths))

    def read(self, index: int) -> bytes:
        return Path(self.paths[index]).read_bytes()

    def open(self, index: int) -> Image.Image:
        return Image.open(self.paths[index])

    def locate(self, index: int) -> str:
        return self.paths[index]

    def take(self, indices: NDArray[np.int64]) -> "FileSamples":
        return FileSamples(tuple(self.paths[i] for i in indices))

    def files(self) -> Files:
        return Files(self.paths)


@dataclass(frozen=True, eq=False)
class DatasetSamples:
    """Images of a dataset of (image, label) pairs, such as those of timm and torchvision.

    Each is known by its file as stored where the dataset tells which that is, else by its mode, size
    and pixels.

    dataset: pickles itself.
    indices: (N,) int64 in it.
    """

    dataset: Sequence[Any]
    name: str
    split: str
    indices: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        number = int(self.indices[index])
        try:
            stored = _stored_bytes(self.dataset, number)
            return _pixel_bytes(self._image(number)) if stored is None else stored
        except OSError:
            raise
        except Exception as error:  # datasets raise what they like
            raise OSError(f"{type(error).__name__}: {error}") from error

    def open(self, index: int) -> Image.Image:
        number = int(self.indices[index])
        if hasattr(self.dataset, "reader"):
            # Not by the dataset, since timm's takes the next image for one that cannot be read.
            return Image.open(io.BytesIO(self.read(index)))
        return self._image(number)

    def _image(self, number: int) -> Image.Image:
        with _ONE_AT_A_TIME:
            return self.dataset[number][0]

    def locate(self, index: int) -> str:
        return f"image {self.indices[index]} of {self.name}, split {self.split}"

    def take(self, indices: NDArray[np.int64]) -> "DatasetSamples":
        return DatasetSamples(self.dataset, self.name, self.split, self.indices[indices])

    def files(self) -> None:
        return None


_ONE_AT_A_TIME = threading.Lock()
"""Datasets may read several images through one open file, such as a tar."""

FILE_LISTS = ("samples", "imgs", "_samples", "_image_files")
"""Attributes of torchvision's datasets that hold a path, or a path and a label, for each image."""


def _stored_bytes(dataset: Any, number: int) -> bytes | None:
    """An image's file; None where the dataset does not tell which it is."""
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, number)
        first = 0 if part == 0 else dataset.cumulative_sizes[part - 1]
        return _stored_bytes(dataset.datasets[part], number - first)
    if hasattr(dataset, "reader"):  # timm's
        with _ONE_AT_A_TIME, dataset.reader[number][0] as file:
            stored: bytes = file.read()
            return stored
    for name in FILE_LISTS:
        files = getattr(dataset, name, None)
        if files is not None and len(files) == len(dataset):
            file = files[number][0] if isinstance(files[number], tuple | list) else files[number]
            if isinstance(file, str | os.PathLike):
                return Path(file).read_bytes()
    return None


def _pixel_bytes(image: Image.Image) -> bytes:
    return f"{image.mode}:{image.size}:{image.getpalette()}:".encode() + image.tobytes()


@dataclass(frozen=True, eq=False)
class MemorySamples:
    """Images in memory, known by their mode, size and pixels."""

    images: tuple[Image.Image, ...]

    @classmethod
    def of(cls, arrays: Iterable[NDArray[np.uint8]]) -> "MemorySamples":
        """From arrays (H, W) of grey or (H, W, 3) of RGB."""
        return cls(tuple(Image.fromarray(array) for array in arrays))

    def read(self, index: int) -> bytes:
        return _pixel_bytes(self.images[index])

    def open(self, index: int) -> Image.Image:
        return self.images[index]

    def locate(self, index: int) -> str:
        return f"image {index} in memory"

    def take(self, indices: NDArray[np.int64]) -> "MemorySamples":
        return MemorySamples(tuple(self.images[i] for i in indices))

    def files(self) -> None:
        return None
