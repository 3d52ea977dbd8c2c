"""A ranking beside a stored one of the same target: is its best still as good?"""

from pathlib import Path
from typing import Any

import numpy as np

from ckptsel.comparison.changes import independent_difference
from ckptsel.comparison.kept import Arrays, Kept, kept_values
from ckptsel.errors import InputError
from ckptsel.gating.gate import best_accuracy
from ckptsel.ranking.judgement import Readings, compare_groups
from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import Measured, measured
from ckptsel.results.files import read_ranking
from ckptsel.results.ranking import Ranking, Row


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
    if _read_alike(ranking, best) == _read_alike(other, best_of_other):
        return Measured(0.0, 0.0, 0.0, by="the same weights")
    first = kept_values(ranking, arrays, mine.by, mine.step)
    second = kept_values(other, other_arrays, theirs.by, theirs.step)
    if first is None or second is None or not _are_paired(first, ranking.best, second, other.best):
        by = f"{mine.by}, not on the same images one by one"
        return measured(independent_difference(theirs, mine), by)
    values = np.stack([*first.values.values(), *second.values.values()])
    one = list(first.values).index(ranking.best)
    two = len(first.values) + list(second.values).index(other.best)
    ahead = compare_groups(Readings(values), len(first.values), one, two)
    return measured(ahead, f"{mine.by} on the same images", mine.step)


def _read_alike(ranking: Ranking, row: Row) -> tuple[object, ...]:
    """What gives the same features of the same images."""
    about = (ranking.model["preprocessing"], ranking.model.get("layer"))
    return (row.digest, row.weights_key, row.layer, row.stage_scales, *about)


def _are_paired(first: Kept, best: str, second: Kept, best_of_other: str) -> bool:
    """Whether both bests were read on the same images, with as many seeds."""
    if best not in first.values or best_of_other not in second.values:
        return False
    return first.images == second.images and first.n_seeds(best) == second.n_seeds(best_of_other)


def _check_comparable(
    ranking: Ranking, other: Ranking, mine: Measured | None, theirs: Measured | None, stored: Path
) -> None:
    here, there = _measured_how(ranking, mine), _measured_how(other, theirs)
    for what, value in here.items():
        if value != there.get(what):
            theirs_only, ours_only = _differing(there.get(what), value)
            raise InputError(
                f"{stored} is no baseline for this ranking: its {what} is {theirs_only}, here it is "
                f"{ours_only}. Rank the baseline's checkpoints again in the same way, and store that."
            )


def _differing(one: Any, other: Any) -> tuple[Any, Any]:
    """Two values, of dictionaries what differs in them."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return {key: one.get(key) for key in keys}, {key: other.get(key) for key in keys}


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
