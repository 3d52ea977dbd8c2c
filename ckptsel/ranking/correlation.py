"""How far two series of the same checkpoints agree, and how many independent points that rests on.

Neighbouring checkpoints are alike, so two smooth curves that have nothing to do with each other
correlate by chance far more than two sets of as many independent points.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

TREND_DEGREE = 3
"""A polynomial of so high a degree counts as trend: each of its powers is one component."""

Values = NDArray[np.float64]


def kendall_tau(x: Values, y: Values) -> float:
    """Kendall's tau-b of two series (n,), in [-1, 1]; NaN where one of them is the same everywhere."""
    return float(stats.kendalltau(x, y, method="asymptotic").statistic)


def effective_n(x: Values, y: Values) -> float:
    """How many independent pairs vary by chance as much as these two series (n,) in order; in [2, n].

    The smaller of that of the values and that of their ranks. x and y must vary; n is at least
    TREND_DEGREE + 2. Source: n_eff = 1 + 1 / var(r) (Clifford, Richardson & Hemon 1989; Dutilleul
    1993), for time series Bartlett 1935 and Pyper & Peterman 1998.

    Where both series are split into orthogonal components along the trajectory, r is the sum of the
    products of their coefficients. Unrelated series have unrelated signs of them, so that var(r) is the
    sum of the products of the shares that the components have in the two variances. Autocorrelations,
    which few points tell badly and too low, are not estimated.
    """
    components = _components(len(x))
    ranks = stats.rankdata(x), stats.rankdata(y)
    return min(_effective_n(x, y, components), _effective_n(*ranks, components))


def _effective_n(x: Values, y: Values, components: Values) -> float:
    in_x, in_y = (components @ x) ** 2, (components @ y) ** 2
    variance = (in_x / in_x.sum()) @ (in_y / in_y.sum())
    # By luck two series can share fewer components than independent points do.
    return float(1 + 1 / max(variance, 1 / (len(x) - 1)))


def _components(n: int) -> Values:
    """Orthonormal components (n - 1, n) of a series less its mean, from slow to fast.

    Powers of time up to TREND_DEGREE, then cosines (of a discrete cosine transform, whose components
    are independent both in a random walk and in white noise). Powers, since cosines need many of
    their kind, all of one sign, for the slope of a curve that does not end level.
    """
    time = (2 * np.arange(n) + 1) / n - 1
    powers = time[:, None] ** np.arange(TREND_DEGREE + 1)
    cosines = np.cos(np.pi * (time[:, None] + 1) / 2 * np.arange(TREND_DEGREE + 1, n))
    orthonormal, _ = np.linalg.qr(np.hstack([powers, cosines]))
    return orthonormal[:, 1:].T
