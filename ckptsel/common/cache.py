"""A cache folder: bytes by kind and key, each entry whole and checked, or not there.

An entry is one file: its bytes, and behind them a seal of 32 bytes, the SHA-256 of kind, key and the
SHA-256 of each chunk. A file that was damaged, cut, swapped or renamed does not fit its seal: it is
thrown away, counted, and its content made anew. Nothing here ends a run: what cannot be kept is not.
"""

import contextlib
import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ckptsel.common import cache_files
from ckptsel.common.files import atomic_path
from ckptsel.common.places import is_url
from ckptsel.common.quantities import bytes_of, size_text
from ckptsel.errors import OutputError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 8 * 2**20
"""Bytes that one thread digests at a time."""

CHUNKS_AT_ONCE = 16
"""Read before they are digested: what checking a large entry holds in memory."""

DAMAGED = "damaged in the cache"
"""In the note of a run that met entries which were."""

SEAL = hashlib.sha256().digest_size


class CacheFolder:
    """Entries by kind and key below `folder`; None keeps nothing.

    max_bytes: what all entries may take together; those used longest ago go first, none that this
    process has used and not let go. verify: nothing is recalled.
    """

    def __init__(
        self, folder: Path | None, max_bytes: int | None = None, verify: bool = False
    ) -> None:
        self.folder, self.max_bytes, self.verify = folder, max_bytes, verify
        self.n_discarded = 0
        self.unkept: str | None = None
        """Why nothing more is kept: a disk that is full once would be asked again at every entry."""
        self._used: set[Path] = set()
        self._total: int | None = None

    @classmethod
    def open(cls, keep: bool, folder: str | None, size: str | None, verify: bool = False) -> "Self":
        """As options ask for it: `folder` None is that of the user, `size` a text."""
        if not keep:
            return cls(None)
        if folder and is_url(folder):
            raise UsageError(
                f"--cache-dir {folder} is an address: a cache is a folder that is mounted."
            )
        found = Path(folder) if folder else cache_files.default_cache_folder()
        cache = cls(found, None if size is None else bytes_of(size), verify)
        if found is None:
            cache.unkept = "this user has no home folder. Name a folder with --cache-dir."
        return cache

    @property
    def keeps(self) -> bool:
        """Whether there is a folder, and nothing that was to be kept there could not be."""
        return self.folder is not None and self.unkept is None

    def notes(self) -> list[str]:
        """What a user should know of this run's cache, a sentence each."""
        notes = []
        if self.n_discarded:
            what = "entry was" if self.n_discarded == 1 else "entries were"
            notes.append(f"{self.n_discarded} {what} {DAMAGED} at {self.folder}, and made anew")
        if self.unkept is not None:
            notes.append(f"what was computed is not kept for the next run: {self.unkept}")
        return notes

    def read(self, kind: str, key: str) -> bytearray | None:
        """The bytes of an entry; None where there is none that can be trusted."""
        found: bytearray | None = self._checked(kind, key, _read_whole)
        return found

    def recall(self, kind: str, key: str) -> bytearray | None:
        """As `read`, of what was learnt of files that count as the same since they look the same
        (`ckptsel.common.states`); None where they are to be read again."""
        return None if self.verify else self.read(kind, key)

    def map(self, kind: str, key: str) -> mmap.mmap | None:
        """The same mapped, for large entries: a copy on write, with the seal behind the bytes.

        It outlives that the file is removed, by whomever, but not that it is cut in place, which
        nothing here does.
        """
        found: mmap.mmap | None = self._checked(kind, key, _map_checked)
        return found

    def write(self, kind: str, key: str, *data: Any) -> None:
        """Keep an entry, if that can be done. data: bytes, or arrays, one after the other."""
        if not self.keeps:
            return
        try:
            with self.writing(kind, key) as file:
                for part in data:
                    file.write(part)
        except OutputError as error:
            self.unkept = str(error)

    @contextlib.contextmanager
    def writing(self, kind: str, key: str) -> "Iterator[Sealed]":
        """A file to write an entry to, which is there when the block ends without an error.

        Raises OutputError where it cannot be kept.
        """
        path = self._path(kind, key)
        if path is None:
            raise OutputError("there is no cache folder to keep it in.")
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            sealed = Sealed(file, kind, key)
            yield sealed
            sealed.end()
        self._used.add(path)
        self._make_room(sealed.n_bytes + SEAL)

    def check_room(self, n_bytes: int) -> None:
        """Raises OutputError where so much more does not fit on the disk of the folder."""
        if self.folder is not None:
            free = shutil.disk_usage(self.folder).free
            if free < n_bytes:
                raise OutputError(f"the disk of {self.folder} has {size_text(free)} left.")

    def remove(self, kind: str, key: str) -> None:
        path = self._path(kind, key)
        if path is not None:
            cache_files.remove(path)

    def discard(self, kind: str, key: str) -> None:
        """Throw an entry away that is not what it should be, and count it."""
        self.n_discarded += 1
        self.remove(kind, key)

    def can_write(self) -> bool:
        """Whether entries can be kept; where not, `notes` says why."""
        if not self.keeps:
            return False
        self.write("probe", "", b"")
        self.remove("probe", "")
        return self.keeps

    def let_go(self, kind: str) -> None:
        """What was used of a kind is needed no longer: it may go where room is short."""
        self._used = {path for path in self._used if path.parent.name != kind}

    def _path(self, kind: str, key: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / cache_files.LAYOUT / kind / f"{key[:40]}.entry"

    def _checked(self, kind: str, key: str, check: Callable[[IO[bytes], str, str], Any]) -> Any:
        """What `check` gives for an entry; None, and the entry gone, where it does not fit."""
        path = self._path(kind, key)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                found = check(file, kind, key)
        except FileNotFoundError:
            return None
        except (OSError, MemoryError):
            found = None
        if found is None:
            self.discard(kind, key)
            return None
        self._used.add(path)
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def _make_room(self, n_new: int) -> None:
        if self.max_bytes is None or self.folder is None:
            return
        if self._total is None:
            self._total = _total(self.folder)
        else:
            self._total += n_new
        if self._total > self.max_bytes:
            cache_files.prune(self.folder, self.max_bytes, keep=self._used)
            self._total = _total(self.folder)


class Sealed:
    """A file that is written from front to back, and then sealed."""

    def __init__(self, file: IO[bytes], kind: str, key: str) -> None:
        self._file, self._digests = file, [_name_digest(kind, key)]
        self._chunk, self._room = hashlib.sha256(), CHUNK
        self.n_bytes = 0

    def write(self, data: Any) -> None:
        """data: bytes, or an array that lies in one piece."""
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        self._file.write(view)
        self.n_bytes += len(view)
        while len(view):
            part, view = view[: self._room], view[self._room :]
            self._chunk.update(part)
            self._room -= len(part)
            if self._room == 0:
                self._end_chunk()

    def end(self) -> None:
        if self._room < CHUNK:
            self._end_chunk()
        self._file.write(_seal(self._digests))

    def _end_chunk(self) -> None:
        self._digests.append(self._chunk.digest())
        self._chunk, self._room = hashlib.sha256(), CHUNK


def _read_whole(file: IO[bytes], kind: str, key: str) -> bytearray | None:
    data = bytearray(max(0, os.fstat(file.fileno()).st_size - SEAL))
    file.readinto(data)  # type: ignore[attr-defined]
    view = memoryview(data)
    chunks = [view[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digests = [_name_digest(kind, key), *_digests(chunks)]
    return data if file.read() == _seal(digests) else None


def _map_checked(file: IO[bytes], kind: str, key: str) -> mmap.mmap | None:
    """Checked by reading, without holding the whole in memory."""
    left = os.fstat(file.fileno()).st_size - SEAL
    digests = [_name_digest(kind, key)]
    while left > 0:
        chunks: list[bytes] = []
        while left > 0 and len(chunks) < CHUNKS_AT_ONCE:
            chunks.append(file.read(min(CHUNK, left)))
            left -= CHUNK
        digests += _digests(chunks)
    if file.read() != _seal(digests):
        return None
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _digests(chunks: list[Any]) -> list[bytes]:
    if len(chunks) <= 1:
        return [_digest(chunk) for chunk in chunks]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest, chunks))


def _digest(data: Any) -> bytes:
    return hashlib.sha256(data).digest()


def _name_digest(kind: str, key: str) -> bytes:
    return _digest(f"{cache_files.LAYOUT}/{kind}/{key}".encode())


def _seal(digests: Iterable[bytes]) -> bytes:
    return _digest(b"".join(digests))


def _total(folder: Path) -> int:
    return sum(entry.n_bytes for entry in cache_files.list_entries(folder))
