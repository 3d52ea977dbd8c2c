"""Which checkpoints to look at next, where not all of them are: a search along a trajectory.

what was seen of some -> draws of what all may be worth -> who may beat the best seen -> the next

What checkpoints are worth is a Gaussian process over the logarithm of the step: a slow curve, that
keeps all of its course or nothing at each drop of the learning rate, and beside it what each
checkpoint has of its own, which may be less where the learning rate is lower. How far the values that
were seen are off is known: they are means over the same images. What is not known of the process (how
fast, how high, how much of its own) is weighed by how well it foretells what was seen.

All is a function of what was seen: the same again gives the same again.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptsel.ranking.intervals import Values

Places = NDArray[np.int64]
"""Checkpoints by their place in the order of training."""

Hits = NDArray[np.bool_]

N_SPACED = 12
"""Checkpoints along the logarithm of the step that a search begins with."""

N_DRAWS, SEED = 1000, 19

LENGTHS = (0.1, 0.5, 2.5)
"""Of the slow curve: over so much of the logarithm what is left of its course falls to 1/e."""

KEPT = (0.0, 1.0)
"""The part of the slow curve's course that is kept at a drop."""

FADING = (0.0, 0.5, 1.0)
"""Powers of the learning rate that what each has of its own may go with."""

SPREADS = (0.5, 1.0, 2.0)
"""Of the slow curve, by the spread of the values that were seen, as those of OWN, LEVEL_SPREAD and
LEAST are."""

OWN = (0.0, 0.2, 0.4, 0.8)
"""Spreads of what each checkpoint has of its own, at the highest learning rate."""

LEVEL_SPREAD = 10.0
"""Of the level of all: nothing is known of it."""

LEAST = 1e-4
"""Of what values are off by besides."""


@dataclass(frozen=True)
class Path:
    """Where the checkpoints of a trajectory lie, in the order of training.

    at: (n,), the logarithm of the step; it never falls.
    stretch: (n,), drops of the learning rate before.
    rate: (n,), the learning rate, by the highest; 1 where it is not known.
    """

    at: Values
    stretch: NDArray[np.int64]
    rate: Values

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Seen:
    """What was seen. places: (k,). means: (k,). covariance: (k, k), of what they are off by."""

    places: Places
    means: Values
    covariance: Values

    @property
    def best(self) -> int:
        """The place of the highest."""
        return int(self.places[self.means.argmax()])


class _Process(NamedTuple):
    """One of those that the lists above span; its spreads are in the unit of the values."""

    length: float
    kept: float
    fading: float
    spread: float
    own: float
    level: float


def make_path(steps: Sequence[float], drops: Sequence[bool], rates: Sequence[float | None]) -> Path:
    """steps: in the order of training, never falling. drops: whether the rate fell just before."""
    at = np.asarray(steps, dtype=np.float64)
    gaps = np.diff(at)
    unit = gaps[gaps > 0].min(initial=np.inf)
    unit = unit if np.isfinite(unit) else 1.0
    known = np.array([rate for rate in rates if rate is not None], dtype=np.float64)
    is_known = len(known) == len(at) and known.max() > 0
    rate = known / known.max() if is_known else np.ones(len(at))
    return Path(np.log1p(at / unit), np.cumsum(np.asarray(drops, dtype=np.int64)), rate)


def first_places(path: Path, always: Collection[int] = ()) -> list[int]:
    """Where a search begins, what matters most first: the ends, what is always looked at, each side of
    every drop, and a dozen along the logarithm of the step."""
    n = len(path)
    after = [i for i in range(1, n) if path.stretch[i] > path.stretch[i - 1]]
    wanted = np.linspace(path.at[0], path.at[-1], N_SPACED)
    spaced = [int(np.abs(path.at - x).argmin()) for x in wanted]
    sides = [i for j in after for i in (j, j - 1)]
    return list(dict.fromkeys([n - 1, 0, *always, *sides, *spaced]))


def farthest_places(path: Path, tried: Collection[int], n: int) -> list[int]:
    """The next where nothing was learnt: those with the most untried checkpoints around."""
    chosen: list[int] = []
    for _ in range(min(n, len(path) - len(tried))):
        there = np.array(sorted({*tried, *chosen, -1, len(path)}))
        distance = np.abs(np.arange(len(path))[:, None] - there).min(axis=1)
        chosen.append(int(distance.argmax()))
    return chosen


