"""Rankings of one run for several targets -> one table over all."""

from collections.abc import Mapping

from ckptsel.common.environment import package_version, utc_now
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import EPOCH, Ranking, Row
from ckptsel.results.targets import OnTarget, OverallRow, TargetEntry, TargetsRecord


def over_targets(rankings: Mapping[str, Ranking], tolerance: float) -> TargetsRecord:
    """What rankings of the same candidates say together. rankings: by the name of the target.

    A target whose ranking recommends nothing does not count: there all are equally far from useful.
    tolerance: in the unit of the score that decided.
    """
    first = next(iter(rankings.values()))
    targets = tuple(_entry(name, ranking) for name, ranking in rankings.items())
    counted = [target.name for target in targets if target.not_counted is None]
    names = [row.name for row in sorted(first, key=lambda row: row.order) if row.copy_of is None]
    rows = [_overall_row(name, rankings, counted) for name in names]
    rows.sort(key=_place)  # of equals the first in training
    known = [row for row in rows if row.worst_regret is not None]
    return TargetsRecord(
        checkpoints=first.settings["checkpoints"],
        goal=first.goal,
        score=first.score,
        unit=first.units.get(first.score, first.score),
        tolerance=tolerance,
        targets=targets,
        candidates=tuple(rows),
        nearest=known[0].name if known else None,
        good_everywhere=tuple(
            row.name
            for row in known
            if row.worst_regret is not None and row.worst_regret.value <= tolerance
        ),
        created=utc_now(),
        version=package_version("ckptsel"),
    )


def _entry(name: str, ranking: Ranking) -> TargetEntry:
    return TargetEntry(
        name=name,
        data=ranking.target["data"],
        n_eval=ranking.target["evaluation"]["n_eval"],
        best=ranking.best,
        created=ranking.created,
        not_counted=ranking.why_not,
    )


def _overall_row(name: str, rankings: Mapping[str, Ranking], counted: list[str]) -> OverallRow:
    on = {target: _on_target(ranking[name], ranking) for target, ranking in rankings.items()}
    ranks = [rank for target in counted if (rank := on[target].rank) is not None]
    regrets = {t: regret for t in counted if (regret := on[t].regret) is not None}
    is_known = bool(counted) and len(regrets) == len(counted)
    worst = max(regrets, key=lambda t: _size(regrets[t])) if is_known else None
    row = next(iter(rankings.values()))[name]
    return OverallRow(
        name=name,
        path=row.path,
        order=row.order,
        epoch=row.epoch,
        mean_rank=sum(ranks) / len(ranks) if counted and len(ranks) == len(counted) else None,
        worst_target=worst,
        worst_regret=None if worst is None else regrets[worst],
        n_tied=sum(on[target].in_tie_set for target in counted),
        targets=on,
    )


def _on_target(row: Row, ranking: Ranking) -> OnTarget:
    return OnTarget(rank=row.rank, in_tie_set=row.in_tie_set, regret=_regret(row, ranking))


def _regret(row: Row, ranking: Ranking) -> Estimate | None:
    """How far a row is behind the best of its ranking; without an interval where the score has none."""
    score, behind = ranking.score, row.behind_best
    if behind is not None:
        return Estimate(behind.value, behind.low, behind.high, n=behind.n, random=behind.random)
    if score == EPOCH or score not in row.scores:
        return None
    values = {
        each.name: ranking.higher_when_better(score, each.scores[score].value)
        for each in ranking
        if score in each.scores
    }
    return Estimate(max(values.values()) - values[row.name])


def _size(regret: Estimate) -> tuple[float, float]:
    """Of equal regrets the one that may be larger is the worse."""
    return regret.value, regret.value if regret.high is None else regret.high


def _place(row: OverallRow) -> tuple[bool, float, float]:
    """The least worst regret first, then the best mean rank; what failed somewhere last."""
    regret = 0.0 if row.worst_regret is None else row.worst_regret.value
    mean_rank = float("inf") if row.mean_rank is None else row.mean_rank
    return mean_rank == float("inf"), regret, mean_rank
