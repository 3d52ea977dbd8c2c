"""Parquet and Arrow files with a column of images and one of labels, in the Hugging Face layouts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ckptsel.errors import DataError, listed
from ckptsel.target.classes import common_names, renumber
from ckptsel.target.columns import IMAGE_COLUMNS, LABEL_COLUMNS, choose_column, usual_column
from ckptsel.target.images import ImageSet
from ckptsel.target.labels import Labels, Names, encode_labels, names_or_numbers, whole_numbers
from ckptsel.target.layout import SPLIT_NAMES, split_of_file
from ckptsel.target.parquet import (
    ARROW_SUFFIX,
    ParquetColumn,
    ParquetSamples,
    RowGroup,
    read_groups,
    read_schema,
    read_values,
)


class ColumnarSource:
    """Files of a split, one column of images (a struct of bytes and path, or plain bytes) and one of
    labels (words, or whole numbers, which the file may name)."""

    def __init__(
        self,
        kind: str,
        root: Path,
        files: dict[str, list[Path]],
        image_column: str | None,
        label_column: str | None,
    ) -> None:
        """files: of each split."""
        self.kind, self.root = kind, root
        self._image_column, self._label_column = image_column, label_column
        self._files = files

    def splits(self) -> list[str]:
        return list(self._files)

    def read(self, split: str) -> ImageSet:
        files = self._files[split]
        schema = read_schema(files[0])
        image_column = self._choose_image_column(schema)
        label_column = self._choose_label_column(files[0], schema)
        parts: list[tuple[Names, list[Any]]] = []
        groups: list[RowGroup] = []
        for file in files:
            schema = read_schema(file)
            for name, role in ((image_column, "image"), (label_column, "label")):
                choose_column(file, schema.names, name, (), role)
            values, more_groups = read_values(file, label_column)
            parts.append((_class_names_in(schema, label_column), values))
            groups += more_groups
        labels, class_names = _encode(
            parts, f"column {label_column!r} of split {split} of {self.root}"
        )
        return ImageSet(
            split=split,
            labels=labels,
            class_names=class_names,
            samples=ParquetSamples(
                ParquetColumn(image_column, groups), np.arange(len(labels)), str(self.root), split
            ),
        )

    def has_labels(self, split: str) -> bool:
        """Whether a column says, or was said to say, what the images show."""
        schema = read_schema(self._files[split][0])
        usual = (*_features_of_type(schema, "ClassLabel"), *LABEL_COLUMNS)
        return self._label_column is not None or usual_column(schema.names, usual) is not None

    def read_unlabelled(self, split: str, class_name: str) -> ImageSet:
        """The images of a split without labels, as if all were of one class."""
        files = self._files[split]
        column = self._choose_image_column(read_schema(files[0]))
        groups = []
        for file in files:
            choose_column(file, read_schema(file).names, column, (), "image")
            groups += read_groups(file)
        rows = np.arange(sum(group.n_rows for group in groups))
        samples = ParquetSamples(ParquetColumn(column, groups), rows, str(self.root), split)
        return ImageSet(split, np.zeros_like(rows), (class_name,), samples)

    def _choose_label_column(self, file: Path, schema: Any) -> str:
        usual = (*_features_of_type(schema, "ClassLabel"), *LABEL_COLUMNS)
        return choose_column(file, schema.names, self._label_column, usual, "label")

    def _choose_image_column(self, schema: Any) -> str:
        import pyarrow as pa

        holds_bytes = [
            field.name
            for field in schema
            if pa.types.is_struct(field.type) or pa.types.is_binary(field.type)
        ]
        usual = (*_features_of_type(schema, "Image"), *IMAGE_COLUMNS, *holds_bytes)
        return choose_column(self.root, schema.names, self._image_column, usual, "image")


def open_parquet(
    root: Path, files: Sequence[str], image_column: str | None, label_column: str | None
) -> ColumnarSource:
    """Parquet files below a folder, or a single one. files: relative to root, or `.`."""
    of_split: dict[str, list[Path]] = {}
    for name in files:
        split = split_of_file(root.name if name == "." else name)
        of_split.setdefault(split, []).append(root / name)
    return ColumnarSource("parquet", root, of_split, image_column, label_column)


def is_saved_dataset(root: Path) -> bool:
    """Whether a folder is one that `datasets.save_to_disk` wrote."""
    return (root / SPLITS_FILE).is_file() or (root / STATE_FILE).is_file()


SPLITS_FILE, STATE_FILE = "dataset_dict.json", "state.json"


def open_saved_dataset(
    root: Path, image_column: str | None, label_column: str | None
) -> ColumnarSource:
    """A folder of `datasets.save_to_disk`: of one split, or of several in folders of their own."""
    if (root / STATE_FILE).is_file():
        of_split = {"train": _arrow_files(root)}
    else:
        names = _read_json(root / SPLITS_FILE).get("splits")
        if not isinstance(names, list) or not all(_is_plain(name) for name in names):
            raise DataError(f"{root / SPLITS_FILE} names no splits. Save the dataset again.")
        known = [name for name in names if name.lower() in SPLIT_NAMES]
        if not known:
            raise DataError(
                f"{root} has the splits {listed(names)}, none of which ckptsel knows. Name the folder "
                f"of one: --data {root}/<split>."
            )
        of_split = {SPLIT_NAMES[name.lower()]: _arrow_files(root / name) for name in known}
    return ColumnarSource("saved dataset", root, of_split, image_column, label_column)


def _arrow_files(folder: Path) -> list[Path]:
    """The files that its state names, all of which lie in the folder itself."""
    state = folder / STATE_FILE
    entries = _read_json(state).get("_data_files")
    listing = entries if isinstance(entries, list) else []
    named = [entry.get("filename") if isinstance(entry, dict) else None for entry in listing]
    names = [name for name in named if _is_plain(name) and name.endswith(ARROW_SUFFIX)]
    if not names or names != named:
        raise DataError(
            f"{state} names no {ARROW_SUFFIX} files of its own folder (found {named[:3]!r}). Save the "
            "dataset again with datasets' save_to_disk."
        )
    return [folder / name for name in names]


def _is_plain(name: Any) -> TypeGuard[str]:
    """Whether it is the name of something in the folder itself."""
    return isinstance(name, str) and Path(name).name == name and "\0" not in name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {str(error)[:200]}. Is the folder whole?") from error
    return value if isinstance(value, dict) else {}


def _encode(parts: Sequence[tuple[Names, list[Any]]], where: str) -> tuple[Labels, Names]:
    """Labels of several files as one sequence, and the names that they all count in.

    Files that name their numbers are matched by these names; one without, as others are.
    """
    if not any(names for names, _ in parts):
        values = [value for _, part in parts for value in part]
        return encode_labels(values, lambda row: f"{where} (row {row})")
    known = [(names, whole_numbers(values, where)) for names, values in parts]
    # Too few names are none, as elsewhere.
    known = [(n if len(n) > labels.max(initial=-1) else (), labels) for n, labels in known]
    names = common_names([names for names, _ in known if names] or [()], where)
    labels = [renumber(labels, own, names) if own else labels for own, labels in known]
    joined = np.concatenate(labels)
    return joined, names_or_numbers(names, joined)


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
