"""Lists of images and labels that people write: CSV, TSV, JSON lines, and metadata files of folders."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ckptsel.errors import DataError, listed, listed_below
from ckptsel.target.columns import IMAGE_COLUMNS, LABEL_COLUMNS, choose_column, usual_column
from ckptsel.target.images import ImageSet, files_as_image_set
from ckptsel.target.labels import Labels, Names, encode_labels
from ckptsel.target.layout import SPLIT_NAMES, is_picture

JSON_SUFFIXES = (".jsonl", ".ndjson")
METADATA = ("metadata.csv", "metadata.jsonl")
"""Names of a table in the folder of the images that it lists, as datasets of the Hub have it."""

SPLIT_COLUMN = "split"
MOST_BYTES = 2**31
"""Of a table: it is read whole."""

Records = Iterator[tuple[int, Sequence[Any]]]
"""(line of the file from 1, cells in the order of the columns)."""


@dataclass(frozen=True)
class Rows:
    """What a table says, a row an image.

    images: paths relative to the table's folder. lines: where each row stands, from 1.
    splits: the split of each row.
    """

    path: Path
    images: list[str]
    labels: list[Any]
    splits: list[str]
    lines: list[int]

    def place(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"


class TableSource:
    """Tables of paths and labels, and perhaps of splits: without that column a row is of the split that
    the caller says. Classes are those of all tables together."""

    def __init__(self, kind: str, tables: Sequence[Rows]) -> None:
        self.kind = kind
        self._tables = tables

    def splits(self) -> list[str]:
        return list(dict.fromkeys(split for rows in self._tables for split in rows.splits))

    def read(self, split: str) -> ImageSet:
        labels, class_names = self._encoded
        paths: list[str] = []
        chosen: list[int] = []
        missing: list[str] = []
        start = 0
        for rows in self._tables:
            folder = str(rows.path.parent)
            for i, (name, its_split) in enumerate(zip(rows.images, rows.splits, strict=True)):
                if its_split == split:
                    path = os.path.join(folder, name)  # noqa: PTH118 - a million of them
                    paths.append(path)
                    chosen.append(start + i)
                    if not os.path.isfile(path):  # noqa: PTH113
                        missing.append(f"line {rows.lines[i]} of {rows.path}: {path}")
            start += len(rows.images)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} images of split {split} are not there:",
                *listed_below(missing, 3),
                "Paths are taken relative to the folder of the file that lists them, with their suffix; "
                "nothing is downloaded.",
            )
        return files_as_image_set(split, paths, labels[chosen], class_names)

    @cached_property
    def _encoded(self) -> tuple[Labels, Names]:
        labels = [label for rows in self._tables for label in rows.labels]
        return encode_labels(labels, self._place)

    def _place(self, row: int) -> str:
        for rows in self._tables:
            if row < len(rows.images):
                return rows.place(row)
            row -= len(rows.images)
        raise IndexError(row)


def open_table(path: Path, image_column: str | None, label_column: str | None) -> TableSource:
    """The source that one file makes. Raises DataError."""
    kind = "json lines" if _is_json(path) else path.suffix.lower()[1:]
    return TableSource(kind, [read_rows(path, image_column, label_column)])


def open_metadata(
    root: Path, files: Sequence[str], image_column: str | None, label_column: str | None
) -> TableSource | None:
    """The source of a folder with metadata files, in it or in the folders of its splits; None where
    there are none, or none with labels while the folders are named after classes."""
    found = [name for name in files if name.count("/") < 2 and name.rpartition("/")[2] in METADATA]
    tables = []
    for name in found:
        top = name.rpartition("/")[0]
        if sum(other.rpartition("/")[0] == top for other in found) > 1:
            raise DataError(
                f"{root / top} has both {' and '.join(METADATA)}: which one holds? Take one away."
            )
        if label_column is None and not _has_labels(root / name) and _has_folders(files, top):
            return None
        split = SPLIT_NAMES.get(top.lower())
        tables.append(read_rows(root / name, image_column, label_column, split, not top))
    return TableSource("metadata of a folder", tables) if tables else None


def read_rows(
    path: Path,
    image_column: str | None,
    label_column: str | None,
    split: str | None = None,
    split_by_folder: bool = False,
) -> Rows:
    """The rows of a table.

    split: of rows where no column says it; None is train. split_by_folder: then a path that begins with
    the folder of a split is of that split. Raises DataError naming the line.
    """
    columns, records = _read(path)
    image = columns.index(choose_column(path, columns, image_column, IMAGE_COLUMNS, "image"))
    label = columns.index(choose_column(path, columns, label_column, LABEL_COLUMNS, "label"))
    named = usual_column(columns, (SPLIT_COLUMN,))
    of_split = -1 if named is None else columns.index(named)
    rows = Rows(path, [], [], [], [])
    for line, cells in records:
        name = cells[image]
        if not isinstance(name, str) or not name.strip():
            raise DataError(
                f"{path}, line {line} names no image in column {columns[image]!r} ({name!r}). Give a "
                "path, or remove the row."
            )
        rows.images.append(name.strip())
        rows.labels.append(cells[label])
        if of_split >= 0:
            rows.splits.append(_split_named(cells[of_split], path, line))
        else:
            top = name.partition("/")[0].lower() if split_by_folder else ""
            rows.splits.append(split or SPLIT_NAMES.get(top, "train"))
        rows.lines.append(line)
    if not rows.images:
        raise DataError(f"{path} has a header but no rows: there are no images to rank on.")
    return rows


def list_unlabelled(path: Path, image_column: str | None) -> list[str]:
    """Paths of the images that a table lists without any label; none where it has a column of labels.

    Raises DataError where a row names no image, or one that is not there.
    """
    columns, records = _read(path)
    if usual_column(columns, LABEL_COLUMNS) is not None:
        return []
    image = columns.index(choose_column(path, columns, image_column, IMAGE_COLUMNS, "image"))
    found = []
    for line, cells in records:
        name = cells[image]
        file = path.parent / name.strip() if isinstance(name, str) and name.strip() else None
        if file is None or not file.is_file():
            raise DataError(
                f"{path}, line {line} names no image that is there ({file or name!r}). Paths are taken "
                "relative to the folder of the file that lists them."
            )
        found.append(str(file))
    return found


def _split_named(value: Any, path: Path, line: int) -> str:
    name = str(value or "train").strip().lower() or "train"
    if name not in SPLIT_NAMES:
        raise DataError(
            f"{path}, line {line}: unknown split {name!r}. Use one of {', '.join(SPLIT_NAMES)}."
        )
    return SPLIT_NAMES[name]


def _has_labels(path: Path) -> bool:
    return usual_column(_read(path)[0], LABEL_COLUMNS) is not None


def _has_folders(files: Sequence[str], top: str) -> bool:
    """Whether pictures lie in folders below `top`, one of which may be each class."""
    depth = 2 if top else 1
    return any(
        is_picture(name) and name.startswith(f"{top}/" if top else "") and name.count("/") >= depth
        for name in files
    )


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in JSON_SUFFIXES


def _read(path: Path) -> tuple[list[str], Records]:
    """(columns, records). Raises DataError, also while the records are read."""
    text = _text_of(path)
    return _read_json_lines(path, text) if _is_json(path) else _read_csv(path, text)


def _read_csv(path: Path, text: str) -> tuple[list[str], Records]:
    """By the separator that the header has most of: , or ; (as Excel writes it in many countries) or
    a tab."""
    header, _, _ = text.lstrip().partition("\n")
    separator = max("\t,;" if path.suffix.lower() == ".tsv" else ",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    lines = _lines_of(path, reader)
    _, first = next(lines, (0, []))
    columns = [cell.strip() for cell in first]
    if any(is_picture(cell) for cell in columns):
        raise DataError(
            f"{path} has no header: its first line is {listed(columns)}. Write the names of the columns "
            "above it, such as path,label."
        )
    return columns, _whole_rows(path, len(columns), lines)


def _lines_of(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, each with its number."""
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f'cannot read {path} as a table: line {reader.line_num}: {error}. Is a quotation mark (") '
            "left open?"
        ) from error


