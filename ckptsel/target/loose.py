"""Images to be read and not to be learnt from: with labels where there are any."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptsel.errors import DataError
from ckptsel.target.columnar import ColumnarSource
from ckptsel.target.images import ImageSet, Source, files_as_image_set
from ckptsel.target.layout import TABLE_SUFFIXES, is_picture, list_files, suffix_of
from ckptsel.target.sources import open_source
from ckptsel.target.tables import list_unlabelled

UNLABELLED = ""
"""Name of the one class of images that have none."""


@dataclass(frozen=True)
class Loose:
    """Images of one or more splits, in order."""

    image_sets: tuple[ImageSet, ...]

    def __len__(self) -> int:
        return sum(map(len, self.image_sets))

    @property
    def has_labels(self) -> bool:
        return any(images.class_names != (UNLABELLED,) for images in self.image_sets)

    @property
    def labels(self) -> list[str]:
        """The name of each image's class."""
        return [s.class_names[label] for s in self.image_sets for label in s.labels.tolist()]

    @property
    def splits(self) -> list[str]:
        return [images.split for images in self.image_sets for _ in range(len(images))]

    @property
    def names(self) -> list[str]:
        """Where each lies: its path, or its place in a file of many."""
        return [images.locate(i) for images in self.image_sets for i in range(len(images))]


def read_loose(
    data: str,
    data_root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
) -> Loose:
    """The images that `data` names, as for `open_source`; besides an image, a folder with nothing but
    images in it, and a table or parquet files without labels.

    split: None reads all. Raises DataError where there are none.
    """
    path = Path(data)
    if data_root is not None and not path.exists():
        path = data_root / data
    if unlabelled := _unlabelled_in(path, image_column, label_column):
        read = [files_as_image_set("train", unlabelled, [0] * len(unlabelled), (UNLABELLED,))]
        known = ["train"]
    else:
        source = open_source(data, data_root, image_column, label_column)
        known = source.splits()
        read = [_read(source, name) for name in known if split in (None, name)]
    if split is not None and split not in known:
        raise DataError(f"{data} has no split {split!r}; it has {', '.join(known)}.")
    loose = Loose(tuple(images for images in read if len(images)))
    if not len(loose):
        raise DataError(f"{data} holds no images.")
    return loose


def _read(source: Source, split: str) -> ImageSet:
    if isinstance(source, ColumnarSource) and not source.has_labels(split):
        return source.read_unlabelled(split, UNLABELLED)
    return source.read(split)


def _unlabelled_in(
    path: Path, image_column: str | None, label_column: str | None
) -> Sequence[str | Path]:
    """Images of which nothing says what they show; none where something does, or is expected to."""
    if path.is_dir():
        files = list_files(path)
        is_plain = files and all(is_picture(name) and "/" not in name for name in files)
        return [path / name for name in files] if is_plain else []
    if path.is_file() and is_picture(path.name):
        return [path]
    if path.is_file() and suffix_of(path.name) in TABLE_SUFFIXES and label_column is None:
        return list_unlabelled(path, image_column)
    return []
