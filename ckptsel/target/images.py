"""Labelled images of one split, opened one at a time, and the digest that they are known by."""

import dataclasses
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ckptsel.common.cache import CacheFolder
from ckptsel.common.states import known_by, states_of
from ckptsel.target.labels import names_or_numbers, whole_numbers
from ckptsel.target.samples import DatasetSamples, FileSamples, Samples

FINGERPRINTS = "fingerprints"
"""The kind of entry in a cache."""

DIGEST_BLOCK = 64
"""Images that one thread reads and digests at a time."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one split.

    labels: (N,) int64, each an index into `class_names`.
    samples: the images, in the same order. Can be pickled: worker processes, however they are
    started, open the images by themselves.
    notes: what a reader of the ranking should know of where they come from.
    cache: keeps the fingerprint while the files are as they were.
    """

    split: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    samples: Samples
    notes: tuple[str, ...] = ()
    cache: CacheFolder = field(default=CacheFolder(None), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def open_image(self, index: int) -> Image.Image:
        """An image as stored (any mode). Raises what Pillow raises where it cannot be read."""
        return self.samples.open(index)

    def image_bytes(self, index: int) -> bytes:
        """What tells the image from any other: its file as stored. Raises OSError."""
        return self.samples.read(index)

    def locate(self, index: int) -> str:
        """Where an image lies, for messages."""
        return self.samples.locate(index)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of labels and images in their order: the same wherever they lie and whenever they
        were copied there, another when one of them changes. Reads every image's file, unless the cache
        has it of files that are as they were."""
        key = self._state_key()
        kept = None if key is None else self.cache.recall(FINGERPRINTS, key)
        if kept is not None:
            return kept.decode()
        unread: list[int] = []
        with ThreadPoolExecutor() as pool:
            starts = range(0, len(self), DIGEST_BLOCK)
            blocks = pool.map(lambda start: self._digest_block(start, unread), starts)
            found = digest_of(self.labels.tobytes(), *blocks)
        if key is not None and not unread:  # what cannot be read now, another run may read
            self.cache.write(FINGERPRINTS, key, found.encode())
        return found

    def _state_key(self) -> str | None:
        """Another when a file may have changed; None where that cannot be told."""
        files = self.samples.files() if self.cache.folder is not None else None
        states = None if files is None else states_of(files.paths)
        if files is None or states is None:
            return None
        return known_by(states, files.where, digest_of(self.labels.tobytes()))

    def _digest_block(self, start: int, unread: list[int]) -> str:
        """unread: gets what cannot be read, which is named when it is decoded."""
        block = range(start, min(start + DIGEST_BLOCK, len(self)))
        return digest_of(*(digest_of(self._known_bytes(i, unread)) for i in block))

    def _known_bytes(self, index: int, unread: list[int]) -> bytes:
        try:
            return self.image_bytes(index)
        except OSError:
            unread.append(index)
            return b""

    def subset(self, indices: NDArray[np.int64]) -> "ImageSet":
        """The images at `indices`, in that order."""
        return dataclasses.replace(
            self, labels=self.labels[indices], samples=self.samples.take(indices)
        )


class Source(Protocol):
    """Labelled images in one or more splits."""

    kind: str

    def splits(self) -> list[str]:
        """Names of the splits that are there: of train, validation, test."""

    def read(self, split: str) -> ImageSet:
        """The images of one split."""


def files_as_image_set(
    split: str,
    paths: Sequence[str | Path],
    labels: ArrayLike,
    class_names: tuple[str, ...],
    notes: tuple[str, ...] = (),
) -> ImageSet:
    """Image files as images of one split, in the order of `paths` and `labels`."""
    return ImageSet(
        split=split,
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        samples=FileSamples.of(paths),
        notes=notes,
    )


def dataset_as_image_set(
    samples: Sequence[Any],
    class_names: tuple[str, ...],
    name: str,
    split: str,
) -> ImageSet:
    """A dataset of (image, label) pairs as images of one split; numbers where names are missing.

    Raises DataError where a label is not a whole number from 0.
    """
    labels = whole_numbers(_labels_of(samples), f"{name}, split {split}")
    return ImageSet(
        split=split,
        labels=labels,
        class_names=names_or_numbers(class_names, labels),
        samples=DatasetSamples(samples, name, split, np.arange(len(labels))),
    )


def _labels_of(samples: Sequence[Any]) -> Sequence[Any]:
    """Labels without decoding an image, where the dataset keeps them apart."""
    for attribute in ("targets", "_labels"):
        labels = getattr(samples, attribute, None)
        if labels is not None and len(labels) == len(samples):
            return [int(label) for label in labels]
    return [samples[i][1] for i in range(len(samples))]


def digest_of(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each preceded by its length, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
