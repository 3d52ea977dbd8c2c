"""Images in parquet and Arrow files: each process reads the row groups that it needs, when it needs
them.

What is passed on is where the rows lie. What was read is not: the next process reads it again.
Arrow files are those of `datasets.save_to_disk`: a stream of record batches, which are its row groups.
"""

import contextlib
import hashlib
import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ckptsel.errors import DataError
from ckptsel.target.samples import Files

ARROW_SUFFIX = ".arrow"

KEPT_BYTES = 256 * 2**20
"""Read row groups that one process keeps: small sets whole, of large ones those in use."""

KEPT_GROUPS = 2
"""Kept whatever their size: threads that read in order stand on both sides of a border."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a parquet file, or record batch of an Arrow file, and how many rows it has.

    number: in a parquet file; in an Arrow file, the byte where it begins.
    """

    path: str
    number: int
    n_rows: int


class ParquetColumn:
    """One column of several row groups, read as one sequence of values. Threads may share it.

    It pickles as the names of its row groups.
    """

    def __init__(self, name: str, groups: Sequence[RowGroup]) -> None:
        self._name, self._groups = name, tuple(groups)
        self._ends = list(accumulate(group.n_rows for group in groups))
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ParquetColumn"], tuple[str, tuple[RowGroup, ...]]]:
        return ParquetColumn, self.places

    @property
    def paths(self) -> list[str]:
        """Of the files, each once."""
        return list(dict.fromkeys(group.path for group in self._groups))

    @property
    def places(self) -> tuple[str, tuple[RowGroup, ...]]:
        """Which column of what."""
        return self._name, self._groups

    def value(self, row: int) -> Any:
        """The value in a row, as Python has it. Raises OSError where it cannot be read."""
        number = bisect_right(self._ends, row)
        start = self._ends[number] - self._groups[number].n_rows
        try:
            return self._column_of(number)[row - start].as_py()
        except UnicodeDecodeError as error:
            raise OSError(f"{self._groups[number].path} holds text that is not UTF-8") from error

    def _column_of(self, number: int) -> Any:
        with self._lock:  # so that threads do not read one row group several times
            if number not in self._kept:
                self._kept[number] = _read_group(self._groups[number], self._name)
                self._forget_oldest()
            self._kept.move_to_end(number)
            return self._kept[number]

    def _forget_oldest(self) -> None:
        size = sum(column.nbytes for column in self._kept.values())
        while size > KEPT_BYTES and len(self._kept) > KEPT_GROUPS:
            _, oldest = self._kept.popitem(last=False)
            size -= oldest.nbytes


@dataclass(frozen=True, eq=False)
class ParquetSamples:
    """One row an image.

    rows: (N,) int64 in the column.
    root, split: for messages.
    """

    column: ParquetColumn
    rows: NDArray[np.int64]
    root: str
    split: str

    def read(self, index: int) -> bytes:
        value = self.column.value(int(self.rows[index]))
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise OSError(
                "no image bytes in this row, perhaps only a path: datasets' save_to_disk stores the "
                "images themselves; paths can be given as a CSV"
            )
        return data

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.read(index)))

    def locate(self, index: int) -> str:
        return f"row {self.rows[index]} of split {self.split} of {self.root}"

    def take(self, indices: NDArray[np.int64]) -> "ParquetSamples":
        return ParquetSamples(self.column, self.rows[indices], self.root, self.split)

    def files(self) -> Files:
        where = hashlib.sha256(f"{self.column.places}".encode() + self.rows.tobytes()).hexdigest()
        return Files(self.column.paths, where)


