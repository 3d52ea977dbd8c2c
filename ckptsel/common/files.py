"""Writing without loss: everything is written to a temporary name and then renamed."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckptsel.common.outlets import csv_cell
from ckptsel.errors import InputError, OutputError


@contextlib.contextmanager
def atomic_path(path: Path, said: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    said: the name in messages, where another than `path` says more.
    Raises OutputError where the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {said or path}: {error.strerror or error}. {_advice(error)}"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # what went wrong before is what is said
                temporary.unlink(missing_ok=True)


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Make room there, or choose a folder on another disk."
    return "Choose a folder that you may write to."


def write_bytes(path: Path, data: bytes, said: Path | None = None) -> None:
    """Write `data`, atomically. Of libraries only the bytes are taken: each has an error of its own
    for a full disk."""
    with atomic_path(path, said) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError where it is not there or no valid JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error


def parse_json(text: str) -> Any:
    """What JSON stands for. Raises ValueError where it is none, or has numbers that are not finite,
    which Python's reader lets pass."""
    return json.loads(text, parse_constant=_no_number, parse_float=_finite)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:40])


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows of one shape as CSV with a header; `columns` names the header of an empty table.

    Texts are as `csv_cell` shows them.
    """
    buffer = io.StringIO()
    columns = list(rows[0]) if columns is None else list(columns)
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writerow({name: csv_cell(name) for name in columns})
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
