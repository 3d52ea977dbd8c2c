"""What is kept between runs: features, score results, training runs; each entry whole or not there.

An entry's name is the digest of everything that determines its content, so nothing is ever stale and
two runs may share a cache. Deleting the folder is always safe. `ckptsel.common.cache` has the file.
"""

import contextlib
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from ckptsel.common.cache import SEAL, CacheFolder
from ckptsel.features.packing import pack, unpack
from ckptsel.results.scores import ScoreResult

SHAPE = np.dtype("<i8")
"""Of each of the two numbers that features begin with."""


class Cache(CacheFolder):
    """Features, score results and training runs by key; `folder` None keeps nothing."""

    def get_features(self, key: str) -> NDArray[np.float32] | None:
        """Mapped: they take no memory of their own."""
        entry = self.map("features", key)
        return None if entry is None else _array_of(entry)

    def put_features(self, key: str, features: NDArray[np.float32]) -> None:
        """Of shape (N, D); as they are in memory: no copy is made."""
        shape = np.array(features.shape, SHAPE)
        self.write("features", key, shape, np.ascontiguousarray(features, np.float32))

    @contextlib.contextmanager
    def writing_features(self, key: str, n: int) -> Iterator[Callable[[NDArray[np.float32]], None]]:
        """What writes the features of n samples, a batch (m, D) at a time: they are there when the block
        ends without an error. Raises OutputError where they cannot be kept."""
        with self.writing("features", key) as file:

            def write(part: NDArray[np.float32]) -> None:
                if file.n_bytes == 0:
                    file.write(np.array([n, part.shape[1]], SHAPE))
                file.write(np.ascontiguousarray(part, np.float32))

            yield write

    def get_score(self, key: str) -> ScoreResult | None:
        result: ScoreResult | None = self._get("scores", key, lambda fields: ScoreResult(**fields))
        return result

    def put_score(self, key: str, result: ScoreResult) -> None:
        self._put("scores", key, dict(vars(result)))

    def get_record(self, kind: str, key: str) -> dict[str, Any] | None:
        """Tensors and plain values, the tensors on the CPU. kind: `transfers`, `training`,
        `duplicates`, `unreadable`, `scales` or `matches`."""
        record: dict[str, Any] | None = self._get(kind, key)
        return record

    def put_record(self, kind: str, key: str, record: dict[str, Any]) -> None:
        self._put(kind, key, record)

    def drop_record(self, kind: str, key: str) -> None:
        self.remove(kind, key)

    def _get(self, kind: str, key: str, make: Callable[[Any], Any] = lambda value: value) -> Any:
        data = self.read(kind, key)
        try:
            return None if data is None else make(unpack(data))
        except (SafetensorError, LookupError, TypeError, ValueError):
            # Whole, but laid out by another version.
            self.discard(kind, key)
            return None

    def _put(self, kind: str, key: str, value: Any) -> None:
        if not self.keeps:
            return
        try:
            data = pack(value)
        except (TypeError, ValueError) as error:
            self.unkept = f"{kind} cannot be written: {error}."
            return
        self.write(kind, key, data)


def _array_of(entry: mmap.mmap) -> NDArray[np.float32] | None:
    """The array behind its shape, before the seal; None of an entry that is laid out otherwise."""
    try:
        n, d = np.frombuffer(entry, SHAPE, 2).tolist()
        left = len(entry) - SEAL - 2 * SHAPE.itemsize
        if n * d * np.float32().itemsize != left:
            return None
        return np.frombuffer(entry, np.float32, n * d, 2 * SHAPE.itemsize).reshape(n, d)
    except ValueError:
        return None
