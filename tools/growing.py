"""A search that reads a checkpoint on more images only while it may be the best, as a replay.

It is for measurements (`python -m tools.measure_budget --parts ...`); `docs/search.md` says why
`rank --budget` reads every checkpoint that it looks at on all images.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.intervals import LEVEL, Values
from ckptsel.ranking.judgement import Readings, mean_covariance
from ckptsel.ranking.search import Seen
from ckptsel.ranking.turns import Search
from ckptsel.results.ranking import ACCURACY
from ckptsel.settings.rank import RankSettings

PARTS = {
    "whole": (1.0,),
    "quarter": (0.25,),
    "behind": (0.25, 0.5, 1.0),
    "not_ahead": (0.25, 0.5, 1.0),
    "known": (0.25, 0.5, 1.0),
}
"""The parts of the images that a checkpoint is read on one after the other. On the way are left out
those that are behind the best for certain, or those that are not ahead of it by more than the tolerance
for certain, or those outside the tie set of the ranking of all, which is known here alone."""

BETS = np.arange(0.0125, 0.5, 0.025)
"""What is bet of what is left each time; a part of the stake each."""


def is_below(differences: Values, n_all: int, risk: float) -> bool:
    """Whether the mean of n_all differences in [-1, 1] is below 0. Those given (n,) are the first of
    them, in an order by chance.

    It is said by mistake with a chance of `risk` at most, however often and whenever it is asked: who
    bets on it in fair games multiplies a stake by 1 / risk with that chance at most (Ville 1939). The
    games are fair by what is left to be drawn (Waudby-Smith and Ramdas 2020, "Estimating means of
    bounded random variables by betting", on sampling without replacement).
    """
    before = np.concatenate([[0.0], np.cumsum(differences)[:-1]])
    least = -before / (n_all - np.arange(len(differences)))
    logs = np.log1p(BETS[:, None] * (least - differences)).cumsum(axis=1)
    highest = logs.max(axis=0)
    wealth = highest + np.log(np.exp(logs - highest).mean(axis=0))
    return bool(wealth.max() >= -np.log(risk))


class GrowingSearch(Search):
    """Those that a search begins with grow side by side; each that follows, beside the best of them.

    values: (n, n_images) of the deciding score, images in an order by chance.
    ties: (n,), the tie set of the ranking of all.
    n_read: images read of each checkpoint that was looked at, by its place.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        settings: RankSettings,
        values: Values,
        ties: NDArray[np.bool_],
        parts: str,
    ) -> None:
        super().__init__([Candidate(checkpoint) for checkpoint in checkpoints], settings, 1, 0.0)
        self.values, self.ties, self.parts = values, ties, parts
        self.n_read: dict[int, int] = {}

    def run(self) -> None:
        for _ in self:
            if len(self._tried) >= len(self._first):
                self._grow([place for place in self._tried if place not in self.n_read])

    def _grow(self, places: list[int]) -> None:
        for part in PARTS[self.parts]:
            n = round(part * self.values.shape[1])
            self.n_read.update(dict.fromkeys(places, n))
            means = self.values[:, :n].mean(axis=1)
            best = max((i for i in self.n_read if self.n_read[i] >= n), key=lambda i: means[i])
            places = [i for i in places if i == best or not self._is_out(i, best, n)]

    def _is_out(self, place: int, best: int, n: int) -> bool:
        if self.parts == "known":
            return not self.ties[place]
        ahead = self._settings.tolerance if self.parts == "not_ahead" else 0.0
        differences = self.values[place, :n] - self.values[best, :n] - ahead
        # The true best may meet any other: the risk is shared among all pairs with it.
        return is_below(differences, self.values.shape[1], (1 - LEVEL) / len(self.values))

    def _seen(self) -> Seen:
        """Means of the first m and the first n images have in common what those of max(m, n) vary by."""
        places = sorted(self.n_read)
        n_read = np.array([self.n_read[i] for i in places])
        common = self.values[places, : n_read.min()]
        readings = Readings(common[:, None], is_accuracy=self._score.unit == ACCURACY)
        covariance = mean_covariance(readings) * n_read.min()
        means = np.array([self.values[i, : self.n_read[i]].mean() for i in places])
        return Seen(np.array(places), means, covariance / np.maximum.outer(n_read, n_read))
