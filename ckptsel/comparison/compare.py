"""Two rankings side by side: what moved, and whether by more than chance."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptsel.comparison.changes import Changes, changes_of, changes_of_estimates
from ckptsel.comparison.kept import Arrays, Kept, kept_values
from ckptsel.comparison.matching import Matched, Pair, match
from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.errors import InputError
from ckptsel.ranking.judgement import Readings
from ckptsel.report.command import OF_THE_MACHINE
from ckptsel.results.confirmation import CONFIRMED, Agreement
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import Ranking, Row

PAIRED, INDEPENDENT = "paired", "independent"


@dataclass(frozen=True)
class Measure:
    """What both rankings measured, and is compared.

    by: a score, or `confirmed`. step: of that training. is_accuracy: its values are fractions of images.
    unit: of other values.
    """

    by: str
    step: int | None = None
    is_accuracy: bool = True
    unit: str = ""


@dataclass(frozen=True)
class Move:
    """One candidate in both rankings.

    value, other_value: in the first and in the second; null where it has none.
    change: from the first to the second. beside_others: of that what is left less the mean change of
    all. Both null where not known.
    """

    pair: Pair
    value: Estimate | None = None
    other_value: Estimate | None = None
    change: Estimate | None = None
    beside_others: Estimate | None = None

    @property
    def moved(self) -> str:
        """`up`, `down`, or empty: not by more than chance. Beside the others, where that is known."""
        return beyond_chance(self.beside_others or self.change)


@dataclass(frozen=True)
class Comparison:
    """Two rankings side by side.

    how: `paired` (differences image by image), `independent`; null where no change is known.
    matched: candidates of both. moves: one a pair, by the rank in the first. order: agreement of the
    compared values along the trajectory; null where there are too few, or they do not vary.
    differs: (what, in the first, in the second) of everything in which the rankings were made otherwise.
    """

    first: Ranking
    second: Ranking
    measure: Measure | None
    how: str | None
    matched: Matched
    moves: tuple[Move, ...]
    order: Agreement | None
    differs: tuple[tuple[str, str, str], ...]


def beyond_chance(change: Estimate | None) -> str:
    """`up` or `down` where the interval of a change leaves out zero, else ``."""
    if change is None:
        return ""
    low, high = change.bounds
    return "up" if low > 0 else "down" if high < 0 else ""


def compare(first: Ranking, arrays: Arrays, second: Ranking, other_arrays: Arrays) -> Comparison:
    """Set the second ranking beside the first. arrays: what lies beside each; empty where only the JSON
    was kept.

    Raises InputError where no checkpoint is in both.
    """
    matched = match(first, second)
    if not matched.pairs:
        raise InputError(
            f"the rankings have no checkpoint in common, by digest or by name: the first has "
            f"{first.best!r}, the second {second.best!r}. Compare rankings of the same run."
        )
    measure = _measure_of(first, second)
    moves = [Move(pair) for pair in matched.pairs]
    how = None
    if measure is not None:
        moves = [_with_values(move, first, second, measure) for move in moves]
        kept = [
            kept_values(ranking, of, measure.by, measure.step)
            for ranking, of in ((first, arrays), (second, other_arrays))
        ]
        moves, how = _with_changes(moves, kept[0], kept[1], measure)
    return Comparison(
        first,
        second,
        measure,
        how,
        matched,
        tuple(moves),
        _order(first, moves),
        _differs(first, second),
    )


def _measure_of(first: Ranking, second: Ranking) -> Measure | None:
    """What decided both, else what decided one and both have, else the first score of both."""
    step, other_step = _confirmed_step(first), _confirmed_step(second)
    if step is not None and step == other_step and first.goal == second.goal:
        return Measure(CONFIRMED, step)
    scores = dict.fromkeys(name for row in first for name in row.scores)
    both = [name for name in scores if any(name in row.scores for row in second)]
    by = next((name for name in (first.score, second.score, *both) if name in both), None)
    if by is None:
        return None
    return Measure(by, None, first.is_accuracy(by), first.units.get(by, ""))


def _confirmed_step(ranking: Ranking) -> int | None:
    """The step that decided, where real training did."""
    standing = (ranking[ranking.best].confirmed or {}).get(ranking.goal)
    return None if standing is None else standing.step


def _with_values(move: Move, first: Ranking, second: Ranking, measure: Measure) -> Move:
    return dataclasses.replace(
        move,
        value=_value(move.pair.first, first.goal, measure),
        other_value=_value(move.pair.second, second.goal, measure),
    )


def _value(row: Row, goal: str, measure: Measure) -> Estimate | None:
    if measure.by != CONFIRMED:
        return row.scores.get(measure.by)
    standing = (row.confirmed or {}).get(goal)
    return None if standing is None or standing.step != measure.step else standing.accuracy


def _with_changes(
    moves: Sequence[Move], first: Kept | None, second: Kept | None, measure: Measure
) -> tuple[list[Move], str | None]:
    """The moves with their changes, and how these were found."""
    if first is not None and second is not None:
        in_both = [m for m in moves if _is_kept(m.pair, first, second)]
        paired = first.images == second.images
        if in_both:
            changes = _changes(in_both, first, second, measure, paired)
            known = zip(changes.of_value, changes.beside_others, strict=True)
            return _put(moves, in_both, list(known)), PAIRED if paired else INDEPENDENT
    with_interval = [m for m in moves if _has_interval(m.value) and _has_interval(m.other_value)]
    if not with_interval:
        return list(moves), None
    values = [(m.value, m.other_value) for m in with_interval if m.value and m.other_value]
    alone = changes_of_estimates([a for a, _ in values], [b for _, b in values])
    return _put(moves, with_interval, [(change, None) for change in alone]), INDEPENDENT


def _is_kept(pair: Pair, first: Kept, second: Kept) -> bool:
    return pair.first.name in first.values and pair.second.name in second.values


def _has_interval(value: Estimate | None) -> bool:
    return value is not None and value.low is not None and value.high is not None


def _changes(
    moves: Sequence[Move], first: Kept, second: Kept, measure: Measure, paired: bool
) -> Changes:
    one = np.stack([first.values[m.pair.first.name] for m in moves])
    two = np.stack([second.values[m.pair.second.name] for m in moves])
    return changes_of(
        Readings(one, measure.is_accuracy), Readings(two, measure.is_accuracy), paired
    )


def _put(
    moves: Sequence[Move],
    of: Sequence[Move],
    changes: Sequence[tuple[Estimate, Estimate | None]],
) -> list[Move]:
    known = {m.pair.first.name: change for m, change in zip(of, changes, strict=True)}
    nothing = (None, None)
    return [
        dataclasses.replace(m, change=change, beside_others=beside)
        for m in moves
        for change, beside in (known.get(m.pair.first.name, nothing),)
    ]


def _order(first: Ranking, moves: Sequence[Move]) -> Agreement | None:
    """How far the values agree, each checkpoint at the layer where it is best in the first; averages,
    which share their weights, are left out."""
    best = {row.name for row in first.at_best_layer() if not row.average_of}
    pairs = sorted(
        (m.pair.first.order, m.value.value, m.other_value.value)
        for m in moves
        if m.pair.first.name in best and m.value is not None and m.other_value is not None
    )
    series = np.array([pair[1:] for pair in pairs]).T
    if not pairs:
        return None
    agreement = measure_agreement({"first": series[0]}, series[1]).get("first")
    return None if agreement is None or agreement.kendall_tau is None else agreement


def _differs(first: Ranking, second: Ranking) -> tuple[tuple[str, str, str], ...]:
    one, two = _made_how(first), _made_how(second)
    return tuple(
        (what, _said(one[what]), _said(two[what]))
        for what in one
        if what in two and _said(one[what]) != _said(two[what])
    )


def _made_how(ranking: Ranking) -> dict[str, Any]:
    """All that can change numbers, as far as the file of its version says it."""
    target, evaluation = ranking.target, ranking.target["evaluation"]
    how: dict[str, Any] = {
        "ckptsel": ranking.version,
        "goal": ranking.goal,
        "decided by": CONFIRMED if ranking.goal in ranking.confirmation else ranking.score,
        "images": target["fingerprint"][:12],
        "data": target["data"],
        "evaluation": evaluation["method"],
        "fitted images": evaluation["n_train"],
        "held-out images": evaluation["n_eval"],
        "network": ranking.model["name"],
    }
    if ranking.goal in ranking.confirmation:
        confirmation = ranking.confirmation[ranking.goal]
        how |= {"training seeds": confirmation.n_seeds, "learning rate": confirmation.lr}
    left_out = {*OF_THE_MACHINE, "checkpoints", "model", "goal", "by"}
    return how | {name: v for name, v in ranking.settings.items() if name not in left_out}


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