def read_schema(file: Path) -> Any:
    """The Arrow schema of a file. Raises DataError where it is not a whole file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _named_if_broken(file):
        if _is_arrow(file):
            with pa.OSFile(str(file)) as opened, pa.ipc.open_stream(opened) as stream:
                schema = stream.schema
        else:
            schema = pq.read_schema(file)
        _ = [field.name for field in schema]  # text that is not UTF-8 ends here
        return schema


def read_values(file: Path, column: str) -> tuple[list[Any], list[RowGroup]]:
    """All values of a small column, and the row groups of the file that they lie in.

    Raises DataError where the file cannot be read.
    """
    import pyarrow.parquet as pq

    if _is_arrow(file):
        return _read_arrow_values(file, column)
    # Not pq.read_table, which imports pandas for a second.
    with _named_if_broken(file), pq.ParquetFile(file) as opened:
        groups = _groups_of(file, opened)
        values = opened.read([column]).column(column).to_pylist()
    return values, groups


def read_groups(file: Path) -> list[RowGroup]:
    """The row groups of a file alone. Raises DataError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _is_arrow(file):
        with _named_if_broken(file), pq.ParquetFile(file) as opened:
            return _groups_of(file, opened)
    groups: list[RowGroup] = []
    with _named_if_broken(file), pa.OSFile(str(file)) as opened:
        for start, batch in _batches(opened):
            _check_rows(file, sum(group.n_rows for group in groups) + batch.num_rows)
            groups.append(RowGroup(str(file), start, batch.num_rows))
    return groups


def _batches(opened: Any) -> Iterator[tuple[int, Any]]:
    """(the byte that it begins at, batch) of every record batch of an open Arrow stream."""
    import pyarrow as pa

    stream = pa.ipc.open_stream(opened)
    while True:
        start = opened.tell()
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            return
        yield start, batch


def _groups_of(file: Path, opened: Any) -> list[RowGroup]:
    _check_rows(file, opened.metadata.num_rows)
    sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
    return [RowGroup(str(file), i, n) for i, n in enumerate(sizes)]


def _is_arrow(file: Path | str) -> bool:
    return str(file).endswith(ARROW_SUFFIX)


def _read_arrow_values(file: Path, column: str) -> tuple[list[Any], list[RowGroup]]:
    import pyarrow as pa

    values: list[Any] = []
    groups: list[RowGroup] = []
    with _named_if_broken(file), pa.OSFile(str(file)) as opened:
        for start, batch in _batches(opened):
            _check_rows(file, len(values) + batch.num_rows)
            part = batch.column(column)
            part.validate(full=True)
            values += part.to_pylist()
            groups.append(RowGroup(str(file), start, batch.num_rows))
    return values, groups


def _read_batch(group: RowGroup, column: str) -> Any:
    """A column of the record batch that begins at a byte."""
    import pyarrow as pa

    with pa.OSFile(group.path) as opened:
        schema = pa.ipc.open_stream(opened).schema
        opened.seek(group.number)
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(opened), schema)
    part = batch.column(column)
    part.validate(full=True)  # what is read of it must lie inside it
    return part


def _check_rows(file: Path, n_rows: int) -> None:
    """A few bytes can stand for a billion equal labels, which would take all memory; an image takes
    more than a byte."""
    if n_rows > file.stat().st_size:
        raise DataError(
            f"cannot read {file}: it says that it has {n_rows:,} rows, more than it has bytes. It is "
            "damaged, or made to exhaust memory."
        )


@contextlib.contextmanager
def _named_if_broken(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a damaged file can end in an error of any type
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise DataError(f"cannot read {file}: {reason}. Is it a whole file?") from error


def _read_group(group: RowGroup, column: str) -> Any:
    """A column of one row group. The file is closed again: no process shares its place in it."""
    import pyarrow.parquet as pq

    try:
        if _is_arrow(group.path):
            values = _read_batch(group, column)
        else:
            with pq.ParquetFile(group.path) as file:
                # Without Arrow's threads, which a forked process does not have.
                table = file.read_row_group(group.number, [column], use_threads=False)
            values = table.column(column)
    except OSError:
        raise
    except Exception as error:  # a damaged file can end in an error of any type
        raise OSError(f"cannot read column {column!r} of {group.path}: {error}") from error
    if len(values) != group.n_rows:
        raise OSError(f"{group.path} has changed since its labels were read")
    return values
