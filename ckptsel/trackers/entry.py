"""What a tracker is told of a ranking: plain data, the same for every tracker.

Names begin with `ckptsel/`, and the points have a step axis of their own, so that they can stand in the
run of the pre-training that they are about.
"""

from dataclasses import dataclass
from pathlib import Path

from ckptsel.report.series import choose_axis, scored_rows
from ckptsel.results.estimate import Estimate
from ckptsel.results.files import CONFIRMATION_NAME, PAGE_NAME, RANKING_NAME, TABLE_NAME
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.summary import summary

PREFIX = "ckptsel"

FILES = (PAGE_NAME, RANKING_NAME, TABLE_NAME, CONFIRMATION_NAME)


@dataclass(frozen=True)
class Entry:
    """One ranking.

    axis: name of the step axis: `epoch`, `step`, or `order` of training where the files record
    neither as whole numbers.
    points: (step, {metric: value}) in the order of training; accuracies are fractions. The ends of an
    interval are metrics of their own, `_low` and `_high`.
    best: name of the recommended checkpoint; null where none is.
    facts: what else is worth a tag, as text.
    sentence: what the ranking says.
    files: the report, and the results as files.
    """

    axis: str
    points: tuple[tuple[int, dict[str, float]], ...]
    best: str | None
    facts: dict[str, str]
    sentence: str
    files: tuple[Path, ...]


def entry_of(ranking: Ranking, folder: Path) -> Entry:
    """What is told of the ranking that lies in a folder."""
    rows, axis = scored_rows(ranking), choose_axis(ranking).name
    steps = [getattr(row, axis) for row in rows]
    if not all(float(step).is_integer() for step in steps):
        axis, steps = "order", [row.order for row in rows]
    points = tuple((int(step), _metrics(row)) for step, row in zip(steps, rows, strict=True))
    return Entry(
        f"{PREFIX}/{axis}",
        points,
        ranking.best if ranking.recommended else None,
        _facts(ranking),
        summary(ranking),
        tuple(path for path in (folder / name for name in FILES) if path.is_file()),
    )


def _metrics(row: Row) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, score in row.scores.items():
        metrics |= _with_ends(name, score)
    for goal in row.confirmed or {}:
        if (trained := row.trained(goal)) is not None:
            metrics |= _with_ends(f"confirmed_{goal}", trained)
    if row.source_accuracy is not None:
        metrics[f"{PREFIX}/source_accuracy"] = row.source_accuracy
    if row.p_best is not None:
        metrics[f"{PREFIX}/p_best"] = row.p_best
    return metrics


def _with_ends(name: str, estimate: Estimate) -> dict[str, float]:
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{PREFIX}/{name}{end}": x for end, x in ends.items() if x is not None}


def _facts(ranking: Ranking) -> dict[str, str]:
    best = ranking[ranking.best]
    facts = {
        "goal": ranking.goal,
        "data": ranking.target["data"],
        "network": ranking.model["name"],
        "layer": best.layer,
        "tie_set": ", ".join(ranking.tie_set),
        "ckptsel": ranking.version or "",
    }
    if ranking.recommended and best.digest is not None:
        facts["best_digest"] = best.digest
    return facts
