"""Where labelled images come from: image folders, parquet, CSV, and timm's named datasets.

A source knows the names of its splits and reads one of them as an `ImageSet`, whose images are
opened one at a time. Nothing is decoded here.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ckptsel.errors import DataError, did_you_mean
from ckptsel.target.classes import common_names, renumber
from ckptsel.target.images import (
    ImageSet,
    Source,
    dataset_as_image_set,
    files_as_image_set,
    names_or_numbers,
    whole_numbers,
)
from ckptsel.target.paper import PaperSource
from ckptsel.target.parquet import (
    ParquetColumn,
    ParquetSamples,
    RowGroup,
    read_schema,
    read_values,
)

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of split folders, files or CSV values, and the split that each stands for."""

IMAGE_SUFFIXES = frozenset(Image.registered_extensions())


def open_source(
    spec: str,
    data_root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """The source that `spec` names.

    spec: a folder of images, a folder of parquet files or one such file, a CSV file of path and
        label, or a timm dataset name such as `hfds/cifar10` (with `data_root`).
    image_column, label_column: for parquet and CSV, where the names are not the usual ones.
    Raises DataError where nothing is found there.
    """
    path = Path(spec)
    if is_named(spec):
        return TimmSource(spec, data_root)
    if spec.startswith("paper/") and not path.exists():
        return PaperSource(spec, data_root, open_source)
    if data_root is not None and not path.exists():
        path = data_root / spec
    if not path.exists():
        raise DataError(
            f"no data at {path}: no such file or folder. Give a folder of images "
            "(one sub-folder a class), a folder of parquet files, a CSV file of path and label, "
            "or a timm dataset name such as hfds/cifar10."
        )
    if path.suffix == ".csv":
        return CsvSource(path, image_column, label_column)
    parquet_files = [path] if path.suffix == ".parquet" else sorted(path.rglob("*.parquet"))
    if parquet_files:
        return ParquetSource(path, parquet_files, image_column, label_column)
    if path.is_file():
        raise DataError(
            f"{path} is a file of an unknown kind ({path.suffix or 'no suffix'}). "
            "A single file must be .csv or .parquet."
        )
    return FolderSource(path)


def is_named(spec: str) -> bool:
    """Whether data is a dataset that timm knows by name, and no path here."""
    return re.match(r"(hfds|hfids|torch|wds|tfds)/", spec) is not None and not Path(spec).exists()


class FolderSource:
    """A folder with one sub-folder a class, or with such folders below train/, val/, test/."""

    kind = "image folder"

    def __init__(self, root: Path) -> None:
        self.root = root
        folders = {
            SPLIT_NAMES[entry.name.lower()]: entry
            for entry in sorted(root.iterdir())
            if entry.is_dir() and entry.name.lower() in SPLIT_NAMES
        }
        self._folders = folders or {"train": root}
        self._class_names = _class_folders(self._folders.values())
        if not self._class_names:
            raise DataError(
                f"no images below {root}: looked for {root}/<class>/<image> and "
                f"{root}/train/<class>/<image> with {', '.join(sorted(IMAGE_SUFFIXES)[:6])}, ... "
                "Put each class's images into a sub-folder named after the class."
            )

    def splits(self) -> list[str]:
        return list(self._folders)

    def read(self, split: str) -> ImageSet:
        folder = self._folders[split]
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self._class_names):
            found = sorted(_walk_images(folder / name))
            paths += found
            labels += [label] * len(found)
        return files_as_image_set(split, paths, labels, self._class_names)


