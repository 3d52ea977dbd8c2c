"""What scores are worth: rank and linear correlation with accuracy after real training."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ckptsel.ranking.uncertainty import Interval, Values, interval

N_RESAMPLES = 1000

MIN_CHECKPOINTS = 5
"""With fewer, correlations are perfect by chance too often, and resamples of them say nothing."""

MEASURES: dict[str, Callable[[Values, Values], float]] = {
    "kendall_tau": lambda x, y: stats.kendalltau(x, y, method="asymptotic").statistic,
    "weighted_tau": lambda x, y: stats.weightedtau(x, y).statistic,
    "pearson_r": lambda x, y: stats.pearsonr(x, y).statistic,
}
"""Kendall's tau-b; Vigna's weighted tau (2015), in which the top of both orders counts most;
Pearson's r. All in [-1, 1]."""


@dataclass(frozen=True)
class Agreement:
    """One score (or baseline) against accuracy after training.

    n: how many checkpoints. kendall_tau, weighted_tau, pearson_r: with its 95 % interval, by a
    bootstrap over checkpoints; null where the score or the accuracy is the same for all of them.
    """

    n: int
    kendall_tau: Interval | None
    weighted_tau: Interval | None
    pearson_r: Interval | None


def measure_agreement(scores: Mapping[str, Values], accuracy: Values) -> dict[str, Agreement]:
    """The agreement of each score (n,) with accuracy (n,); empty below MIN_CHECKPOINTS."""
    n = len(accuracy)
    if n < MIN_CHECKPOINTS:
        return {}
    drawn = np.random.default_rng((0, 9)).integers(n, size=(N_RESAMPLES, n))
    return {
        name: Agreement(n, **{key: _bootstrapped(key, values, accuracy, drawn) for key in MEASURES})
        for name, values in scores.items()
    }


def _bootstrapped(measure: str, x: Values, y: Values, drawn: NDArray[np.int64]) -> Interval | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    function = MEASURES[measure]
    # A resample may repeat one checkpoint only, where no correlation is defined.
    usable = [rows for rows in drawn if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0]
    with warnings.catch_warnings():
        # scipy warns of nearly constant inputs, which a resample of few checkpoints can be.
        warnings.simplefilter("ignore")
        resampled = np.array([function(x[rows], y[rows]) for rows in usable])
    return interval(float(function(x, y)), resampled[np.isfinite(resampled)])
