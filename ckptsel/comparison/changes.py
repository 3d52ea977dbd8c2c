"""What changed between two readings of the same candidates, and whether by more than chance.

    changes of all means, their joint error -> one critical value for all -> an interval for each

All changes are looked at, and those that stand out are spoken of: so the intervals hold for all of them
at once. Beside the change itself stands what is left of it less the mean change of all: another target
is easier or harder for every candidate, and that says nothing about their order.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from ckptsel.ranking.intervals import (
    LEVEL,
    Values,
    accuracy_ends,
    least_difference,
    mean_ends,
)
from ckptsel.ranking.judgement import (
    N_RESAMPLES,
    UNSEEN,
    Readings,
    mean_covariance,
    root_of,
)
from ckptsel.ranking.scatter import t_scale
from ckptsel.results.estimate import IMAGES, Estimate


@dataclass(frozen=True)
class Changes:
    """From the first reading to the second, by candidate: of the value, and of the value less the mean
    change of all; None for a candidate that is the only one."""

    of_value: list[Estimate]
    beside_others: list[Estimate | None]


def changes_of(first: Readings, second: Readings, paired: bool) -> Changes:
    """The changes of candidates that both read, in the same order.

    paired: both hold the same images, in the same order. Training seeds never count as the same.
    """
    covariance = _covariance(first, second, paired)
    generator = np.random.default_rng((0, 21))
    errors = _draw(covariance, first, second, generator)
    own = first.scatter.own + second.scatter.own
    shared = first.scatter.shared + second.scatter.shared
    variance = covariance.diagonal() + own + shared
    z = _critical(errors, variance)
    change = second.means - first.means
    ends = _paired_ends if paired else _independent_ends
    low, high = ends(first, second, z)
    spread = z * np.sqrt(own + shared)
    low, high = change - np.hypot(change - low, spread), change + np.hypot(high - change, spread)
    return Changes(
        _estimates(first, change, low, high), _beside_others(first, change, covariance, own, errors)
    )


def changes_of_estimates(first: list[Estimate], second: list[Estimate]) -> list[Estimate]:
    """The changes where only an interval of each is known: as of independent images, all at once."""
    n = max(len(first), 1)
    at_once = special.ndtri((1 + LEVEL ** (1 / n)) / 2) / special.ndtri((1 + LEVEL) / 2)
    return [
        independent_difference(one, two, float(at_once))
        for one, two in zip(first, second, strict=True)
    ]


def independent_difference(first: Estimate, second: Estimate, widened: float = 1.0) -> Estimate:
    """How far the second is above the first, where nothing is known of what they have in common.

    widened: by how much each interval is made wider.
    """
    value = second.value - first.value
    (low, high), (other_low, other_high) = first.bounds, second.bounds
    below = widened * np.hypot(second.value - other_low, high - first.value)
    above = widened * np.hypot(other_high - second.value, first.value - low)
    return Estimate(value, value - float(below), value + float(above), random=IMAGES)


def _covariance(first: Readings, second: Readings, paired: bool) -> Values:
    """Of the mean changes, over images: (n_candidates, n_candidates)."""
    if not paired:
        return mean_covariance(first) + mean_covariance(second)
    changes, n = second.per_image - first.per_image, first.n_images
    centred = changes - changes.mean(axis=1, keepdims=True)
    unseen = UNSEEN / n**2 if first.is_accuracy else 1e-12
    return np.asarray(centred @ centred.T / (max(n - 1, 1) * n) + unseen * np.eye(len(changes)))


def _draw(
    covariance: Values, first: Readings, second: Readings, generator: np.random.Generator
) -> Values:
    """What the changes may be off by, drawn for all together: (n_candidates, N_RESAMPLES)."""
    n_changes = len(covariance)
    errors = root_of(covariance) @ generator.standard_normal((n_changes, N_RESAMPLES))
    for scatter in (first.scatter, second.scatter):
        for variance, freedom, n in (
            (scatter.own, scatter.own_freedom, n_changes),
            (scatter.shared, scatter.shared_freedom, 1),
        ):
            if freedom:
                scale = t_scale(variance, freedom, N_RESAMPLES, generator)
                errors = errors + scale * generator.standard_normal((n, N_RESAMPLES))
    return np.asarray(errors)


def _critical(errors: Values, variance: Values) -> float:
    """So many standard errors no change is off by in LEVEL of samples."""
    sizes = np.sqrt(np.where(variance > 0, variance, np.inf))
    return float(np.quantile(np.abs(errors / sizes[:, None]).max(axis=0), LEVEL))


def _paired_ends(first: Readings, second: Readings, z: float) -> tuple[Values, Values]:
    changes, n = second.per_image - first.per_image, first.n_images
    change, squares = changes.mean(axis=1), (changes**2).sum(axis=1)
    if first.is_accuracy:
        at = np.array(z)
        low = least_difference(n * change, squares, n, at)
        return low, -least_difference(-n * change, squares, n, at)
    half = z * np.sqrt(np.maximum(squares / n - change**2, 0) / max(n - 1, 1))
    return change - half, change + half


def _independent_ends(first: Readings, second: Readings, z: float) -> tuple[Values, Values]:
    tail = float(special.ndtr(-z))
    ends = accuracy_ends if first.is_accuracy else mean_ends
    one, two = (np.array([ends(v, tail) for v in r.per_image]).T for r in (first, second))
    change = second.means - first.means
    low = change - np.hypot(second.means - two[0], one[1] - first.means)
    return low, change + np.hypot(two[1] - second.means, first.means - one[0])


def _beside_others(
    first: Readings, change: Values, covariance: Values, own: float, errors: Values
) -> list[Estimate | None]:
    n = len(change)
    if n < 2:
        return [None] * n
    centring = np.eye(n) - 1 / n
    variance = (centring @ (covariance + own * np.eye(n)) @ centring).diagonal()
    half = _critical(centring @ errors, variance) * np.sqrt(variance)
    beside = centring @ change
    return [*_estimates(first, beside, beside - half, beside + half)]


def _estimates(readings: Readings, values: Values, low: Values, high: Values) -> list[Estimate]:
    n, random = readings.n_images, readings.random
    return [
        Estimate(float(value), float(below), float(above), n=n, random=random)
        for value, below, above in zip(values, low, high, strict=True)
    ]
