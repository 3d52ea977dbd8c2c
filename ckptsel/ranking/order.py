"""The order of a ranking: who comes first, who is tied, how far the others are behind."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import InputError
from ckptsel.ranking.uncertainty import (
    IMAGES,
    bootstrap_means,
    find_tie_set,
    interval,
    probability_best,
)
from ckptsel.results.estimate import Measured
from ckptsel.results.ranking import EPOCH, Reference, Row, ScoreValue
from ckptsel.results.scores import ScoreResult

GOALS = {"fe": "linear_probe", "ft": EPOCH}
"""What decides each goal. No score foretold fine-tuning better than the epoch: docs/scores.md."""

TIE_BREAK = {"linear_probe": "linear_probe_loglik"}
"""Inside the tie set another score decides, where it is known to tell more."""


def order_rows(
    rows: Sequence[Row],
    results: dict[str, dict[str, ScoreResult]],
    score: str,
    n_resamples: int,
    seed: int,
) -> tuple[list[Row], dict[str, Reference]]:
    """Ranked rows and references from the score results of each scored row (by name).

    Rows without results are copies, which take over what their original has, or failed.
    score: what decides. The epoch says nothing about how sure it is: all are then tied.
    Raises InputError where the deciding score has no held-out values to compare.
    """
    scored = [row for row in rows if row.name in results]
    per_image = _stack(scored, results)
    if score not in (EPOCH, *per_image):
        raise InputError(
            f"score {score} is no mean over held-out images, so it gives no intervals or ties and "
            "cannot decide a ranking."
        )
    resampled = _resample(per_image, n_resamples, seed)
    intervals = _score_values(scored, results, resampled)
    if score == EPOCH:
        verdict = _by_epoch(scored)
    else:
        tie_break = [_tie_break_value(results[row.name], score) for row in scored]
        verdict = _by_score(scored, per_image[score], resampled[score], tie_break, score)
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
            scores=intervals[row.name],
        )
        for i, row in enumerate(scored)
    }
    references = {
        name: Reference(row.name, ranked[row.name].behind_best)
        for name, row in reference_rows(scored).items()
    }
    return arrange([ranked.get(row.name, row) for row in rows]), references


@dataclass(frozen=True)
class _Verdict:
    """What decided, by the place of each row. order: places, the best first."""

    order: list[int]
    ties: list[bool]
    p_best: list[float | None]
    behind: list[Measured | None]


def _by_epoch(scored: Sequence[Row]) -> _Verdict:
    """The last first; nothing says how sure that is."""
    n = len(scored)
    order = sorted(range(n), key=lambda i: -scored[i].order)
    return _Verdict(order, [True] * n, [None] * n, [None] * n)


def _by_score(
    scored: Sequence[Row],
    per_image: NDArray[np.float64],
    resampled: NDArray[np.float64],
    tie_break: Sequence[float],
    score: str,
) -> _Verdict:
    """The tie set first, in it by `tie_break`; then by the score. per_image: (n_rows, n_images);
    resampled: (n_rows, n_resamples)."""
    values, places = per_image.mean(axis=1), range(len(scored))
    ties = find_tie_set(values, resampled).tolist()
    order = sorted(
        places,
        key=lambda i: (not ties[i], -(tie_break[i] if ties[i] else values[i]), scored[i].order),
    )
    n = per_image.shape[1]
    pairs = [[order[0], i] for i in places]
    behind = [compare(values[pair], resampled[pair], score, n=n) for pair in pairs]
    return _Verdict(order, ties, probability_best(resampled).tolist(), [*behind])


def _resample(
    per_image: dict[str, NDArray[np.float64]], n_resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Resampled means by score: one draw of images for all, so that their intervals compare."""
    if not per_image:
        return {}
    means = bootstrap_means(np.concatenate(list(per_image.values())), n_resamples, seed)
    return dict(zip(per_image, np.split(means, len(per_image)), strict=True))


def arrange(rows: Sequence[Row]) -> list[Row]:
    """Rows by rank, copies after the originals whose values they take over, the failed ones last."""
    ranked = {row.name: row for row in rows if row.copy_of is None}
    filled = [_as_copy(row, ranked) if row.copy_of else row for row in rows]
    filled.sort(key=lambda row: (row.rank is None, row.rank or 0, bool(row.copy_of), row.order))
    return filled


def _score_values(
    scored: Sequence[Row],
    results: dict[str, dict[str, ScoreResult]],
    resampled: dict[str, NDArray[np.float64]],
) -> dict[str, dict[str, ScoreValue]]:
    """Every score of every scored row, with its interval where it is a mean over images."""
    values: dict[str, dict[str, ScoreValue]] = {}
    for i, row in enumerate(scored):
        values[row.name] = {}
        for name, result in results[row.name].items():
            low, high, random = None, None, None
            if name in resampled:
                (low, high), random = interval(result.value, resampled[name][i]).bounds, IMAGES
            values[row.name][name] = ScoreValue(
                result.value,
                low,
                high,
                n=result.n_images,
                random=random,
                flags=result.flags,
                details=result.details,
            )
    return values


def _stack(
    scored: Sequence[Row], results: dict[str, dict[str, ScoreResult]]
) -> dict[str, NDArray[np.float64]]:
    """Per-image values (n_checkpoints, n_images) of each score that has them."""
    stacked = {}
    for name in dict.fromkeys(name for row in scored for name in results[row.name]):
        found = [results[row.name].get(name) for row in scored]
        present = [r.per_image for r in found if r is not None and r.per_image is not None]
        if len(present) == len(scored):
            stacked[name] = np.stack(present)
    return stacked


def _tie_break_value(results: dict[str, ScoreResult], score: str) -> float:
    return results[TIE_BREAK[score] if TIE_BREAK.get(score) in results else score].value


def compare(
    values: NDArray[np.float64],
    resampled: NDArray[np.float64],
    by: str,
    step: int | None = None,
    n: int | None = None,
    random: str = IMAGES,
) -> Measured:
    """How far the first is ahead of the second: values (2,) and resampled (2, n_resamples)."""
    low, high = interval(0.0, resampled[0] - resampled[1]).bounds
    value = float(values[0] - values[1])
    return Measured(value, low, high, n=n, random=random, by=by, step=step)


def reference_rows(scored: Sequence[Row]) -> dict[str, Row]:
    """What one would take without a ranking: the last; the best by recorded source accuracy."""
    rows = {"last": max(scored, key=lambda row: row.order)}
    recorded = [row for row in scored if row.source_accuracy is not None]
    if recorded:
        rows["source_accuracy"] = max(
            recorded, key=lambda row: (row.source_accuracy or 0, -row.order)
        )
    return rows


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
