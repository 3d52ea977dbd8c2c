"""Untrusted files are read in other processes, so that none can stop, hang or starve this one.

A child that crashes, takes too long or asks for too much memory costs the file that it was reading.
What comes back is JSON and bytes: nothing of it is unpickled.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.walk import size_of, total_size
from ckptsel.common.quantities import bytes_of
from ckptsel.errors import CheckpointError

BYTES_A_CHILD = 256 << 20
"""Of files, for which starting one more process pays."""

MAX_CHILDREN = 4

BYTES_A_SECOND = 10 << 20
"""What the slowest disk gives, in the time that a file may take."""

PATIENCE = 5 if os.name == "posix" else 1
"""How many times that time may pass by the clock: where other programs take the processor, or the disk
is slow, the file is not to blame. Windows limits no computing, so the clock alone counts there."""

START = (
    "import sys; sys.path[:] = {path!r}; from ckptsel.checkpoints.child import main; main({memory})"
)


@dataclass(frozen=True)
class Limits:
    """What reading one checkpoint may take.

    memory: bytes beyond those of the file, for a large one; a small one gets less. seconds: of
    computing, besides one for every 10 MiB of it. size: bytes of the file (of a folder its files
    together).
    """

    memory: int = 4 << 30
    seconds: float = 60
    size: int = 256 << 30


DEFAULT = Limits()


class ReadOptions(Protocol):
    """Options that say what reading may take, of whichever command."""

    @property
    def read_memory(self) -> str: ...

    @property
    def read_timeout(self) -> float: ...

    @property
    def max_file_size(self) -> str: ...


def limits_of(options: ReadOptions) -> Limits:
    return Limits(
        bytes_of(options.read_memory),
        options.read_timeout,
        bytes_of(options.max_file_size),
    )


Loaded = dict[str, tuple[str, tuple[int, ...], NDArray[np.uint8]]]
"""(type, shape, bytes) by name."""


def inspect_all(
    paths: Sequence[Path], root: Path, weights: str, limits: Limits = DEFAULT
) -> Iterator[dict[str, Any]]:
    """What each file says, in their order: `found` (fields of a `Checkpoint`), or a `problem`."""
    n_children = max(1, min(MAX_CHILDREN, os.cpu_count() or 1, total_size(paths) // BYTES_A_CHILD))

    def inspect(path: Path) -> dict[str, Any]:
        try:
            with _child(limits) as child:
                return child.ask(_request("inspect", path, root, weights, limits), path, limits)
        except CheckpointError as error:
            return {"problem": str(error)}

    with ThreadPoolExecutor(n_children) as threads:
        try:
            yield from threads.map(inspect, paths)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for child in list(_busy):
                child.kill()  # its thread would wait for the answer
            raise


def load(path: Path, root: Path, weights: str, limits: Limits = DEFAULT) -> Loaded:
    """The tensors of a checkpoint. Raises CheckpointError."""
    with _child(limits) as child:
        return child.load(_request("load", path, root, weights, limits), path, limits)


def _request(what: str, path: Path, root: Path, weights: str, limits: Limits) -> dict[str, Any]:
    """Paths as bytes, since not every file's name is text; whole, since a child that was started
    elsewhere is still there."""
    seconds = limits.seconds + size_of(path) / BYTES_A_SECOND
    places = {"path": path, "root": root}
    places_sent = {name: list(os.fsencode(where.absolute())) for name, where in places.items()}
    return {"do": what, "weights": weights, "seconds": seconds, **places_sent}


class _Child:
    """One guarded process. Broken for good once it failed to answer."""

    def __init__(self, limits: Limits) -> None:
        self.owner, self.limits = os.getpid(), limits
        code = START.format(path=[str(Path(p).absolute()) for p in sys.path], memory=limits.memory)
        # One thread: more would take memory, and the digest is what takes time.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.is_broken = False

    def ask(self, request: Mapping[str, Any], path: Path, limits: Limits) -> dict[str, Any]:
        """The reply to a request about a file. Raises CheckpointError where there is none."""
        with self._timed(request, path, limits) as replies:
            return self._first(request, replies, limits)

    def load(self, request: Mapping[str, Any], path: Path, limits: Limits) -> Loaded:
        """The tensors that a request asks for. Raises as `ask` does, and where it has a problem."""
        with self._timed(request, path, limits) as replies:
            reply = self._first(request, replies, limits)
            if "tensors" not in reply:
                raise CheckpointError(reply["problem"])
            loaded: Loaded = {}
            for name, dtype, shape, n_bytes in reply["tensors"]:
                data = np.empty(n_bytes, np.uint8)
                if _read_into(replies, data.data) < n_bytes:
                    raise EOFError
                loaded[name] = (dtype, tuple(shape), data)
            return loaded

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _first(
        self, request: Mapping[str, Any], replies: IO[bytes], limits: Limits
    ) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = replies.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        reply: dict[str, Any] = json.loads(line)
        if reply.pop("memory", False):
            self.is_broken = True  # what is left of it may be in pieces
            reply["problem"] = (
                "reading it needs more memory than a file of its size may take, besides the file itself "
                f"(at most {limits.memory / 2**30:.3g} GiB): it is damaged or made to exhaust memory. "
                "Where it is right, raise --read-memory."
            )
        return reply

    @contextlib.contextmanager
    def _timed(self, request: Mapping[str, Any], path: Path, limits: Limits) -> Iterator[IO[bytes]]:
        """The stream of replies; a child that takes too long is killed, and what ended it is said."""
        size = size_of(path)
        if size > limits.size:
            raise CheckpointError(
                f"it has {size / 2**30:.3g} GiB, more than the limit of {limits.size / 2**30:.3g} GiB. "
                "Where it is right, raise --max-file-size."
            )
        most, late = request["seconds"], threading.Event()
        timer = threading.Timer(PATIENCE * most, self._stop, (late,))
        timer.start()
        try:
            assert self._process.stdout is not None
            yield self._process.stdout
        except (OSError, EOFError, ValueError, KeyError) as error:
            self.is_broken = True
            raise CheckpointError(self._ending(late.is_set(), most)) from error
        except BaseException:
            self.is_broken = True  # the rest of a reply may still be on its way
            raise
        finally:
            timer.cancel()

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _ending(self, is_late: bool, most: float) -> str:
        if is_late:
            return _too_long(f"{PATIENCE * most:.0f} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its stream ends a little before it does
        self._process.kill()
        code = self._process.wait()
        if os.name == "posix" and code == -signal.SIGXCPU:
            return _too_long(f"{most:.0f} s of computing")
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        return (
            f"reading it ended the reader ({how}): it is damaged, made to break programs, or was "
            "changed while it was read."
        )


def _too_long(time: str) -> str:
    return (
        f"reading it took more than {time} and was stopped: it is damaged or made to take for ever. "
        "Where the disk is slow, raise --read-timeout."
    )


def _read_into(stream: IO[bytes], buffer: memoryview) -> int:
    """Bytes that came until the buffer was full or the stream ended."""
    n_read = 0
    while n_read < len(buffer):
        n_more = stream.readinto(buffer[n_read:])  # type: ignore[attr-defined]
        if not n_more:
            break
        n_read += n_more
    return n_read


_idle: SimpleQueue[_Child] = SimpleQueue()
"""Children that wait for a file; they are kept, since starting one takes a quarter of a second."""

_busy: set[_Child] = set()


@contextlib.contextmanager
def _child(limits: Limits) -> Iterator[_Child]:
    """A child of this process with these limits, taken from those that wait, or started."""
    child = _waiting(lambda child: child.limits == limits) or _Child(limits)
    _busy.add(child)
    try:
        yield child
    finally:
        _busy.discard(child)
        if child.is_broken:
            child.close()
        else:
            _idle.put(child)


def _waiting(fits: Callable[[_Child], bool]) -> _Child | None:
    while not _idle.empty():
        child = _idle.get()
        if child.owner != os.getpid():
            continue  # the parent's: this process was forked
        if fits(child):
            return child
        child.close()
    return None


def close() -> None:
    """End the children that wait."""
    _waiting(lambda child: False)


atexit.register(close)
