"""A ranking beside a stored one of the same target: is its best still as good?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import InputError
from ckptsel.gating.gate import best_accuracy
from ckptsel.ranking.intervals import IMAGES
from ckptsel.ranking.judgement import Readings, compare_groups
from ckptsel.ranking.order import measured
from ckptsel.results.confirmation import CONFIRMED
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
    mine, theirs = best_accuracy(ranking), best_accuracy(other)
    _check_comparable(ranking, other, mine, theirs, stored)
    if mine is None or theirs is None:
        return None
    best, best_of_other = ranking[ranking.best], other[other.best]
    if (best.digest, best.layer) == (best_of_other.digest, best_of_other.layer):
        return Measured(0.0, 0.0, 0.0, by="the same weights")
    first = _readings(ranking, arrays, mine)
    second = _readings(other, other_arrays, theirs)
    if first is None or second is None or first.shown != second.shown:
        return _unpaired(mine, theirs)
    values = np.stack([*first.values.values(), *second.values.values()])
    one = list(first.values).index(ranking.best)
    two = len(first.values) + list(second.values).index(other.best)
    ahead = compare_groups(Readings(values), len(first.values), one, two)
    return measured(ahead, f"{mine.by} on the same images", mine.step)


@dataclass(frozen=True)
class _Kept:
    """What the candidates of a ranking gave on the held-out images.

    values: 1.0 where right (n_seeds, n_images), by candidate. shown: says which images and seeds.
    """

    values: dict[str, NDArray[np.float64]]
    shown: tuple[bytes, int]


def _readings(ranking: Ranking, arrays: Arrays, best: Measured) -> _Kept | None:
    """What decided, of all that ended beside the best; None where it was not kept."""
    if best.by == CONFIRMED:
        first = f"confirmed/{ranking.goal}"
        images = arrays.get(f"{first}/labels")
        keys = {row.name: f"{first}/{row.name}/{best.step}" for row in ranking}
        kept = {name: arrays[key] == images for name, key in keys.items() if key in arrays}
    else:
        images = arrays.get("evaluated")
        keys = {row.name: f"{row.name}/{best.by}/per_image" for row in ranking}
        kept = {name: arrays[key][None] for name, key in keys.items() if key in arrays}
    if images is None or ranking.best not in kept:
        return None
    values = {name: value.astype(np.float64) for name, value in kept.items()}
    return _Kept(values, (images.tobytes(), len(values[ranking.best])))


def _check_comparable(
    ranking: Ranking, other: Ranking, mine: Measured | None, theirs: Measured | None, stored: Path
) -> None:
    here, there = _measured_how(ranking, mine), _measured_how(other, theirs)
    for what, value in here.items():
        if value != there.get(what):
            raise InputError(
                f"{stored} is no baseline for this ranking: its {what} is {there.get(what)}, here it is "
                f"{value}. Rank the baseline's checkpoints again in the same way, and store that."
            )


def _measured_how(ranking: Ranking, best: Measured | None) -> dict[str, Any]:
    """What must be the same for two accuracies to be compared."""
    how: dict[str, Any] = {
        "goal": ranking.goal,
        "target": _target(ranking),
        "evaluation": ranking.target["evaluation"],
    }
    if best is not None:
        how["measure"] = best.by
    if best is not None and best.by == CONFIRMED:
        confirmation = ranking.confirmation[ranking.goal]
        how["training"] = {**confirmation.protocol, "lrs": None}
        how["seeds"] = confirmation.n_seeds
    else:
        how["probe"] = ranking.settings.get("probe")
    return how


def _target(ranking: Ranking) -> str:
    """The images by their fingerprint: the same images may lie elsewhere."""
    return (
        f"{ranking.target['n_classes']} classes, fingerprint {ranking.target['fingerprint'][:12]}"
    )


def _unpaired(mine: Measured, theirs: Measured) -> Measured:
    value = mine.value - theirs.value
    (low, high), (other_low, other_high) = mine.bounds, theirs.bounds
    below = np.hypot(mine.value - low, other_high - theirs.value)
    above = np.hypot(high - mine.value, theirs.value - other_low)
    by = f"{mine.by}, not on the same images one by one"
    return Measured(value, value - float(below), value + float(above), random=IMAGES, by=by)