def _whole_rows(path: Path, n_columns: int, lines: Iterator[tuple[int, list[str]]]) -> Records:
    for line, cells in lines:
        if len(cells) < n_columns:
            cells += [""] * (n_columns - len(cells))
        elif len(cells) > n_columns and any(cells[n_columns:]):
            raise DataError(
                f"{path}, line {line} has {len(cells)} cells, the header {n_columns}. Put quotation "
                'marks around a cell with a separator in it ("a,b.png").'
            )
        yield line, cells


def _read_json_lines(path: Path, text: str) -> tuple[list[str], Records]:
    """The columns are the keys of the first line; a key that a later line lacks is None there."""
    lines = ((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip())
    number, first = next(lines)
    columns = list(_object_in(path, number, first))

    def records() -> Records:
        yield number, list(_object_in(path, number, first).values())
        for i, line in lines:
            record = _object_in(path, i, line)
            yield i, [record.get(name) for name in columns]

    return columns, records()


def _object_in(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number} is not JSON: {str(error)[:200]}. Each line is an object of its own, "
            'such as {"file_name": "1.png", "label": "cat"}.'
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}, line {number} is not an object of JSON. Each line is one, such as "
            '{"file_name": "1.png", "label": "cat"}; a whole file that is one list has to be split.'
        )
    return value


def _text_of(path: Path) -> str:
    """The text of a file in UTF-8. Raises DataError that names the encoding that it seems to have."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than 2 GiB, too large for a list of images.")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}.") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data:
        raise DataError(
            f"{path} is not text in UTF-8: it begins like UTF-16 or holds bytes of value 0. Excel "
            "writes UTF-16 as 'Unicode text': save it as 'CSV UTF-8', or convert it: "
            "iconv -f UTF-16 -t UTF-8."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not text in UTF-8: line {line} has the byte 0x{data[error.start]:02x} "
            f"({data[error.start : error.start + 1].decode('latin-1')!r} in Latin-1, as Excel's plain "
            "CSV is written). Save it as 'CSV UTF-8', or convert it: iconv -f WINDOWS-1252 -t UTF-8."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty: there are no images to rank on.")
    return text
