"""One judgement of candidates that were read on the same images: who may be the best, by how much.

held-out values -> means, their joint error -> least difference of every pair -> tie set, how far each
                is behind the best, P(best), what the chosen one reaches on images that did not choose it

All of it comes from one set of numbers, so that no part can deny another. What makes an image hard for
all candidates cancels in their differences. What is random is the images, and the training runs where
there are several a candidate; another pre-training run would add to it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ckptsel.ranking.intervals import (
    LEVEL,
    Values,
    accuracy_ends,
    least_difference,
    mean_ends,
)
from ckptsel.ranking.scatter import Scatter, find_scatter, t_scale
from ckptsel.results.estimate import IMAGES, IMAGES_AND_SEEDS, Estimate

N_RESAMPLES = 2000
"""Of the errors of all means together, from the normal distribution that the images give them."""

N_PARTS, N_PARTINGS = 5, 2
"""The images are parted in so many, so many times: chosen on all parts but one, read on that."""

UNSEEN = 0.5
"""Two candidates are taken to differ on so many images to either side besides those on which they are
seen to: without it, those that agree on ten images would be equal for certain."""


@dataclass(frozen=True)
class Readings:
    """What candidates gave on the same held-out images.

    values: (n_candidates, n_seeds, n_images), the same seeds for all; 1.0 where right, or what else a
    score gives an image.
    is_accuracy: the values lie in [0, 1], and their means are accuracies.
    tie_break: (n_candidates, n_images) of another score, which decides inside the tie set.
    """

    values: Values
    is_accuracy: bool = True
    tie_break: Values | None = None

    @property
    def n_candidates(self) -> int:
        return len(self.values)

    @property
    def n_images(self) -> int:
        return self.values.shape[2]

    @cached_property
    def per_image(self) -> Values:
        """Mean over seeds: (n_candidates, n_images)."""
        return np.asarray(self.values.mean(axis=1))

    @cached_property
    def means(self) -> Values:
        return np.asarray(self.per_image.mean(axis=1))

    @property
    def tie_breaks(self) -> Values:
        """(n_candidates, n_images)"""
        return self.per_image if self.tie_break is None else self.tie_break

    @cached_property
    def tie_break_means(self) -> Values:
        return np.asarray(self.tie_breaks.mean(axis=1))

    @property
    def random(self) -> str:
        """What intervals take as random."""
        return IMAGES if self.values.shape[1] == 1 else IMAGES_AND_SEEDS

    @cached_property
    def scatter(self) -> Scatter:
        return find_scatter(np.asarray(self.values.mean(axis=2)))


@dataclass(frozen=True)
class Judgement:
    """What readings say of their candidates, at one level.

    in_tie_set: which cannot be told from the best, (n_candidates,). Multiple comparisons with the best
    (Hsu 1984): who is behind another by more than the largest difference that chance would give, were
    all others no better, leaves. So the true best stays in at least `level` of samples; held against
    the winner alone it would not, since that is partly the luckiest.
    behind_best: how far the best of all is ahead of each, with the interval that the same comparisons
    give (Edwards and Hsu 1983): its lower end is above zero outside the tie set, and only there. Half
    of the risk lies at each end.
    p_best: share of resamples in which each is the best.
    chosen: the best of the tie set by what breaks ties; of equals the first.
    on_new_images: the mean that is to be expected of the chosen one on images that did not choose
    it; None for a single image.
    """

    in_tie_set: NDArray[np.bool_]
    behind_best: list[Estimate]
    p_best: Values
    chosen: int
    on_new_images: Estimate | None


def judge(
    readings: Readings, level: float = LEVEL, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Judgement:
    """All that readings say together. seed: of the resamples, which decide the last digits."""
    covariance = mean_covariance(readings)
    errors = _resample_errors(readings, covariance, n_resamples, seed)
    critical = _critical_leads(readings, covariance, errors, level)
    least = _least_differences(readings, critical)
    in_tie_set = np.asarray((least <= 0).all(axis=1))
    chosen = _choose(in_tie_set, readings.tie_break_means)
    return Judgement(
        in_tie_set,
        _behind_best(readings, least, in_tie_set),
        _share_best(readings, errors),
        chosen,
        _on_new_images(readings, chosen, covariance, errors, critical, level, seed),
    )


def estimate_each(readings: Readings, level: float = LEVEL) -> list[Estimate]:
    """The mean of each candidate, with an interval for it by itself."""
    return [estimate_mean(readings, values, level) for values in readings.per_image]


def estimate_mean(readings: Readings, values: Values, level: float = LEVEL) -> Estimate:
    """The mean of values (n_images,), which are means over the seeds of the readings."""
    value, tail = float(values.mean()), (1 - level) / 2
    ends = accuracy_ends if readings.is_accuracy else mean_ends
    low, high = ends(values, tail)
    spread = readings.scatter.half_width(level)
    low, high = value - np.hypot(value - low, spread), value + np.hypot(high - value, spread)
    return _estimate(readings, value, low, high)


def _estimate(readings: Readings, value: float, low: float, high: float) -> Estimate:
    if readings.is_accuracy:
        low, high = max(low, 0.0), min(high, 1.0)
    n, random = readings.n_images, readings.random
    return Estimate(float(value), float(low), float(high), n=n, random=random)


def _critical_leads(readings: Readings, covariance: Values, errors: Values, level: float) -> Values:
    """By how many standard errors another must be ahead of each candidate for that to leave the tie
    set: (n_candidates,)."""
    variance = covariance.diagonal()
    gap = variance[:, None] + variance - 2 * covariance + 2 * readings.scatter.own
    np.fill_diagonal(gap, np.inf)
    gap[gap <= 0] = np.inf
    return np.array(
        [
            np.quantile(((errors - own) / np.sqrt(gap[i])[:, None]).max(axis=0), (1 + level) / 2)
            for i, own in enumerate(errors)
        ]
    )


def mean_covariance(readings: Readings) -> Values:
    """Of the means over images: (n_candidates, n_candidates)."""
    n = readings.n_images
    centred = readings.per_image - readings.means[:, None]
    covariance = centred @ centred.T / (max(n - 1, 1) * n)
    unseen = UNSEEN / n**2 if readings.is_accuracy else 1e-12 * covariance.diagonal().max()
    return np.asarray(covariance + unseen * np.eye(len(covariance)))


def root_of(covariance: Values) -> Values:
    """The symmetric root, which draws with that covariance are made from: the same on any machine,
    as the signs of eigenvectors are not."""
    sizes, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(sizes, 0))) @ vectors.T)


def _resample_errors(readings: Readings, covariance: Values, n_resamples: int, seed: int) -> Values:
    """What candidates' means may be off by, drawn for all together: (n_candidates, n_resamples)."""
    generator = np.random.default_rng((seed, 7))
    errors = root_of(covariance) @ generator.standard_normal((len(covariance), n_resamples))
    if not readings.is_accuracy:
        errors *= t_scale(1.0, max(readings.n_images - 1, 1), n_resamples, generator)
    scatter = readings.scatter
    if scatter.own_freedom:
        scale = t_scale(scatter.own, scatter.own_freedom, n_resamples, generator)
        errors += scale * generator.standard_normal(errors.shape)
    return np.asarray(errors)


