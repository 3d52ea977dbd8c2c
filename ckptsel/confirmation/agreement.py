"""What scores are worth: rank and linear correlation with accuracy after real training."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ckptsel.ranking.correlation import kendall_tau
from ckptsel.ranking.uncertainty import CHECKPOINTS, Values, interval
from ckptsel.results.confirmation import MIN_CHECKPOINTS, Agreement
from ckptsel.results.estimate import Estimate

N_RESAMPLES = 1000

FUNCTIONS: dict[str, Callable[[Values, Values], float]] = {
    "kendall_tau": kendall_tau,
    "weighted_tau": lambda x, y: stats.weightedtau(x, y).statistic,
    "pearson_r": lambda x, y: stats.pearsonr(x, y).statistic,
}
"""Of `MEASURES`: tau-b; Vigna's weighted tau (2015), in which the top of both orders counts most;
Pearson's r."""


def measure_agreement(scores: Mapping[str, Values], accuracy: Values) -> dict[str, Agreement]:
    """The agreement of each score (n,) with accuracy (n,); empty below MIN_CHECKPOINTS."""
    n = len(accuracy)
    if n < MIN_CHECKPOINTS:
        return {}
    drawn = np.random.default_rng((0, 9)).integers(n, size=(N_RESAMPLES, n))
    return {
        name: Agreement(
            n, **{key: _bootstrapped(key, values, accuracy, drawn) for key in FUNCTIONS}
        )
        for name, values in scores.items()
    }


def _bootstrapped(measure: str, x: Values, y: Values, drawn: NDArray[np.int64]) -> Estimate | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    function = FUNCTIONS[measure]
    # A resample may repeat one checkpoint only, where no correlation is defined.
    usable = [rows for rows in drawn if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0]
    with warnings.catch_warnings():
        # scipy warns of nearly constant inputs, which a resample of few checkpoints can be.
        warnings.simplefilter("ignore")
        resampled = np.array([function(x[rows], y[rows]) for rows in usable])
    finite = resampled[np.isfinite(resampled)]
    return interval(float(function(x, y)), finite, n=len(x), random=CHECKPOINTS)
