"""Labelled images of one split, opened one at a time, and the digest that they are known by."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ckptsel.errors import DataError

DIGEST_BLOCK = 64
"""Images that one thread reads and digests at a time."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one split.

    labels: (N,) int64, each an index into `class_names`.
    open_image: index -> PIL image as stored (any mode).
    image_bytes: index -> what tells the image from any other: its file as stored.
    locate: index -> where the image lies, for messages.
    """

    split: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    open_image: Callable[[int], Image.Image]
    image_bytes: Callable[[int], bytes]
    locate: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of labels and images in their order: the same wherever they lie and whenever they
        were copied there, another when one of them changes. Reads every image's file."""
        with ThreadPoolExecutor() as pool:
            blocks = pool.map(self._digest_block, range(0, len(self), DIGEST_BLOCK))
            return digest_of(self.labels.tobytes(), *blocks)

    def _digest_block(self, start: int) -> str:
        block = range(start, min(start + DIGEST_BLOCK, len(self)))
        return digest_of(*(digest_of(self._known_bytes(i)) for i in block))

    def _known_bytes(self, index: int) -> bytes:
        try:
            return self.image_bytes(index)
        except OSError:
            return b""  # what cannot be read is named when it is decoded

    def subset(self, indices: NDArray[np.int64]) -> "ImageSet":
        """The images at `indices`, in that order."""
        return ImageSet(
            split=self.split,
            labels=self.labels[indices],
            class_names=self.class_names,
            open_image=lambda i: self.open_image(int(indices[i])),
            image_bytes=lambda i: self.image_bytes(int(indices[i])),
            locate=lambda i: self.locate(int(indices[i])),
        )


def files_as_image_set(
    split: str, paths: list[Path], labels: list[int], class_names: tuple[str, ...]
) -> ImageSet:
    return ImageSet(
        split=split,
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        open_image=lambda i: Image.open(paths[i]),
        image_bytes=lambda i: paths[i].read_bytes(),
        locate=lambda i: str(paths[i]),
    )


def dataset_as_image_set(
    samples: Sequence[Any],
    class_names: tuple[str, ...],
    name: str,
    split: str,
    data_root: Path | None,
) -> ImageSet:
    """A dataset of (image, label) pairs as images of one split; numbers where names are missing.

    Its images are known by name, split, folder and index, since their files are the dataset's own.
    """
    labels = whole_numbers(_labels_of(samples), f"{name}, split {split}")
    n_classes = int(labels.max(initial=-1)) + 1
    if len(class_names) < n_classes:
        class_names = tuple(str(i) for i in range(n_classes))
    where = str(data_root.resolve()) if data_root else ""
    return ImageSet(
        split=split,
        labels=labels,
        class_names=class_names,
        open_image=lambda i: samples[i][0],
        image_bytes=lambda i: f"{name}:{split}:{where}:{i}".encode(),
        locate=lambda i: f"image {i} of {name}, split {split}",
    )


def _labels_of(samples: Sequence[Any]) -> Sequence[Any]:
    """Labels without decoding an image, where the dataset keeps them apart."""
    for attribute in ("targets", "_labels"):
        labels = getattr(samples, attribute, None)
        if labels is not None and len(labels) == len(samples):
            return [int(label) for label in labels]
    return [samples[i][1] for i in range(len(samples))]


def whole_numbers(values: Sequence[Any], where: str) -> NDArray[np.int64]:
    """Labels as int64. Raises DataError where one is not a whole number from 0."""
    labels = np.empty(len(values), dtype=np.int64)
    for i, value in enumerate(values):
        try:
            labels[i] = int(value)
            whole = float(value) == labels[i] and labels[i] >= 0
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise DataError(
                f"label {value!r} in {where} (row {i}) is not a whole number from 0. Number the "
                "classes 0, 1, 2, ..., or sort the images into one folder a class."
            )
    return labels


def digest_of(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each preceded by its length, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
