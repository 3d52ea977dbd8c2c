"""Results that go to object storage: written into a folder here, then sent.

They are sent in the order in which they are written here (`ckptsel.results.together`): new files under
names that carry their digest, then the index, from which moment they count, then each takes its name.
So a reader finds the old results or the new ones, whenever the connection breaks.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ckptsel.common.places import is_url, place_text
from ckptsel.common.remote import open_remote, retried
from ckptsel.errors import OutputError
from ckptsel.results.files import BESIDE, PAGE_NAME, RANKING_NAME, check_writable
from ckptsel.results.together import digests_of, staged_path


class Outbox:
    """Where results are written. folder: here; None where none are asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def send(self) -> None:
        """All that lies in the folder, where it is to lie elsewhere. Raises OutputError."""


@contextlib.contextmanager
def open_outbox(out: Path | None) -> Iterator[Outbox]:
    """Of a folder, or of an address, whose folder here lasts as long as the block.

    Raises OutputError where it cannot be written: now rather than after the work is done.
    """
    if out is None or not is_url(out):
        if out is not None:
            check_writable(out)
        yield Outbox(out)
        return
    with tempfile.TemporaryDirectory(prefix="ckptsel-") as temporary:
        outbox = _RemoteOutbox(Path(temporary), place_text(out))
        outbox.check_writable()
        yield outbox


class _RemoteOutbox(Outbox):
    folder: Path

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._url = url
        self._fs, self._root = open_remote(url)
        self._sent: dict[str, str] = {}

    def check_writable(self) -> None:
        probe = self.folder / ".writable"
        probe.write_bytes(b"ckptsel")
        self._put(probe, probe.name)
        self._remove(probe.name)
        probe.unlink()

    def send(self) -> None:
        index = self.folder / RANKING_NAME
        self._send_together(index, digests_of(index) or {})
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not path.name.startswith(".") and name not in self._sent:
                self._put(path, name)
                self._sent[name] = ""

    def _send_together(self, index: Path, digests: dict[str, str]) -> None:
        digest = hashlib.sha256(index.read_bytes()).hexdigest()
        if self._sent.get(index.name) == digest:
            return
        staged = {name: staged_path(Path(name), digests[name]).name for name in digests}
        for name in digests:
            self._put(self.folder / name, staged[name])
        self._put(index, index.name)
        for name in digests:
            self._rename(staged[name], name)
        for name in (*BESIDE, PAGE_NAME):
            if name not in digests:
                self._remove(name)
        self._sent = {index.name: digest, **digests}

    def _put(self, path: Path, name: str) -> None:
        def put() -> None:
            self._fs.makedirs(self._parent(name), exist_ok=True)
            self._fs.put_file(str(path), self._at(name))

        self._tried(put, name)

    def _rename(self, old: str, new: str) -> None:
        def rename() -> None:
            if self._fs.exists(self._at(old)):  # not where a first try broke after it was done
                self._fs.copy(self._at(old), self._at(new))
                self._fs.rm_file(self._at(old))

        self._tried(rename, new)

    def _remove(self, name: str) -> None:
        def remove() -> None:
            if self._fs.exists(self._at(name)):
                self._fs.rm_file(self._at(name))

        self._tried(remove, name)

    def _tried(self, work: Any, name: str) -> None:
        retried(work, f"{self._url}/{name} cannot be written", OutputError)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _parent(self, name: str) -> str:
        return self._at(name).rpartition("/")[0]