def _share_best(readings: Readings, errors: Values) -> Values:
    n = readings.n_candidates
    best = (readings.means[:, None] + errors).argmax(axis=0)
    count = np.bincount(best, minlength=n)
    # What gave the same for every image has the same chance; resamples would scatter.
    seen: dict[bytes, int] = {}
    group = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in readings.per_image])
    return np.asarray((np.bincount(group, count) / np.bincount(group))[group] / len(best))


def _least_differences(readings: Readings, critical: Values) -> Values:
    """Least credible lead of candidate j over candidate i, (i, j); 0 on the diagonal.

    critical: (n_candidates,), in standard errors, for each i.
    """
    values, n, z = readings.per_image, readings.n_images, critical[:, None]
    lead = readings.means - readings.means[:, None]
    squares = _squared_differences(values)
    if readings.is_accuracy:
        low = least_difference(n * lead, squares, n, z)
    else:
        variance = np.maximum(squares / n - lead**2, 0) / max(n - 1, 1)
        low = lead - z * np.sqrt(variance)
    low = lead - np.hypot(lead - low, z * np.sqrt(2 * readings.scatter.own))
    np.fill_diagonal(low, 0)
    return np.asarray(low)


def _squared_differences(values: Values) -> Values:
    """Sums over images of the squared differences of all pairs: values (n_candidates, n_images)."""
    products = values @ values.T
    squares = products.diagonal()
    return np.asarray(np.maximum(squares[:, None] + squares - 2 * products, 0))


def _behind_best(
    readings: Readings, least: Values, in_tie_set: NDArray[np.bool_]
) -> list[Estimate]:
    behind = readings.means.max() - readings.means
    low = np.maximum(least.max(axis=1), 0)
    # Only one of the tie set can be the best; were it k, least[k, i] is what bounds i.
    high = np.maximum((-least[in_tie_set]).max(axis=0), 0)
    ends = zip(behind, np.minimum(low, behind), np.maximum(high, behind), strict=True)
    return [_estimate(readings, *each) for each in ends]