class CsvSource:
    """A CSV file with a column of paths (relative to the file) and a column of integer labels.

    An optional column `split` says which split a row belongs to; without it all rows are `train`.
    """

    kind = "csv"

    def __init__(self, path: Path, image_column: str | None, label_column: str | None) -> None:
        self.path = path
        self._rows, columns = _read_csv(path)
        self._image = _choose_column(path, columns, image_column, IMAGE_COLUMNS, "image")
        self._label = _choose_column(path, columns, label_column, LABEL_COLUMNS, "label")
        if not self._rows:
            raise DataError(f"{path} has a header but no rows: there are no images to rank on.")

    def splits(self) -> list[str]:
        return list(dict.fromkeys(self._split_of(row) for row in self._rows))

    def read(self, split: str) -> ImageSet:
        labels = whole_numbers([row[self._label] for row in self._rows], str(self.path))
        class_names = names_or_numbers((), labels)
        chosen = [i for i, row in enumerate(self._rows) if self._split_of(row) == split]
        paths = [self.path.parent / self._rows[i][self._image] for i in chosen]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} images named in {self.path} are not there, "
                f"for example {missing[0]}. Paths are taken relative to the CSV file."
            )
        chosen_labels = [int(labels[i]) for i in chosen]
        return files_as_image_set(split, paths, chosen_labels, class_names)

    def _split_of(self, row: dict[str, str]) -> str:
        name = (row.get("split") or "train").strip().lower()
        if name not in SPLIT_NAMES:
            raise DataError(
                f"{self.path}: unknown split {name!r}. Use one of {', '.join(SPLIT_NAMES)}."
            )
        return SPLIT_NAMES[name]


