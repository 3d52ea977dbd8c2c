"""A ranking beside a stored one of the same target: is its best still as good?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import InputError
from ckptsel.gating.gate import best_accuracy
from ckptsel.ranking.order import compare
from ckptsel.ranking.uncertainty import IMAGES, bootstrap_means
from ckptsel.results.estimate import Measured
from ckptsel.results.files import read_ranking
from ckptsel.results.ranking import Ranking

Arrays = Mapping[str, NDArray[Any]]


def compare_with_stored(ranking: Ranking, arrays: Arrays, stored: Path) -> Measured | None:
    """How far the best of a ranking is ahead of the best of a stored one; null where one of them
    measured no accuracy.

    stored: a `ranking.json`, or the folder that holds it. Where the held-out predictions of both are
    there, and of the same images, the comparison is paired; else both intervals count as independent,
    which is wider.
    Raises InputError for a baseline that measured something else.
    """
    other, other_arrays = read_ranking(stored)
    _check_comparable(ranking, other, stored)
    mine, theirs = best_accuracy(ranking), best_accuracy(other)
    if mine is None or theirs is None:
        return None
    if mine.by != theirs.by:
        raise InputError(
            f"the best of {stored} was measured by {theirs.by}, that of this ranking by {mine.by}: "
            "make the baseline in the same way."
        )
    if ranking[ranking.best].digest == other[other.best].digest:
        return Measured(0.0, 0.0, 0.0, by="the same weights")
    pair = [_per_image(ranking, arrays, mine), _per_image(other, other_arrays, theirs)]
    there = [values for values in pair if values is not None]
    same_images = np.array_equal(arrays.get("evaluated", []), other_arrays.get("evaluated", []))
    if len(there) < 2 or not same_images:
        return _unpaired(mine, theirs)
    values = np.stack(there)
    settings = ranking.settings
    resampled = bootstrap_means(values, settings["n_resamples"], settings["seed"])
    by = f"{mine.by} on the same images"
    return compare(values.mean(1), resampled, by, n=values.shape[1])


def _check_comparable(ranking: Ranking, other: Ranking, stored: Path) -> None:
    for what, here, there in (
        ("goal", ranking.goal, other.goal),
        ("target", _target(ranking), _target(other)),
        ("evaluation", ranking.target["evaluation"], other.target["evaluation"]),
    ):
        if here != there:
            raise InputError(
                f"{stored} is no baseline for this ranking: its {what} is {there}, here it is {here}. "
                "Rank the baseline's checkpoints again on this target, and store that."
            )


def _target(ranking: Ranking) -> str:
    """The images by their fingerprint: the same images may lie elsewhere."""
    return (
        f"{ranking.target['n_classes']} classes, fingerprint {ranking.target['fingerprint'][:12]}"
    )


def _per_image(ranking: Ranking, arrays: Arrays, measured: Measured) -> NDArray[Any] | None:
    return arrays.get(f"{ranking.best}/{measured.by}/per_image")


def _unpaired(mine: Measured, theirs: Measured) -> Measured:
    value = mine.value - theirs.value
    (low, high), (other_low, other_high) = mine.bounds, theirs.bounds
    below = np.hypot(mine.value - low, other_high - theirs.value)
    above = np.hypot(high - mine.value, theirs.value - other_low)
    by = f"{mine.by}, not on the same images one by one"
    return Measured(value, value - float(below), value + float(above), random=IMAGES, by=by)
