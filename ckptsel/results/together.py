"""Files that belong together: written so that a reader finds the old ones or the new ones, never some
of each.

One file, the index, names the SHA-256 of every other. A file is first written beside the one that it
will replace, under a name that carries its digest. The index is renamed over the old one at last: from
then on the new files count. They then take their names, and what belonged to the old index goes. A
reader takes whichever of both names holds what the index asks for, so a fault at any moment leaves one
whole set; the next writer tidies up.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ckptsel.common.files import write_bytes
from ckptsel.errors import InputError, OutputError

FILES = "files"
"""The key of the index below which the digests stand, by the names of the files."""

IS_DIGEST = re.compile("[0-9a-f]{64}")
"""SHA-256. Part of a file's name, so nothing else may stand there."""


def write_together(
    index: Path, value: Mapping[str, Any], files: Mapping[str, bytes], known: Collection[str]
) -> None:
    """Write files beside an index, then the index.

    index: a JSON file. value: what it holds, the digests of all that belongs to it below FILES.
    files: contents by name. known: names of all files that may belong to such an index; those that do
    not belong to this one are removed.
    Raises OutputError; what was there before is then still whole, or all of the new is.
    """
    text = index_text(value)
    digests = value[FILES]
    staged = {name: staged_path(index.with_name(name), digests[name]) for name in files}
    try:
        for name, data in files.items():
            write_bytes(staged[name], data, said=index.with_name(name))
        write_bytes(index, text.encode())
    except BaseException:
        _forget(index, staged, digests)
        raise
    _finish(index, digests, known)


def index_text(value: Mapping[str, Any]) -> str:
    """How an index is written."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _finish(index: Path, digests: Mapping[str, str], known: Collection[str]) -> None:
    """Give the files of an index their names, and remove what belongs to another."""
    try:
        for name in known:
            path = index.with_name(name)
            if name in digests:
                staged = staged_path(path, digests[name])
                if staged.is_file():
                    staged.replace(path)
            else:
                path.unlink(missing_ok=True)
            for other in path.parent.glob(f".{name}.*.new"):
                other.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {index.parent}: {error.strerror or error}. Its results are whole; run the "
            "same command again to finish."
        ) from error


def digests_of(index: Path) -> dict[str, str] | None:
    """The digests that an index names; None where there is none, or it names none (older ones)."""
    with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
        found = json.loads(index.read_text(encoding="utf-8")).get(FILES)
        return found if isinstance(found, dict) and found else None
    return None


def read_together(index: Path, name: str, digests: Mapping[str, str]) -> bytes | None:
    """A file that belongs to an index; None where it is not there.

    digests: those that the index names; empty where it is of a version that named none.
    Raises InputError where another file lies in its place, or it cannot be read.
    """
    path = index.with_name(name)
    data = _read(path)
    if not digests or (data is not None and digest_of_file(data) == digests.get(name)):
        return data
    if name in digests and IS_DIGEST.fullmatch(str(digests[name])):
        staged = _read(staged_path(path, digests[name]))
        if staged is not None and digest_of_file(staged) == digests[name]:
            return staged
    if data is None:
        return None
    raise InputError(
        f"{path} does not belong to {index.name} beside it: it is of another run, or was changed. Copy "
        f"all files of one run together, or run again; without {name} what needs it is left out."
    )


def digest_of_file(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def staged_path(path: Path, digest: str) -> Path:
    """Where a file with this SHA-256 lies until it takes its name."""
    return path.with_name(f".{path.name}.{digest[:16]}.new")


def _forget(index: Path, staged: Mapping[str, Path], digests: Mapping[str, str]) -> None:
    """Remove staged files, but none that the index counts on: it may name the same content."""
    needed = digests_of(index) or {}
    for name, path in staged.items():
        if needed.get(name) != digests[name]:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
