"""What training runs of the same candidate differ by, where there are several seeds.

Two parts: what a set of seeds adds to all candidates (its batches are easy or hard), and what it adds to
one of them. A few seeds tell either badly, so both are Student's t.
"""

from dataclasses import dataclass

import numpy as np

from ckptsel.ranking.intervals import Values

N_DRAWS = 2000
"""From which the interval of a sum of two t distributions is read."""


@dataclass(frozen=True)
class Scatter:
    """What another set of training seeds would change in mean accuracies.

    shared: variance of what a set of seeds adds to all candidates (its batches are easy or hard).
    own: variance of what it adds to one of them, pooled over candidates, since a few seeds each
    tell it badly.
    shared_freedom, own_freedom: degrees of freedom of both; 0 where there is nothing to tell it from.
    """

    shared: float = 0.0
    own: float = 0.0
    shared_freedom: int = 0
    own_freedom: int = 0

    def half_width(self, level: float) -> float:
        """Of the interval of one candidate's mean, as far as seeds go."""
        if self.shared_freedom == 0:
            return 0.0
        generator = np.random.default_rng(8)
        shared, own = generator.standard_normal((2, N_DRAWS))
        drawn = t_scale(self.shared, self.shared_freedom, N_DRAWS, generator) * shared
        if self.own_freedom:
            drawn += t_scale(self.own, self.own_freedom, N_DRAWS, generator) * own
        return float(np.quantile(np.abs(drawn), level))


def find_scatter(accuracy: Values) -> Scatter:
    """The scatter of mean accuracies (n_candidates, n_seeds)."""
    n_candidates, n_seeds = accuracy.shape
    if n_seeds == 1:
        return Scatter()
    by_seed = accuracy.mean(axis=0)
    shared = float(by_seed.var(ddof=1)) / n_seeds
    if n_candidates == 1:
        return Scatter(shared, 0.0, n_seeds - 1, 0)
    own = accuracy - accuracy.mean(axis=1, keepdims=True) - by_seed + by_seed.mean()
    freedom = (n_candidates - 1) * (n_seeds - 1)
    return Scatter(shared, float((own**2).sum()) / freedom / n_seeds, n_seeds - 1, freedom)


def t_scale(variance: float, freedom: int, n: int, generator: np.random.Generator) -> Values:
    """What makes normal draws those of a t distribution: (n,)."""
    if variance == 0:
        return np.zeros(n)
    return np.asarray(np.sqrt(variance * freedom / generator.chisquare(freedom, size=n)))
