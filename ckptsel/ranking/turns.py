"""Candidates that are scored in turns, each chosen by what came of those before: `rank --budget`."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.learning_rate import find_drops
from ckptsel.common.quantities import seconds_of
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.calls import Job, jobs_of
from ckptsel.ranking.intervals import LEVEL, Values
from ckptsel.ranking.judgement import Readings, mean_covariance
from ckptsel.ranking.order import deciding_score
from ckptsel.ranking.scoring import Outcome
from ckptsel.ranking.search import (
    Path,
    Seen,
    choose,
    draw,
    farthest_places,
    find_hits,
    first_places,
    make_path,
)
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import ACCURACY
from ckptsel.results.search import UNLIKELY, SearchRecord, Unseen
from ckptsel.scores import find_score
from ckptsel.settings.rank import RankSettings

Recorded = Sequence[float | None]

IMAGES_AND_CURVE = "images and the course between checkpoints"


@dataclass(frozen=True)
class Limits:
    """When a search ends; with neither it ends by itself. n: checkpoints. time_s: seconds."""

    n: int | None = None
    time_s: float | None = None


def read_limits(budget: str) -> Limits:
    """budget: as the option `budget` takes it."""
    if budget == "auto":
        return Limits()
    if re.fullmatch(r"\d+", budget):
        return Limits(n=int(budget))
    return Limits(time_s=seconds_of(budget))


class Search:
    """Iterating over it gives the candidates of each turn; before the next is asked for, it is to hear
    what came of them.

    A checkpoint counts by the best of its layers. One that fails tells nothing, and is not tried again.
    Time enters no choice; where it is the budget, it ends the search with the turn in which it passes.
    """

    def __init__(
        self, candidates: Sequence[Candidate], settings: RankSettings, n_at_once: int, start: float
    ) -> None:
        """candidates: usable ones, by checkpoint, in the order of training. start: of the ranking, in
        the seconds of `time.monotonic`."""
        assert settings.budget is not None
        self._jobs = jobs_of(candidates)
        checkpoints = [job[0].checkpoint for job in self._jobs]
        self._path = path_of(checkpoints)
        self._limits, self._settings = read_limits(settings.budget), settings
        self._n_at_once, self._start = n_at_once, start
        self._first = first_places(self._path, _best_by_source(checkpoints))
        self._score = find_score(deciding_score(settings))
        self._outcomes: dict[str, Outcome] = {}
        self._tried: list[int] = []

    @property
    def n_candidates(self) -> int:
        """Of the checkpoints that it looks at at most."""
        return sum(len(job) for job in self._jobs[: self._limits.n])

    @property
    def unseen(self) -> frozenset[str]:
        """The candidates of all checkpoints that were not looked at, by name."""
        jobs = [job for i, job in enumerate(self._jobs) if i not in self._tried]
        return frozenset(candidate.name for job in jobs for candidate in job)

    def hear(self, outcome: Outcome) -> None:
        self._outcomes[outcome.name] = outcome

    def __iter__(self) -> Iterator[Job]:
        while places := self._next():
            self._tried += places
            yield tuple(candidate for place in places for candidate in self._jobs[place])
            limit_s = self._limits.time_s
            if limit_s is not None and time.monotonic() - self._start >= limit_s:
                return

    def _next(self) -> list[int]:
        """The places of the next turn; none where the search is over."""
        n_most = len(self._jobs) if self._limits.n is None else self._limits.n
        n = min(self._n_at_once, n_most - len(self._tried))
        if n <= 0:
            return []
        if first := [place for place in self._first if place not in self._tried]:
            return first[:n]
        seen = self._seen()
        if seen is None:
            return farthest_places(self._path, self._tried, n)
        draws = draw(self._path, seen)
        hits = find_hits(draws, seen.best, self._tried, self._settings.tolerance)
        if self._limits == Limits() and hits.any(axis=0).mean() < UNLIKELY:
            return []
        return choose(draws, hits, self._tried, n)

    def _seen(self) -> Seen | None:
        """What is known of the deciding score; None where that is too little to go by."""
        found = {i: self._values(self._jobs[i]) for i in sorted(self._tried)}
        known = {i: values for i, values in found.items() if values is not None}
        if len(known) < 2:
            return None
        values = np.stack(list(known.values()))
        readings = Readings(
            values[:, None], is_accuracy=self._score.unit == ACCURACY and values.shape[1] > 1
        )
        return Seen(np.array(list(known)), readings.means, mean_covariance(readings))

    def _values(self, job: Job) -> Values | None:
        """What the best layer of a checkpoint gave each image, the higher the better; a single number
        where the score has none by image. None where it failed."""
        sign = 1 if self._score.higher_is_better else -1
        found = []
        for candidate in job:
            outcome = self._outcomes.get(candidate.name)
            if outcome is not None and outcome.problem is None:
                result = outcome.results[self._score.name]
                by_image = result.per_image
                found.append(sign * (np.array([result.value]) if by_image is None else by_image))
        return max(found, key=lambda values: float(values.mean()), default=None)

    def record(self, orders: Mapping[str, int]) -> SearchRecord:
        """What was not looked at, and what is expected of it. orders: of checkpoints in training."""
        unseen = [i for i in range(len(self._jobs)) if i not in self._tried]
        rows = [_unseen_row(self._jobs[i][0].checkpoint, orders) for i in unseen]
        chance, seen = (None if unseen else 0.0), self._seen()
        if unseen and seen is not None:
            draws = draw(self._path, seen)
            hits = find_hits(draws, seen.best, self._tried, self._settings.tolerance)
            chance = float(hits.any(axis=0).mean())
            sign = 1 if self._score.higher_is_better else -1
            rows = [
                replace(row, expected=_expected(sign * draws[i]), chance=float(hits[i].mean()))
                for i, row in zip(unseen, rows, strict=True)
            ]
        return SearchRecord(
            str(self._settings.budget),
            self._settings.tolerance,
            n_checkpoints=len(self._jobs),
            n_seen=len(self._tried),
            chance=chance,
            unseen=tuple(rows),
        )


def path_of(checkpoints: Sequence[Checkpoint]) -> Path:
    """Along the epochs of checkpoints in the order of training, or the steps, or where neither is known
    of all or they rise with the order, along the order itself."""
    n = len(checkpoints)
    epochs: Recorded = [c.epoch for c in checkpoints]
    steps: Recorded = [c.step for c in checkpoints]
    along = next(values for values in (epochs, steps, range(1, n + 1)) if _is_rising(values))
    rates = [c.learning_rate for c in checkpoints]
    return make_path(along, find_drops(checkpoints), rates)


def _is_rising(values: Recorded) -> TypeGuard[Sequence[float]]:
    known = [value for value in values if value is not None]
    return len(known) == len(values) and known == sorted(known) and known[0] >= 0


def _best_by_source(checkpoints: Sequence[Checkpoint]) -> list[int]:
    """The place of the best by source accuracy, which is shown beside every ranking; none where the
    files record none."""
    recorded = {
        i: c.source_accuracy for i, c in enumerate(checkpoints) if c.source_accuracy is not None
    }
    return [max(recorded, key=lambda i: recorded[i])] if recorded else []


def _unseen_row(checkpoint: Checkpoint, orders: Mapping[str, int]) -> Unseen:
    name = checkpoint.name
    return Unseen(name, orders[name], checkpoint.epoch, checkpoint.step)


def _expected(draws: Values) -> Estimate:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(draws.mean()), float(low), float(high), random=IMAGES_AND_CURVE)