def _choose(in_tie_set: NDArray[np.bool_], by: Values) -> int:
    return int(np.where(in_tie_set, by, -np.inf).argmax())


def _on_new_images(
    readings: Readings,
    chosen: int,
    covariance: Values,
    errors: Values,
    critical: Values,
    level: float,
    seed: int,
) -> Estimate | None:
    """The mean of the best of many is partly luck, and on the images that chose it that luck stays.

    The value: chosen on all parts of the images but one, and read on that. Its interval: above, that
    of the chosen one by itself, which luck can only lift; below, the end that holds for all
    candidates at once, so for whichever was chosen.
    """
    n = readings.n_images
    if n < 2:
        return None
    generator = np.random.default_rng((seed, 12))
    read = np.zeros(n)
    for _ in range(N_PARTINGS):
        parts = generator.permutation(n) % N_PARTS
        for part in range(min(n, N_PARTS)):
            out = parts == part
            read[out] += readings.per_image[_choose_on(readings, ~out, critical)][out]
    high = estimate_mean(readings, readings.per_image[chosen], level).high or 0.0
    low = _low_for_all(readings, chosen, covariance, errors, (1 - level) / 2, seed)
    return _estimate(readings, min(max(read.mean() / N_PARTINGS, low), high), low, high)


def _low_for_all(
    readings: Readings, chosen: int, covariance: Values, errors: Values, tail: float, seed: int
) -> float:
    """Lower end for the chosen one, such that no candidate's mean lies below its own in all but
    `tail` of samples."""
    scatter = readings.scatter
    generator = np.random.default_rng((seed, 13))
    n = errors.shape[1]
    shared = t_scale(scatter.shared, scatter.shared_freedom, n, generator)
    shared = shared * generator.standard_normal(n)
    spread = scatter.shared + scatter.own
    variance = covariance.diagonal() + spread
    sizes = np.sqrt(np.where(variance > 0, variance, np.inf))
    z = np.quantile(((errors + shared) / sizes[:, None]).max(axis=0), 1 - tail)
    values, value = readings.per_image[chosen], float(readings.means[chosen])
    ends = accuracy_ends if readings.is_accuracy else mean_ends
    by_images = value - ends(values, float(special.ndtr(-z)))[0]
    return value - float(np.hypot(by_images, z * np.sqrt(spread)))


def _choose_on(readings: Readings, part: NDArray[np.bool_], critical: Values) -> int:
    """As `judge` chooses, from a part of the images (n_images,)."""
    values = readings.per_image[:, part]
    means, n = values.mean(axis=1), values.shape[1]
    variance = _squared_differences(values) / n**2 + 2 * readings.scatter.own
    ahead = means - means[:, None] > critical[:, None] * np.sqrt(variance)
    return _choose(~ahead.any(axis=1), readings.tie_breaks[:, part].mean(axis=1))


def resample_means(readings: Readings, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Values:
    """Means as other images and other seeds might have given them: (n_candidates, n_resamples).

    What a set of seeds adds to all candidates is left out: it changes no order. Draws of other
    readings, of candidates in the same order, err the same way with the same seed.
    """
    errors = _resample_errors(readings, mean_covariance(readings), n_resamples, seed)
    return np.asarray(readings.means[:, None] + errors)


def compare_groups(readings: Readings, n_first: int, one: int, other: int) -> Estimate:
    """How far a candidate of one group is ahead of one of another that was read on the same images.

    The first `n_first` candidates are one group. The interval holds for every pair of both groups at
    once, so also for `one` and `other`, which were chosen because they did well on these images.
    """
    covariance = mean_covariance(readings)
    errors = _resample_errors(readings, covariance, N_RESAMPLES, 0)
    # What one training run adds to each of a pair differs between them.
    variance = covariance.diagonal() + readings.scatter.own
    largest = np.zeros(errors.shape[1])
    for i in range(n_first):
        gap = variance[i] + variance[n_first:] - 2 * covariance[i, n_first:]
        gap[gap <= 0] = np.inf
        lead = np.abs(errors[i] - errors[n_first:]) / np.sqrt(gap)[:, None]
        largest = np.maximum(largest, lead.max(axis=0))
    critical = np.full(len(errors), np.quantile(largest, LEVEL))
    least = _least_differences(readings, critical)
    lead = float(readings.means[one] - readings.means[other])
    low, high = float(least[other, one]), -float(least[one, other])
    return Estimate(lead, low, high, n=readings.n_images, random=readings.random)
