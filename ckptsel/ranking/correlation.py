"""How far two orders of the same checkpoints agree."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def kendall_tau(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Kendall's tau-b of two series (n,), in [-1, 1]; NaN where one of them is the same everywhere."""
    return float(stats.kendalltau(x, y, method="asymptotic").statistic)
