"""Where features go as a network gives them, a batch at a time: into memory, or into the store.

Each place refuses features that tell nothing, before they are kept.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.errors import FeatureError, OutputError
from ckptsel.features.store import Cache

Features = NDArray[np.float32]


class Sink(Protocol):
    """Takes the features of samples in their order."""

    def add(self, part: Tensor) -> None:
        """Those of the next batch, (n, D)."""

    def end(self) -> None:
        """Called once, after the last. Raises FeatureError where they cannot be used."""

    def features(self) -> Features:
        """All of them, (N, D), after the end."""


OpenSink = Callable[[str], AbstractContextManager[Sink]]
"""A sink for the features at a layer; what it keeps is there when its block ends without an error."""


class Check:
    """That features, a batch at a time, are finite and not the same for all samples."""

    def __init__(self) -> None:
        self._n = self._n_bad = 0
        self._first: Features | None = None
        self._most: Features | float = -np.inf
        self._least: Features | float = np.inf

    def add(self, part: Features) -> None:
        """(n, D), n at least 1."""
        self._n += len(part)
        self._n_bad += count_not_finite(part)
        if self._first is None:
            self._first = part[0].copy()
        # By column: an array of differences would be another copy of the features.
        self._most = np.maximum(self._most, part.max(0))
        self._least = np.minimum(self._least, part.min(0))

    def end(self) -> None:
        """Raises FeatureError where they are not so."""
        refuse_not_finite(self._n_bad, self._n)
        first = self._first
        assert first is not None
        spread = np.maximum(self._most - first, first - self._least).max(initial=0)
        if spread <= 1e-6 * np.maximum(self._most, -self._least).max(initial=1e-30):
            raise FeatureError(
                f"the features of all {self._n} images are the same: the network has collapsed, "
                "or the images are all alike."
            )


class InMemory:
    """Held as a whole."""

    def __init__(self, n: int) -> None:
        self._n, self._done = n, 0
        self._whole: Tensor | None = None

    def add(self, part: Tensor) -> None:
        if self._whole is None:
            self._whole = part.new_empty(self._n, *part.shape[1:])
        self._whole[self._done : self._done + len(part)] = part
        self._done += len(part)

    def end(self) -> None:
        check = Check()
        check.add(self.features())
        check.end()

    def features(self) -> Features:
        assert self._whole is not None
        return np.asarray(self._whole.numpy())


class InStore:
    """Written as they come, and mapped in the end: they take no memory of their own."""

    def __init__(self, cache: Cache, key: str, write: Callable[[Features], None]) -> None:
        self._cache, self._key, self._write = cache, key, write
        self._check = Check()

    def add(self, part: Tensor) -> None:
        array = part.numpy()
        self._check.add(array)
        self._write(array)

    def end(self) -> None:
        self._check.end()

    def features(self) -> Features:
        found = self._cache.get_features(self._key)
        if found is None:
            raise OutputError("features were removed from the cache as soon as they were written.")
        return found


@contextmanager
def in_memory(n: int) -> Iterator[InMemory]:
    """For n samples."""
    yield InMemory(n)


@contextmanager
def in_store(cache: Cache, key: str, n: int) -> Iterator[InStore]:
    """For n samples. Raises OutputError where the store cannot keep them."""
    with cache.writing_features(key, n) as write:
        yield InStore(cache, key, write)


def check_finite(features: Features) -> None:
    """Raises FeatureError where features (N, D) are not finite."""
    refuse_not_finite(count_not_finite(features), len(features))


def count_not_finite(features: Features) -> int:
    """Of how many samples a feature is not finite."""
    most, least = features.max(1, initial=0), features.min(1, initial=0)
    return int((~np.isfinite(most) | ~np.isfinite(least)).sum())


def refuse_not_finite(n_bad: int, n: int) -> None:
    """Raises FeatureError where some of n samples are."""
    if n_bad:
        raise FeatureError(
            f"the features of {n_bad} of {n} images are NaN or infinite: the network "
            "overflows (try --precision float32) or had diverged."
        )
