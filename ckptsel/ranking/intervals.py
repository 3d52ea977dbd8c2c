"""How sure an accuracy is, and a difference of two on the same images: intervals from counts.

Both hold where few images decide: an accuracy near 0 or 1, two candidates that differ on a handful of
images. A normal or percentile interval has no width there.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]

LEVEL = 0.95

N_BISECTIONS = 50
"""Halvings of [-1, 1] in the search for an end of an interval: to 1e-15."""


def accuracy_ends(values: Values, tail: float) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) of the mean of values (n,) in [0, 1]; `tail` beyond
    each end.

    It covers at its level or more, whatever the true accuracy. An image that is right in two of
    three repeats counts two thirds of an image, which varies less than the whole images it is made
    for.
    """
    right = float(values.sum())
    wrong = len(values) - right
    low = special.betaincinv(right, wrong + 1, tail) if right > 0 else 0.0
    high = 1 - special.betaincinv(wrong, right + 1, tail) if wrong > 0 else 1.0
    return float(low), float(high)


def mean_ends(values: Values, tail: float) -> tuple[float, float]:
    """Student's interval of the mean of values (n,) without bounds, such as log-likelihoods."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return -np.inf, np.inf
    half = float(special.stdtrit(n - 1, 1 - tail) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def least_difference(total: Values, squares: Values, n_images: int, z: Values) -> Values:
    """Lower end of the score interval of Tango (1998, eq. 12) of a mean paired difference.

    Of n images with differences d in [-1, 1] (1 where only the second is right, -1 where only the
    first is, 0 elsewhere), total is the sum of d and squares that of d**2: both (...,). z: (...,)
    standard errors down. The upper end is minus the lower end of the differences turned round.
    Where d is no whole number (a mean over repeats or seeds), the counts are those with the same
    mean and variance.
    """
    total, squares, z = np.broadcast_arrays(total, squares, z)
    discordant = np.maximum(squares, np.abs(total))
    low, high = np.full(total.shape, -1.0), total / n_images
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        too_low = _score_statistic(total, discordant, n_images, middle) > z
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return low


def _score_statistic(total: Values, discordant: Values, n: int, delta: Values) -> Values:
    """How many standard errors the mean difference lies above delta, were delta true."""
    first_only = (discordant - total) / 2
    b = (2 * n - total) * delta - discordant
    c = -first_only * delta * (1 - delta)
    # The most likely share of images that only the first has right, were delta true.
    share = (np.sqrt(np.maximum(b**2 - 8 * n * c, 0)) - b) / (4 * n)
    variance = np.maximum(n * (2 * share + delta * (1 - delta)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, (total - n * delta) / np.sqrt(variance), np.inf)
