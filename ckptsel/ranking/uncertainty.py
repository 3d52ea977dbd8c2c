"""How sure a ranking is: a paired bootstrap over the held-out images.

All checkpoints are read on the same images, so a resample draws images and takes them for every
checkpoint at once: what makes an image hard for all of them cancels in their differences.
The images are what is random here; another training set or pre-training run would add to it.
"""

import numpy as np
from numpy.typing import NDArray

from ckptsel.results.estimate import Estimate

N_RESAMPLES = 2000
LEVEL = 0.95
CHUNK_VALUES = 20_000_000
"""Resampling weights held in memory at a time."""

IMAGES = "images"
IMAGES_AND_SEEDS = "images and seeds"
CHECKPOINTS = "checkpoints"
"""What an interval takes as random."""

Values = NDArray[np.float64]


def bootstrap_means(per_image: Values, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Values:
    """Means (n_checkpoints, n_resamples) of per_image (n_checkpoints, n_images) over resamples."""
    n_images = per_image.shape[1]
    generator = np.random.default_rng((seed, 7))
    chunk = max(1, CHUNK_VALUES // n_images)
    parts = []
    for first in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - first)
        counts = generator.multinomial(n_images, np.full(n_images, 1 / n_images), size=size)
        parts.append(per_image @ counts.T.astype(np.float64) / n_images)
    return np.concatenate(parts, axis=1)


def interval(
    value: float, resampled: Values, n: int | None = None, random: str | None = None
) -> Estimate:
    """A value with the percentile interval at 95 % of its resampled values (n_resamples,).

    n: how many images or checkpoints it rests on. random: what the resamples draw.
    """
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), n=n, random=random)


def probability_best(resampled: Values) -> Values:
    """For each checkpoint the share of resamples in which it is the best; ties are shared out."""
    is_best = resampled == resampled.max(axis=0)
    return (is_best / is_best.sum(axis=0)).mean(axis=1)


def find_tie_set(values: Values, resampled: Values) -> NDArray[np.bool_]:
    """Which checkpoints cannot be told from the best at 95 %: (n_checkpoints,) bool.

    Multiple comparisons with the best (Hsu 1984), by bootstrap: checkpoint j leaves when its largest
    standardised shortfall behind any other exceeds the 95 % quantile of what that largest shortfall
    would be by chance, were all others no better. The set then holds the true best in at least 95 %
    of samples; comparing only with the winner would not, since the winner is partly luck.

    values: (n_checkpoints,), resampled: (n_checkpoints, n_resamples).
    """
    ties = np.zeros(len(values), dtype=bool)
    for j in range(len(values)):
        shortfall = values - values[j]
        chance = (resampled - resampled[j]) - shortfall[:, None]
        error = chance.std(axis=1)
        # Equal predictions differ by nothing, in the sample and in every resample.
        scale = np.where(error > 0, error, np.inf)
        largest = (shortfall / scale).max()
        limit = np.quantile((chance / scale[:, None]).max(axis=0), LEVEL)
        certain = bool(((error == 0) & (shortfall > 0)).any())
        ties[j] = largest <= limit and not certain
    return ties


def seed_and_image_means(correct: Values, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Values:
    """Resampled mean accuracies of trained candidates, over images and training seeds together.

    correct: (n_candidates, n_seeds, n_images), 1.0 where right; seeds and images are the same for
    all candidates. Returns (n_candidates, n_resamples).

    Images are drawn as in `bootstrap_means`. To that comes what another set of seeds would change:
    a part that all candidates share (the seed's batches are easy or hard for all) and a part of
    each candidate's own, whose variance is pooled over candidates since a few seeds each tell it
    badly. Both are drawn from Student's t, which is wide where the seeds are few. With one seed
    there is nothing to tell them from, and the intervals are over images alone.
    """
    n_candidates, n_seeds, _ = correct.shape
    resampled = bootstrap_means(correct.mean(axis=1), n_resamples, seed)
    if n_seeds == 1:
        return resampled
    generator = np.random.default_rng((seed, 8))
    accuracy = correct.mean(axis=2)
    by_seed = accuracy.mean(axis=0)
    shared = _t_draws(by_seed.var(ddof=1) / n_seeds, n_seeds - 1, (1, n_resamples), generator)
    resampled = resampled + shared
    if n_candidates > 1:
        own = accuracy - accuracy.mean(axis=1, keepdims=True) - by_seed + by_seed.mean()
        freedom = (n_candidates - 1) * (n_seeds - 1)
        variance = (own**2).sum() / freedom / n_seeds
        shape = (n_candidates, n_resamples)
        resampled = resampled + _t_draws(variance, freedom, shape, generator)
    return resampled


def _t_draws(
    variance: float, freedom: int, shape: tuple[int, int], generator: np.random.Generator
) -> Values:
    """Multivariate t: normal draws whose estimated variance is itself uncertain, once a resample."""
    scale = np.sqrt(freedom / generator.chisquare(freedom, size=shape[1]))
    return np.sqrt(variance) * scale * generator.standard_normal(shape)
