"""The order of a ranking: who comes first, who is tied, how far the others are behind."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ckptsel.features.encoder import LAST
from ckptsel.features.layers import AUTO
from ckptsel.ranking.judgement import Readings, estimate_each, judge
from ckptsel.results.about import Details
from ckptsel.results.estimate import Estimate, Measured, measured
from ckptsel.results.ranking import ACCURACY, EPOCH, Reference, Row, ScoreValue
from ckptsel.results.scores import ScoreResult
from ckptsel.settings.rank import RankSettings

GOALS = {"fe": "linear_probe", "ft": EPOCH}
"""What decides each goal. No score foretold fine-tuning better than the epoch: docs/scores.md."""

TIE_BREAK = {"linear_probe": "linear_probe_loglik"}
"""Inside the tie set another score decides, where it is known to tell more."""

ACROSS_LAYERS = "ridge_probe"
"""What several layers are compared by. They are up to a dozen times as wide as the last, and each is one
more candidate: `linear_probe` would take thirty times as long, and tells no better which to take
(docs/layers.md)."""


def reads_several(settings: RankSettings) -> bool:
    """Whether several layers are to be compared."""
    return len(set(settings.layers)) > 1 or AUTO in settings.layers


def deciding_score(settings: RankSettings) -> str:
    """The name of the score that decides, or EPOCH."""
    by_goal = GOALS[settings.goal]
    if by_goal != EPOCH and reads_several(settings):
        by_goal = ACROSS_LAYERS
    return settings.by or by_goal


def scores_at(layer: str, scores: Sequence[str], settings: RankSettings) -> tuple[str, ...]:
    """Which of `scores` are computed at a layer. Where several are compared and none is named, that
    is all at the last layer, and elsewhere what compares and what decides."""
    if layer == LAST or settings.scores is not None or not reads_several(settings):
        return tuple(scores)
    deciding = deciding_score(settings)
    wanted = {ACROSS_LAYERS, deciding, TIE_BREAK.get(deciding)}
    return tuple(name for name in scores if name in wanted)


@dataclass(frozen=True)
class Ordered:
    """rows: by rank. references: by name. expected: accuracy of the best on images that did not
    choose it; None where nothing measured it."""

    rows: list[Row]
    references: dict[str, Reference]
    expected: Measured | None


def order_rows(
    rows: Sequence[Row],
    results: dict[str, dict[str, ScoreResult]],
    units: Mapping[str, str],
    score: str,
    n_resamples: int,
    seed: int,
    lower_is_better: Collection[str] = (),
) -> Ordered:
    """Rows in their order, from the score results of each scored row (by name).

    Rows without results are copies, which take over what their original has, or failed.
    units: of each score. score: what decides, EPOCH or a score that every scored row has.
    lower_is_better: the scores of which that is so. Neither the epoch nor a score without held-out
    values says how sure it is: by the epoch all are then tied, by a score the first with nobody.
    """
    scored = [row for row in rows if row.name in results]
    readings = _readings_of(score, scored, results, units)
    is_lower = score in lower_is_better
    if score == EPOCH:
        verdict = _unsure([-row.order for row in scored], all_tied=True)
    elif readings is None:
        sign = 1 if is_lower else -1
        verdict = _unsure([sign * results[row.name][score].value for row in scored])
    else:
        verdict = _by_score(scored, readings, score, n_resamples, seed, is_lower)
    ranks = {scored[i].name: place for place, i in enumerate(verdict.order, start=1)}
    ranked = {
        row.name: dataclasses.replace(
            row,
            rank=ranks[row.name],
            in_tie_set=verdict.ties[i],
            p_best=verdict.p_best[i],
            score_rank=ranks[row.name],
            score_tie=verdict.ties[i],
            behind_best=verdict.behind[i],
            scores=_score_values(results[row.name], units),
        )
        for i, row in enumerate(scored)
    }
    placed = [ranked[row.name] for row in scored]
    known = {**reference_rows(scored), **layer_references(placed), **average_references(placed)}
    references = {
        name: Reference(row.name, ranked[row.name].behind_best) for name, row in known.items()
    }
    in_order = arrange([ranked.get(row.name, row) for row in rows])
    return Ordered(in_order, references, verdict.expected)


@dataclass(frozen=True)
class _Verdict:
    """What decided, by the place of each row. order: places, the best first."""

    order: list[int]
    ties: list[bool]
    p_best: list[float | None]
    behind: list[Measured | None]
    expected: Measured | None = None


def _unsure(keys: Sequence[float], all_tied: bool = False) -> _Verdict:
    """The lowest key first, of equals the first in training; nothing says how sure that is."""
    n = len(keys)
    order = sorted(range(n), key=lambda i: keys[i])
    ties = [all_tied or i == order[0] for i in range(n)]
    return _Verdict(order, ties, [None] * n, [None] * n)


def _by_score(
    scored: Sequence[Row],
    readings: Readings,
    score: str,
    n_resamples: int,
    seed: int,
    is_lower: bool,
) -> _Verdict:
    """The tie set first, in it by what breaks ties; then by the score."""
    if is_lower:
        readings = dataclasses.replace(readings, values=-readings.values, is_accuracy=False)
    judged = judge(readings, n_resamples=n_resamples, seed=seed)
    by, values, ties = readings.tie_break_means, readings.means, judged.in_tie_set
    order = sorted(
        range(len(scored)),
        key=lambda i: (not ties[i], -(by[i] if ties[i] else values[i]), scored[i].order),
    )
    expected = judged.on_new_images
    if expected is not None and is_lower:
        expected = _negated(expected)
    return _Verdict(
        order,
        ties.tolist(),
        judged.p_best.tolist(),
        [measured(behind, score) for behind in judged.behind_best],
        None if expected is None else measured(expected, score),
    )


def _negated(estimate: Estimate) -> Estimate:
    low, high = estimate.bounds
    return dataclasses.replace(estimate, value=-estimate.value, low=-high, high=-low)


def _readings_of(
    score: str,
    scored: Sequence[Row],
    results: dict[str, dict[str, ScoreResult]],
    units: Mapping[str, str],
) -> Readings | None:
    """What decides, as a mean over images; None where not every row has it so."""
    values = _stacked(score, scored, results)
    if values is None:
        return None
    tie_break = _stacked(TIE_BREAK.get(score, ""), scored, results)
    return Readings(values[:, None], units.get(score) == ACCURACY, tie_break)


def _stacked(
    score: str, scored: Sequence[Row], results: dict[str, dict[str, ScoreResult]]
) -> NDArray[np.float64] | None:
    """(n_rows, n_eval)"""
    found = [results[row.name].get(score) for row in scored]
    values = [r.per_image for r in found if r is not None and r.per_image is not None]
    return np.stack(values) if values and len(values) == len(scored) else None


def _score_values(
    results: Mapping[str, ScoreResult], units: Mapping[str, str]
) -> dict[str, ScoreValue]:
    """The scores of one row, each with its interval where it is a mean over images."""
    values = {}
    for name, result in results.items():
        estimate = _estimated(result, is_accuracy=units.get(name) == ACCURACY)
        about = {**vars(estimate), "value": result.value}
        details = cast(Details, result.details)
        values[name] = ScoreValue(**about, flags=result.flags, details=details)
    return values


def _estimated(result: ScoreResult, is_accuracy: bool) -> Estimate:
    if result.per_image is None:
        return Estimate(result.value, n=result.n_images)
    return estimate_each(Readings(result.per_image[None, None], is_accuracy))[0]


def arrange(rows: Sequence[Row]) -> list[Row]:
    """Rows by rank, copies after the originals whose values they take over, the failed ones last."""
    ranked = {row.name: row for row in rows if row.copy_of is None}
    filled = [_as_copy(row, ranked) if row.copy_of else row for row in rows]
    filled.sort(key=lambda row: (row.rank is None, row.rank or 0, bool(row.copy_of), row.order))
    return filled


def reference_rows(scored: Sequence[Row]) -> dict[str, Row]:
    """What one would take without a ranking, at the last layer where it was read: the last; the best
    by recorded source accuracy. No averages, unless all else failed."""
    files = [row for row in scored if not row.average_of] or scored
    at_last_layer = [row for row in files if row.layer == LAST] or files
    rows = {"last": max(at_last_layer, key=lambda row: row.order)}
    recorded = [row for row in at_last_layer if row.source_accuracy is not None]
    if recorded:
        rows["source_accuracy"] = max(
            recorded, key=lambda row: (row.source_accuracy or 0, -row.order)
        )
    return rows


def layer_references(ranked: Sequence[Row]) -> dict[str, Row]:
    """Where several layers were read: the best at the last of them; and the best at any layer of the
    last checkpoint and of the best one by source accuracy, so that the layer is not charged to them."""
    if len({row.layer for row in ranked}) < 2:
        return {}
    groups = {"last_layer": [row for row in ranked if row.layer == LAST]}
    names = {"last": "last_checkpoint", "source_accuracy": "source_accuracy"}
    for known, row in reference_rows(ranked).items():
        groups[names[known]] = [other for other in ranked if other.checkpoint == row.checkpoint]
    return {name: min(rows, key=lambda row: row.rank or 0) for name, rows in groups.items() if rows}


def average_references(ranked: Sequence[Row]) -> dict[str, Row]:
    """Where averages were ranked: the best of checkpoints and of averages."""
    groups = {
        "checkpoint": [row for row in ranked if not row.average_of],
        "average": [row for row in ranked if row.average_of],
    }
    if not all(groups.values()):
        return {}
    return {name: min(rows, key=lambda row: row.rank or 0) for name, rows in groups.items()}


def _as_copy(row: Row, ranked: dict[str, Row]) -> Row:
    original = ranked.get(row.copy_of or "")
    if original is None:
        return row
    return dataclasses.replace(
        row,
        rank=original.rank,
        in_tie_set=original.in_tie_set,
        p_best=original.p_best,
        score_rank=original.score_rank,
        score_tie=original.score_tie,
        behind_best=original.behind_best,
        scores=original.scores,
        confirmed=original.confirmed,
    )
