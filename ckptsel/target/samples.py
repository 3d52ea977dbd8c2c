"""Where the images of a source lie, as plain data that any process can open them by.

Samples hold paths, rows and indices, no functions and no open files: they pass to worker processes
however these are started, and to other machines that see the same files.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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


@dataclass(frozen=True, eq=False)
class DatasetSamples:
    """Images of a dataset of (image, label) pairs, such as those of timm and torchvision.

    They are known by name, split, folder and index, since their files are the dataset's own.

    dataset: pickles itself.
    folder: where it was looked for, or ''.
    indices: (N,) int64 in it.
    """

    dataset: Sequence[Any]
    name: str
    split: str
    folder: str
    indices: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        return f"{self.name}:{self.split}:{self.folder}:{self.indices[index]}".encode()

    def open(self, index: int) -> Image.Image:
        return self.dataset[int(self.indices[index])][0]

    def locate(self, index: int) -> str:
        return f"image {self.indices[index]} of {self.name}, split {self.split}"

    def take(self, indices: NDArray[np.int64]) -> "DatasetSamples":
        return DatasetSamples(
            self.dataset, self.name, self.split, self.folder, self.indices[indices]
        )


@dataclass(frozen=True, eq=False)
class MemorySamples:
    """Images in memory, known by their mode, size and pixels."""

    images: tuple[Image.Image, ...]

    @classmethod
    def of(cls, arrays: Iterable[NDArray[np.uint8]]) -> "MemorySamples":
        """From arrays (H, W) of grey or (H, W, 3) of RGB."""
        return cls(tuple(Image.fromarray(array) for array in arrays))

    def read(self, index: int) -> bytes:
        image = self.images[index]
        return f"{image.mode}:{image.size}:".encode() + image.tobytes()

    def open(self, index: int) -> Image.Image:
        return self.images[index]

    def locate(self, index: int) -> str:
        return f"image {index} in memory"

    def take(self, indices: NDArray[np.int64]) -> "MemorySamples":
        return MemorySamples(tuple(self.images[i] for i in indices))
