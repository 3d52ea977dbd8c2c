"""What scores are worth: rank and linear correlation with accuracy after real training.

Intervals are those of so many independent pairs as the two curves are worth (`effective_n`), on
Fisher's scale z = atanh(.), where the spread hardly depends on the value. With few they are wide, with
MIN_EFFECTIVE or fewer [-1, 1]: nothing is known. By simulation (`tools/simulate_correlation.py`)
unrelated curves get an interval without 0 in at most 7 % of runs.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from scipy import stats

from ckptsel.ranking.correlation import Values, effective_n, kendall_tau
from ckptsel.ranking.intervals import LEVEL
from ckptsel.results.confirmation import MIN_CHECKPOINTS, Agreement
from ckptsel.results.estimate import CHECKPOINTS, Estimate

N_ORDERS = 1000

FISHER, FIELLER = 3, 4
"""Effective pairs that must be exceeded: the variance of z is 1 / (n - 3) for Pearson's r (Fisher
1921), and 0.437 / (n - 4) for Kendall's tau (Fieller, Hartley & Pearson 1957)."""


def weighted_tau(x: Values, y: Values) -> float:
    """Vigna's weighted tau (2015) of two series (n,), in [-1, 1]: the top of both orders counts most."""
    return float(stats.weightedtau(x, y).statistic)


def pearson_r(x: Values, y: Values) -> float:
    """Pearson's correlation of two series (n,), in [-1, 1]."""
    return float(stats.pearsonr(x, y).statistic)


FUNCTIONS: dict[str, Callable[[Values, Values], float]] = {
    "kendall_tau": kendall_tau,
    "weighted_tau": weighted_tau,
    "pearson_r": pearson_r,
}
"""Of `MEASURES`."""


def measure_agreement(scores: Mapping[str, Values], accuracy: Values) -> dict[str, Agreement]:
    """The agreement of each score (n,) with accuracy (n,), both in the order of training; empty below
    MIN_CHECKPOINTS."""
    if len(accuracy) < MIN_CHECKPOINTS:
        return {}
    return {name: _agreement(values, accuracy) for name, values in scores.items()}


def _agreement(x: Values, y: Values) -> Agreement:
    n = len(x)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Agreement(n, None, None, None)
    n_effective = effective_n(x, y)
    measured = {
        measure: correlation_interval(measure, function(x, y), n, n_effective)
        for measure, function in FUNCTIONS.items()
    }
    return Agreement(n, **measured, n_effective=n_effective)


def correlation_interval(measure: str, value: float, n: int, n_effective: float) -> Estimate:
    """A correlation of n pairs, worth n_effective independent ones, with its 95 % interval."""
    # A perfect order of few is no proof of one of all.
    most = 1 - 1e-12 if measure == "pearson_r" else 1 - 1 / n
    z = np.arctanh(np.clip(value, -most, most))
    half = _half_width(measure, n, n_effective)
    low, high = np.tanh(z - half), np.tanh(z + half)
    return Estimate(value, float(min(low, value)), float(max(high, value)), n=n, random=CHECKPOINTS)


def _half_width(measure: str, n: int, n_effective: float) -> float:
    """Of the interval on Fisher's scale; infinite where nothing can be known."""
    lost = FISHER if measure == "pearson_r" else FIELLER
    if n_effective <= lost:
        return np.inf
    normal = stats.norm.ppf((1 + LEVEL) / 2)
    of_independent = {
        "pearson_r": lambda: normal,
        "kendall_tau": lambda: normal * np.sqrt(0.437),
        "weighted_tau": lambda: np.sqrt(n - lost) * _chance_of_weighted_tau(n),
    }
    return float(of_independent[measure]() / np.sqrt(n_effective - lost))


@lru_cache
def _chance_of_weighted_tau(n: int) -> float:
    """The 95 % quantile of |z| between random orders of n, for which there is no formula."""
    random = np.random.default_rng((0, 9))
    order = np.arange(float(n))
    drawn = [weighted_tau(order, random.permutation(order)) for _ in range(N_ORDERS)]
    return float(np.arctanh(np.quantile(np.abs(drawn), LEVEL)))
