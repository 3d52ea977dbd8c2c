"""What lies in a cache folder: its entries, how much room they take, and how they are removed.

Below the folder of this layout each kind has a folder, and each entry is one file in it. A file's time
of writing is that of its last use. Any process may remove any entry at any time: whoever reads one has
read it whole before it is used, or holds it open.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LAYOUT = "v2"
"""Raised when entries are laid out in another way; what lies beside it is not looked at."""

REMOTE = "remote"
"""Where files of object storage are mirrored (`ckptsel.common.remote`): a folder for each bucket."""

LEFTOVER_AGE_S = 24 * 3600.0
"""A temporary file that nobody has written to for so long belongs to a process that was killed."""

OLD_KIND = "of older versions"
OLD_NAMES = {
    "features": r"[0-9a-f]{40}\.npy",
    "scores": r"[0-9a-f]{40}\.npz",
    "transfers": r"[0-9a-f]{40}\.pt",
    "training": r"[0-9a-f]{40}\.pt",
    "duplicates": r"[0-9a-f]{40}\.pt",
    "pixels": r"[0-9a-f]{32}|\.decoding-\w+",
}
"""Names of entries in the first layout, by their folder; those of pixels are folders."""


FOLDER_VARIABLE = "CKPTSEL_CACHE"


def default_cache_folder() -> Path | None:
    """$CKPTSEL_CACHE, else the user's cache folder ($XDG_CACHE_HOME, ~/.cache); None for a user
    without a home."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "ckptsel"


@dataclass(frozen=True)
class Entry:
    """One entry. n_bytes: its size. used: when it was last read or written, seconds since 1970."""

    path: Path
    kind: str
    n_bytes: int
    used: float


def list_entries(folder: Path) -> list[Entry]:
    """All whole entries, in no order."""
    found = (_entry(file, file.parent.name) for file in _files(folder) if not _is_temporary(file))
    return [entry for entry in found if entry is not None]


def list_leftovers(folder: Path, older_than_s: float = LEFTOVER_AGE_S) -> list[Entry]:
    """Temporary files that were written to so long ago that their process must have been killed."""
    found = (_entry(file, "temporary") for file in _files(folder) if _is_temporary(file))
    limit = time.time() - older_than_s
    return [entry for entry in found if entry is not None and entry.used <= limit]


def list_old(folder: Path) -> list[Entry]:
    """Entries of the first layout, which nothing reads any more."""
    found = []
    for kind, names in OLD_NAMES.items():
        for path in _listed(folder / kind):
            if re.fullmatch(names, path.name):
                found.append(_entry(path, OLD_KIND))
    return [entry for entry in found if entry is not None]


def list_mirrors(folder: Path) -> list[Entry]:
    """Mirrors of object storage, one a bucket: no entries, since a run needs them until its end."""
    buckets = [bucket for protocol in _listed(folder / REMOTE) for bucket in _listed(protocol)]
    return [entry for path in buckets if (entry := _entry(path, REMOTE)) is not None]


def prune(
    folder: Path,
    max_bytes: int | None = None,
    older_than_s: float | None = None,
    keep: Collection[Path] = (),
) -> list[Entry]:
    """Remove leftovers, what was not used for so long, and then what was used longest ago until the
    rest takes at most `max_bytes`. Returns what is gone. Mirrors go by their age alone.

    keep: entries that stay in any case.
    """
    gone = _remove(list_leftovers(folder))
    left = sorted(list_entries(folder), key=lambda entry: entry.used)
    total = sum(entry.n_bytes for entry in left)
    limit = -1.0 if older_than_s is None else time.time() - older_than_s
    gone += _remove([entry for entry in list_mirrors(folder) if entry.used < limit])
    for entry in left:
        too_much = max_bytes is not None and total > max_bytes
        if (entry.used < limit or too_much) and entry.path not in keep and _remove([entry]):
            gone.append(entry)
            total -= entry.n_bytes
    return gone


def clear(folder: Path) -> list[Entry]:
    """Remove every entry, of older versions too, and mirrors, and nothing else. Returns what is gone."""
    mirrors = list_mirrors(folder)
    return _remove([*list_entries(folder), *list_leftovers(folder, 0), *list_old(folder), *mirrors])


def _remove(entries: Sequence[Entry]) -> list[Entry]:
    """Those that could be removed; one that another process removed first is gone as well."""
    return [entry for entry in entries if remove(entry.path)]


def remove(path: Path) -> bool:
    """Remove a file, or a folder that lies in its place; whether it is gone."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True
    return False


def _files(folder: Path) -> Iterator[Path]:
    for kind in _listed(folder / LAYOUT):
        yield from _listed(kind)


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it is none, or may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".")


def _entry(path: Path, kind: str) -> Entry | None:
    """None where it has gone meanwhile."""
    try:
        about = path.lstat()
        n_bytes = _size_below(path) if path.is_dir() else about.st_size
    except OSError:
        return None
    return Entry(path, kind, n_bytes, about.st_mtime)


def _size_below(folder: Path) -> int:
    return sum(
        os.lstat(Path(parent) / name).st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )
