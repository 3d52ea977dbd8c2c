"""Places in object storage (`s3://bucket/run`, `gs://`, `hf://`, any of fsspec's): a mirror here.

What lies there is fetched into the cache folder, below `remote/<protocol>/`, under the path that it has
there; all else works on that copy, and says the address. A file is fetched again when its size, or the
tag that the storage gives it, has changed. Only users name addresses: one that a file names is never
asked (`kept_path`).
"""

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ckptsel.common.cache_files import REMOTE, default_cache_folder, remove
from ckptsel.common.files import atomic_path, read_json, write_json
from ckptsel.common.places import is_url, mirrors, place_text, split_url
from ckptsel.common.progress import Progress
from ckptsel.common.revisions import Revisions, revisions_in
from ckptsel.errors import CkptselError, InputError, UsageError, reason_of

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs"}
"""What fsspec needs for a protocol."""

TAGS = (
    *("ETag", "etag", "md5Hash", "blob_id", "lfs", "LastModified", "last_modified", "mtime"),
    *("updated", "created"),
)
"""What storages tell of a file that changes with it."""

TIMES = ("LastModified", "last_modified", "mtime", "created")

TAGS_NAME = ".tags.json"
"""In the folder of a bucket: the tag, size and local time of writing of each file that was fetched."""

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before a connection that broke is tried again."""

CHUNK = 8 * 2**20
AT_ONCE = 8
"""Bytes that are read at a time, and files that are fetched side by side."""

FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, CkptselError)
"""Errors that a second try does not mend."""

T = TypeVar("T")


def local_path(
    place: str | Path,
    cache_dir: str | None = None,
    quiet: bool = True,
    skip: re.Pattern[str] | None = None,
) -> Path:
    """Where a place lies here; an address is fetched first, and what is gone there goes here.

    skip: files whose names match are not needed.
    Raises UsageError where fsspec, or what it needs for the protocol, is not installed, and InputError
    where nothing is there or the connection breaks again and again.
    """
    if not is_url(place):
        return Path(place)
    url, folder = place_text(place), _folder(cache_dir)
    mirror = _Mirror(url, folder)
    several = revisions_in(url)
    if several is None:
        mirror.fetch(quiet, skip)
    else:
        _fetch_revisions(several, mirror.path, folder, quiet, skip)
    return mirror.path


def _fetch_revisions(
    several: Revisions, root: Path, folder: Path, quiet: bool, skip: re.Pattern[str] | None
) -> None:
    """Each revision into a folder of its own below `root`; what is of no other goes."""
    fs, _ = open_remote(f"hf://{several.repo}")
    there = _revisions_of(fs, several.repo) if several.has_patterns else []
    names = several.among(there)
    for name in names:
        _Mirror(several.address(name), folder, root / name).fetch(quiet, skip)
    for entry in root.iterdir():
        if entry.name not in names:
            remove(entry)


def _revisions_of(fs: Any, repo: str) -> list[str]:
    """Names of all branches and tags. Raises InputError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    def ask() -> list[str]:
        try:
            refs = HfApi(endpoint=fs.endpoint, token=fs.token).list_repo_refs(repo)
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(repo) from error
        return [ref.name for ref in (*refs.branches, *refs.tags)]

    return retried(ask, f"the revisions of hf://{repo} cannot be read", InputError)


def kept_path(place: str | Path, cache_dir: str | None = None) -> Path:
    """Where a place lies here, of a place that a file names: an address must have been fetched before.

    Raises InputError where it was not.
    """
    if not is_url(place):
        return Path(place)
    url = place_text(place)
    path = _Mirror(url, _folder(cache_dir)).path
    if not path.exists():
        raise InputError(
            f"{url} is not in the cache of this machine, and is not fetched since a file names it: "
            f"fetch it with ckptsel inspect {url}, if it is yours."
        )
    return path


def retried(work: Callable[[], T], what: str, error_type: type[CkptselError]) -> T:
    """What `work` gives, tried again with growing pauses where a connection breaks.

    what: the sentence's beginning. Raises `error_type` where it breaks every time, or cannot be mended.
    """
    for pause in (*PAUSES_S, None):
        try:
            return work()
        except CkptselError:
            raise
        except Exception as error:  # of a client that may raise anything
            if isinstance(error, FINAL) or pause is None:
                tries = "" if isinstance(error, FINAL) else f" ({len(PAUSES_S) + 1} tries)"
                raise error_type(f"{what}: {_reason(error)}{tries}.") from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def open_remote(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the address as it calls it).

    Raises UsageError where fsspec, or what it needs for the protocol, is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UsageError(
            f"{url} needs the package fsspec: pip install 'ckptsel[remote]'."
        ) from error
    protocol, _ = split_url(url)
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(protocol)
        advice = f"{package}: pip install {package}." if package else f"more: {error}."
        raise UsageError(f"{url} needs the package {advice}") from error
    except ValueError as error:
        raise UsageError(f"{url}: {protocol} is no protocol of fsspec ({error}).") from error
    return found


@dataclass(frozen=True)
class _Remote:
    """A file there. name: below the place, '' for the place itself."""

    name: str
    path: str
    size: int | None
    tag: str
    written_ns: int | None


class _Mirror:
    """The copy of one place."""

    def __init__(self, url: str, folder: Path, path: Path | None = None) -> None:
        """path: of the copy, where it is not the address's own."""
        protocol, rest = split_url(url)
        parts = _checked(rest, url)
        self.url, self.folder = url, folder
        self.path = path or folder.joinpath(protocol, *parts)
        self._tags_path = folder.joinpath(protocol, parts[0], TAGS_NAME)
        self._bucket = folder.joinpath(protocol, parts[0])

    def fetch(self, quiet: bool, skip: re.Pattern[str] | None) -> None:
        mirrors.add(self.folder)
        fs, root = open_remote(self.url)
        cannot = f"{self.url} cannot be read"
        files = retried(lambda: _listed(fs, root), cannot, InputError)
        files = [each for each in files if skip is None or not skip.match(Path(each.path).name)]
        if not files:
            raise InputError(f"nothing at {self.url}: no such file or folder.")
        tags = self._read_tags()
        missing = [each for each in files if not self._is_kept(each, tags)]
        self._remove_others(files)
        fetched: dict[str, Any] = {}
        try:
            self._fetch_all(fs, missing, fetched, quiet)
        finally:
            write_json(self._tags_path, self._read_tags() | fetched)

    def _fetch_all(
        self, fs: Any, missing: list[_Remote], tags: dict[str, Any], quiet: bool
    ) -> None:
        """Processes that share the cache folder share the work: each takes the files in an order of its
        own, and leaves out those that another has put there since."""
        random.Random().shuffle(missing)
        before = {each: _state_of(self._place_of(each)) for each in missing}

        def fetch(each: _Remote) -> _Remote:
            place = self._place_of(each)
            if not _came_meanwhile(each, place, before[each]):
                what = f"{self._url_of(each)} cannot be read"
                retried(lambda: _copy(fs, each, place), what, InputError)
            return each

        with Progress("fetch", len(missing), quiet=quiet) as progress:
            pool = ThreadPoolExecutor(AT_ONCE)
            try:
                for each in pool.map(fetch, missing):
                    place = self._place_of(each)
                    tags[self._key(each)] = [each.tag, each.size, place.stat().st_mtime_ns]
                    progress.advance(self._url_of(each))
            finally:
                pool.shutdown(cancel_futures=True)

    def _is_kept(self, each: _Remote, tags: Mapping[str, Any]) -> bool:
        here = _state_of(self._place_of(each))
        if here is None:
            return False
        _, n_bytes, written_ns = here
        known = [each.tag, each.size, written_ns]
        return bool(each.tag) and tags.get(self._key(each)) == known and n_bytes == each.size

    def _remove_others(self, files: list[_Remote]) -> None:
        """What is gone there, or is not needed."""
        there = {self._place_of(each) for each in files}
        for path in _files_below(self.path):
            is_own = path == self._tags_path or _is_temporary(path.name)
            if path not in there and not is_own:
                path.unlink(missing_ok=True)

    def _place_of(self, each: _Remote) -> Path:
        return self.path.joinpath(*_checked(each.name, self.url)) if each.name else self.path

    def _url_of(self, each: _Remote) -> str:
        return f"{self.url}/{each.name}" if each.name else self.url

    def _key(self, each: _Remote) -> str:
        return self._place_of(each).relative_to(self._bucket).as_posix()

    def _read_tags(self) -> dict[str, Any]:
        """None known where they cannot be read: all is fetched anew then."""
        with contextlib.suppress(InputError):
            found = read_json(self._tags_path)
            return found if isinstance(found, dict) else {}
        return {}


def _listed(fs: Any, root: str) -> list[_Remote]:
    """All files at a place."""
    fs.invalidate_cache()
    found = fs.find(root, detail=True)
    files = []
    for path, about in sorted(found.items()):
        if about.get("type") == "file" and not path.endswith("/"):
            known = [(key, str(about[key])) for key in TAGS if about.get(key) is not None]
            name = path[len(root) :].strip("/") if path.startswith(root) else path
            tag = repr(known) if known else ""
            files.append(_Remote(name, path, about.get("size"), tag, _written_ns(about)))
    return files


def _written_ns(about: Mapping[str, Any]) -> int | None:
    """When a file was written, nanoseconds since 1970; None where that is not told as a time."""
    for key in TIMES:
        if isinstance(about.get(key), datetime):
            return round(about[key].timestamp() * 1e9)
        if isinstance(about.get(key), int | float):
            return round(about[key] * 1e9)
    return None


def _state_of(place: Path) -> tuple[int, int, int] | None:
    """Which file lies there, of how many bytes, and when it was written; None where there is none."""
    try:
        about = place.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _came_meanwhile(each: _Remote, place: Path, before: tuple[int, int, int] | None) -> bool:
    """Whether another process has fetched a file, known by its size and its time in the storage."""
    now = _state_of(place)
    if now is None or now == before or each.written_ns is None:
        return False
    return now[1:] == (each.size, each.written_ns)


def _copy(fs: Any, each: _Remote, place: Path) -> None:
    with atomic_path(place) as temporary, temporary.open("wb") as file:
        for chunk in _chunks(fs, each):
            file.write(chunk)
    if each.written_ns is not None:
        os.utime(place, ns=(each.written_ns, each.written_ns))


class _Broken(Exception):
    """A connection broke: kept apart from what goes wrong with the disk here."""


def _chunks(fs: Any, each: _Remote) -> Iterator[bytes]:
    n_bytes = 0
    try:
        with fs.open(each.path, "rb", block_size=CHUNK) as source:
            while chunk := source.read(CHUNK):
                n_bytes += len(chunk)
                yield chunk
    except GeneratorExit:
        raise
    except FINAL as error:
        raise InputError(f"{each.path} cannot be read: {_reason(error)}.") from error
    except Exception as error:
        raise _Broken(_reason(error)) from error
    if each.size is not None and n_bytes != each.size:
        raise _Broken(f"it ended after {n_bytes:,} of {each.size:,} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return f"access is denied ({reason_of(error).removeprefix('unexpected ')})"
    return reason_of(error).removeprefix("unexpected ").rstrip(".")


def _checked(rest: str, url: str) -> tuple[str, ...]:
    """The parts of a path; raises InputError for one that would lead elsewhere here."""
    parts = PurePosixPath(rest).parts
    if not parts or any(part in ("..", "/", ".") or "\0" in part or "\\" in part for part in parts):
        raise InputError(f"{url} has a file that no path here can have: {rest!r}.")
    return parts


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [Path(parent) / name for parent, _, names in os.walk(path) for name in names]


def _is_temporary(name: str) -> bool:
    """Of a process that fetches the same."""
    return name.startswith(".") and name.endswith(".tmp")


def _folder(cache_dir: str | None) -> Path:
    folder = Path(cache_dir) if cache_dir else default_cache_folder()
    if folder is None:
        raise InputError(
            "this user has no home folder to fetch files to. Name a folder with --cache-dir."
        )
    return folder.absolute() / REMOTE