def draw(path: Path, seen: Seen) -> Values:
    """What every checkpoint may be worth, given what was seen: (n, N_DRAWS)."""
    scale = float(np.sqrt(max(seen.means.var(), seen.covariance.diagonal().mean()))) or 1.0
    # Two that were read alike at one step would else leave nothing to solve.
    noise = seen.covariance + (LEAST * scale) ** 2 * np.eye(len(seen.places))
    processes = list(_processes(path, scale))
    before = np.cumsum(_likelihoods(path, seen, noise, processes))
    chosen = before.searchsorted((np.arange(N_DRAWS) + 0.5) / N_DRAWS * before[-1])
    normal = np.random.default_rng(SEED + 1).standard_normal((len(seen.places), N_DRAWS))
    draws = _priors(path, processes, chosen) + seen.means.mean()
    missed = seen.means[:, None] - np.linalg.cholesky(noise) @ normal - draws[seen.places]
    for i in np.unique(chosen):
        mine = chosen == i
        kernel = _kernel(path, processes[i], np.arange(len(path)), seen.places)
        # A draw that knew nothing, moved by what it missed of what was seen (Matheron's rule).
        draws[:, mine] += kernel @ np.linalg.solve(kernel[seen.places] + noise, missed[:, mine])
    return draws


def find_hits(draws: Values, best: int, tried: Collection[int], tolerance: float) -> Hits:
    """In which draws each is ahead of the best seen by more than the tolerance, (n, N_DRAWS); what was
    tried never is."""
    hits = np.asarray(draws > draws[best] + tolerance)
    hits[list(tried)] = False
    return hits


def choose(draws: Values, hits: Hits, tried: Collection[int], n: int) -> list[int]:
    """The next n: each the one that is ahead in most draws in which none of those before it is; where
    that is none, the one with the highest upper end."""
    upper = draws.mean(axis=1) + 2 * draws.std(axis=1)
    left = np.ones(hits.shape[1], dtype=np.bool_)
    open_places = [i for i in range(len(draws)) if i not in set(tried)]
    chosen: list[int] = []
    while open_places and len(chosen) < n:
        gains = (hits & left).sum(axis=1)
        place = max(open_places, key=lambda i: (gains[i], upper[i]))
        open_places.remove(place)
        chosen.append(place)
        left &= ~hits[place]
    return chosen


def _processes(path: Path, scale: float) -> Iterator[_Process]:
    has_drops, is_fading = path.stretch[-1] > 0, bool((path.rate < 1).any())
    for length, kept, fading, spread, own in itertools.product(
        LENGTHS, KEPT if has_drops else (1.0,), FADING if is_fading else (0.0,), SPREADS, OWN
    ):
        yield _Process(length, kept, fading, spread * scale, own * scale, LEVEL_SPREAD * scale)


def _likelihoods(path: Path, seen: Seen, noise: Values, processes: Sequence[_Process]) -> Values:
    """How well each process foretells what was seen, by the one that does best: (n_processes,)."""
    centred = seen.means - seen.means.mean()
    logs = np.empty(len(processes))
    for i, process in enumerate(processes):
        factor = np.linalg.cholesky(_kernel(path, process, seen.places, seen.places) + noise)
        white = np.linalg.solve(factor, centred)
        logs[i] = -0.5 * white @ white - np.log(factor.diagonal()).sum()
    return np.asarray(np.exp(logs - logs.max()))


def _kernel(path: Path, process: _Process, rows: Places, columns: Places) -> Values:
    """What checkpoints have in common: (n_rows, n_columns)."""
    apart = np.abs(path.at[rows][:, None] - path.at[columns])
    drops = np.abs(path.stretch[rows][:, None] - path.stretch[columns])
    slow = process.spread**2 * np.exp(-apart / process.length) * process.kept**drops
    own = process.own**2 * path.rate[columns] ** (2 * process.fading)
    return np.asarray(process.level**2 + slow + (rows[:, None] == columns) * own)


def _priors(path: Path, processes: Sequence[_Process], chosen: Places) -> Values:
    """A draw of each chosen process that knows nothing of what was seen: (n, n_draws)."""
    n = len(path)
    length, kept, fading, spread, own, level = np.array(processes)[chosen].T
    normal = np.random.default_rng(SEED).standard_normal((2 * n + 1, len(chosen)))
    slow = normal[:n]
    parts = np.exp(-np.diff(path.at)[:, None] / length) * kept ** np.diff(path.stretch)[:, None]
    for i, part in enumerate(parts, start=1):
        slow[i] = part * slow[i - 1] + np.sqrt(1 - part**2) * slow[i]
    own = own * path.rate[:, None] ** fading
    return np.asarray(level * normal[-1] + spread * slow + own * normal[n:-1])