def _read_csv(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """(rows, columns). Raises DataError where it is no table of text in UTF-8."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
            return rows, list(reader.fieldnames or [])
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not written in UTF-8 ({error}). Save it as UTF-8.") from error
    except (csv.Error, OSError) as error:
        raise DataError(f"cannot read {path} as CSV: {error}.") from error


IMAGE_COLUMNS = ("image", "img", "path", "file", "file_name", "filename", "image_path")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "target")


class ParquetSource:
    """Parquet files in the Hugging Face layout: `<split>-00000-of-00001.parquet`, one column of
    images (a struct of bytes and path, or plain bytes) and one of integer labels."""

    kind = "parquet"

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        image_column: str | None,
        label_column: str | None,
    ) -> None:
        self.root = root
        self._image_column, self._label_column = image_column, label_column
        self._files: dict[str, list[Path]] = {}
        for file in files:
            self._files.setdefault(_split_of_file(file, root), []).append(file)

    def splits(self) -> list[str]:
        return list(self._files)

    def read(self, split: str) -> ImageSet:
        files = self._files[split]
        schema = read_schema(files[0])
        image_column = self._choose_image_column(schema)
        label_column = self._choose_label_column(files[0], schema)
        parts: list[tuple[tuple[str, ...], NDArray[np.int64]]] = []
        groups: list[RowGroup] = []
        for file in files:
            schema = read_schema(file)
            for name, role in ((image_column, "image"), (label_column, "label")):
                _choose_column(file, schema.names, name, (), role)
            values, more_groups = read_values(file, label_column)
            numbers = whole_numbers(values, f"column {label_column!r} of {file}")
            class_names = _class_names_in(schema, label_column)
            # Too few names are none, as elsewhere.
            enough = len(class_names) > numbers.max(initial=-1)
            parts.append((class_names if enough else (), numbers))
            groups += more_groups
        labels, class_names = _in_one_order(parts, f"split {split} of {self.root}")
        return ImageSet(
            split=split,
            labels=labels,
            class_names=names_or_numbers(class_names, labels),
            samples=ParquetSamples(
                ParquetColumn(image_column, groups), np.arange(len(labels)), str(self.root), split
            ),
        )

    def _choose_label_column(self, file: Path, schema: Any) -> str:
        usual = (*_features_of_type(schema, "ClassLabel"), *LABEL_COLUMNS)
        return _choose_column(file, schema.names, self._label_column, usual, "label")

    def _choose_image_column(self, schema: Any) -> str:
        import pyarrow as pa

        holds_bytes = [
            field.name
            for field in schema
            if pa.types.is_struct(field.type) or pa.types.is_binary(field.type)
        ]
        usual = (*_features_of_type(schema, "Image"), *IMAGE_COLUMNS, *holds_bytes)
        return _choose_column(self.root, schema.names, self._image_column, usual, "image")


class TimmSource:
    """A dataset that timm knows by name (`torch/...`, `hfds/...`, `wds/...`), below `data_root`.

    Its images are read once into memory where the dataset can only be iterated.
    """

    kind = "timm dataset"

    def __init__(self, name: str, data_root: Path | None) -> None:
        self.name, self.data_root = name, data_root

    def splits(self) -> list[str]:
        """Train, and validation or test where the dataset answers to that name with other images."""
        found: dict[str, int] = {}
        problem: Exception | None = None
        for split in ("train", "validation", "test"):
            try:
                found[split] = len(self._open(split))
            except Exception as error:  # timm passes on whatever its readers raise
                problem = error
        if not found:
            raise DataError(
                f"timm cannot open {self.name} below {self.data_root or '(no --data-root)'}: "
                f"{problem}. Check the name and --data-root; nothing is downloaded."
            )
        if self.name.lower().startswith("torch/"):
            # torchvision's small datasets answer any name but `train` with their test images.
            names = ["train", "validation"] if self._has_folder("val") else ["train", "test"]
            return [split for split in names if split in found]
        return list(found)

    def read(self, split: str) -> ImageSet:
        from torch.utils.data import IterableDataset

        dataset = self._open(split)
        is_stream = isinstance(dataset, IterableDataset)
        samples: Sequence[Any] = list(dataset) if is_stream else dataset
        class_names = tuple(str(name) for name in getattr(dataset, "classes", ()))
        return dataset_as_image_set(samples, class_names, self.name, split)

    def _has_folder(self, name: str) -> bool:
        return self.data_root is not None and any(self.data_root.glob(f"{name}*/"))

    def _open(self, split: str) -> Any:
        from timm.data import create_dataset

        root = None if self.data_root is None else str(self.data_root)
        return create_dataset(self.name, root=root, split=split, download=False)


def _in_one_order(
    parts: Sequence[tuple[tuple[str, ...], NDArray[np.int64]]], where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of several files as one sequence, and the names that they all count in. A file without
    names counts in those of the others."""
    names = common_names([names for names, _ in parts if names] or [()], where)
    labels = [renumber(labels, own, names) if own else labels for own, labels in parts]
    return np.concatenate(labels), names


def _class_folders(folders: Iterable[Path]) -> tuple[str, ...]:
    names = {
        entry.name
        for folder in folders
        for entry in folder.iterdir()
        if entry.is_dir() and next(_walk_images(entry), None) is not None
    }
    return tuple(sorted(names))


def _walk_images(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in folder.rglob("*"):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield path


def _split_of_file(file: Path, root: Path) -> str:
    """The split that a parquet file belongs to: from its name, else its folder, else train."""
    for part in (file.name, *(parent.name for parent in file.parents if parent != root)):
        word = re.match(r"[a-z]+", part.lower())
        if word and word.group() in SPLIT_NAMES:
            return SPLIT_NAMES[word.group()]
    return "train"


def _choose_column(
    where: Path, columns: Sequence[str], asked: str | None, usual: Sequence[str], role: str
) -> str:
    if asked is not None:
        if asked in columns:
            return asked
        raise DataError(
            f"{where} has no column {asked!r}; it has {', '.join(columns)}."
            + did_you_mean(asked, columns)
        )
    for name in usual:
        if name in columns:
            return name
    raise DataError(
        f"{where} has no {role} column that ckptsel knows; it has {', '.join(columns) or 'none'}. "
        f"Name it with --{role}-column."
    )


def _hugging_face_features(schema: Any) -> dict[str, Any]:
    metadata = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(metadata or b"{}").get("info", {}).get("features", {})
        return {k: v for k, v in features.items() if isinstance(v, dict)}
    except (ValueError, AttributeError, RecursionError):
        return {}  # what says how columns are meant is only a help


def _features_of_type(schema: Any, kind: str) -> list[str]:
    features = _hugging_face_features(schema)
    return [name for name, value in features.items() if value.get("_type") == kind]


def _class_names_in(schema: Any, label_column: str) -> tuple[str, ...]:
    names = _hugging_face_features(schema).get(label_column, {}).get("names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()
