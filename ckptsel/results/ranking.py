"""The ranking: an ordered table with intervals, ties and baselines, and its JSON.

`Ranking.to_dict` writes, and `Ranking.from_dict` reads, the schema `ckptsel.ranking/1`, whose keys
are the fields of the classes below. Within a schema number keys are only ever added.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.confirmation.race import Standing
from ckptsel.errors import InputError, UsageError, did_you_mean, listed
from ckptsel.ranking.uncertainty import bootstrap_means, find_tie_set, interval, probability_best
from ckptsel.results.confirmation import (
    GoalConfirmation,
    confirmation_from_dict,
    from_known_keys,
    standing_from_dict,
)
from ckptsel.scores.inputs import ScoreResult

SCHEMA = "ckptsel.ranking/1"

MAX_LISTED = 10

EPOCH = "epoch"
"""No score but the order of training, the last first."""

GOALS = {"fe": "linear_probe", "ft": EPOCH}
"""What decides each goal. No score foretold fine-tuning better than the epoch: docs/scores.md."""

TIE_BREAK = {"linear_probe": "linear_probe_loglik"}
"""Inside the tie set another score decides, where it is known to tell more."""


@dataclass(frozen=True)
class ScoreValue:
    """One score of one checkpoint.

    value: accuracies as fractions, evidence and likelihood in nats. low, high: the 95 % interval
    over held-out images; null for scores that are no means over images. flags: what to doubt.
    details: what else was recorded (chosen C, number of singular directions).
    """

    value: float
    low: float | None = None
    high: float | None = None
    flags: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """How far one checkpoint is ahead of another.

    value, low, high: with its paired 95 % interval, in the unit of what was compared. by: what was
    compared, a score, or `confirmed`, which is accuracy after real training. step: of that training,
    the last that both reached.
    """

    value: float
    low: float
    high: float
    by: str
    step: int | None = None


@dataclass(frozen=True)
class Row:
    """One checkpoint.

    name: path below the scanned folder, without suffix. path: the file or folder. digest: SHA-256 of
    its tensors, null where they cannot be read. order: place in the order of training, from 0.
    epoch, step: as recorded, null where unknown. epoch_from: where they are recorded, `file` or
    `name`. source_accuracy: recorded in the file, a fraction. format: what wrote it.
    status: `ok` or `failed`. reason: why it failed. weights_key: which weights of the file were
    used. copy_of: the checkpoint with the same tensors whose scores these are. scores: by name.
    rank: from 1; null where it failed. in_tie_set: cannot be told from the best at 95 %.
    p_best: share of resamples in which it is the best. score_rank, score_tie: rank and tie set by
    score alone, which real training does not change. behind_best: how far the best is ahead of it;
    null where nothing measured both. confirmed: by goal, what real training gave; null where it was
    not tried.
    """

    name: str
    path: str
    digest: str | None
    order: int
    epoch: float | None
    step: int | None
    epoch_from: str | None
    source_accuracy: float | None
    format: str
    status: str
    reason: str | None = None
    weights_key: str | None = None
    copy_of: str | None = None
    rank: int | None = None
    in_tie_set: bool = False
    p_best: float | None = None
    score_rank: int | None = None
    score_tie: bool = False
    behind_best: Difference | None = None
    scores: dict[str, ScoreValue] = field(default_factory=dict)
    confirmed: dict[str, Standing] | None = None


@dataclass(frozen=True)
class Baseline:
    """A checkpoint that one would take without a ranking, and how far the best is ahead of it.

    name: of the checkpoint. difference, low, high: best minus baseline, with its paired interval;
    null where the epoch decided, which measures nothing. by: what decided, or `confirmed`, which is
    accuracy after real training. step: of that training, the last that both reached.
    """

    name: str
    difference: float | None
    low: float | None
    high: float | None
    by: str
    step: int | None = None


def find_row(ranking: "Ranking", name: str) -> Row:
    """A checkpoint by its name, its path, or the name of its file where that is unique.

    Raises UsageError naming near names.
    """
    for row in ranking:
        if name in (row.name, row.path):
            return row
    files = [row for row in ranking if Path(row.path).name == name]
    if len(files) == 1:
        return files[0]
    known = [row.name for row in ranking]
    raise UsageError(
        f"no checkpoint {name!r} in the ranking; it has {listed(known, MAX_LISTED)}."
        + did_you_mean(name, known)
    )


@dataclass(frozen=True)
class Ranking:
    """A ranking; iterating over it gives the rows, the best first, the failed ones last.

    schema: name and number of this layout. version: of ckptsel; its key in JSON is `ckptsel`. created:
    when (UTC). goal: `fe` or `ft`. score: what decided, a score or `epoch`. best: name of the first.
    tie_set: names of those that cannot be told from the best at 95 %, without copies. checkpoints:
    one row each. target: the data and how they were split. model: name, layer and preprocessing.
    settings: every option, as it was used. environment: versions and machine. baselines: `last` and,
    where the files record it, `source_accuracy`. notes: what a reader should know about the
    trajectory. time_s: seconds by stage. confirmation: by goal, what real training gave; its order
    then overrules that of the score. doubts: why the scores should not be believed, to be read
    before anything else.
    """

    goal: str
    score: str
    checkpoints: tuple[Row, ...]
    best: str
    tie_set: tuple[str, ...]
    baselines: dict[str, Baseline]
    notes: tuple[str, ...]
    target: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    time_s: dict[str, float]
    created: str
    version: str | None
    confirmation: dict[str, GoalConfirmation] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    schema: str = SCHEMA

    def __iter__(self) -> Iterator[Row]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __getitem__(self, name: str) -> Row:
        """The row of a checkpoint by its name."""
        for row in self.checkpoints:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def recommended(self) -> bool:
        """Whether the best may be recommended: not where its probe is at chance and nothing else was
        measured."""
        trained = self.goal in self.confirmation
        return trained or not is_at_chance(self[self.best], "linear_probe")

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain data, ready for JSON."""
        value = dataclasses.asdict(self)
        value["ckptsel"] = value.pop("version")
        first = ("schema", "ckptsel", "created", "goal", "score", "best", "tie_set", "baselines")
        return {key: value[key] for key in (*first, *(k for k in value if k not in first))}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Ranking":
        """A ranking from its plain data. Raises InputError for another schema."""
        if value.get("schema") != SCHEMA:
            raise InputError(
                f"this is no ranking that this version reads: schema {value.get('schema')!r}, "
                f"expected {SCHEMA!r}."
            )
        value = dict(value)
        value["version"] = value.pop("ckptsel")
        value["checkpoints"] = tuple(_row_from_dict(row) for row in value["checkpoints"])
        value["baselines"] = {
            key: from_known_keys(Baseline, {"by": value["score"], **b})
            for key, b in value["baselines"].items()
        }
        value["confirmation"] = {
            goal: confirmation_from_dict(c) for goal, c in value.get("confirmation", {}).items()
        }
        for key in ("tie_set", "notes", "doubts"):
            value[key] = tuple(value.get(key, ()))
        return from_known_keys(cls, value)

    def to_pandas(self) -> Any:
        """One row a checkpoint, one column a score (pandas must be installed)."""
        import pandas

        return pandas.DataFrame(self.flat_rows())

    def flat_rows(self) -> list[dict[str, Any]]:
        """One dict a checkpoint, for CSV: scores as `<score>`, `<score>_low`, `<score>_high`."""
        names = list(dict.fromkeys(name for row in self for name in row.scores))
        return [_flat_row(row, names, self.confirmation) for row in self]

    def _repr_html_(self) -> str:
        from ckptsel.report.tables import html_table

        return html_table(self)


def is_at_chance(row: Row, score: str) -> bool:
    """Whether an accuracy could not be told to be better than that of always naming the largest
    class. False where the score is not there."""
    return score in row.scores and bool(row.scores[score].details.get("at_chance"))


def find_doubts(rows: Sequence[Row]) -> list[str]:
    """Why the scores of ranked rows, the best first, should not be believed; a sentence each."""
    scored = [row for row in rows if row.rank is not None and row.copy_of is None]
    at_chance = [row for row in scored if is_at_chance(row, "linear_probe")]
    doubts = []
    believable = [row for row in at_chance if _tells_more(row) is None]
    if scored and scored[0] in believable:
        probe = scored[0].scores["linear_probe"]
        which = "" if len(scored) == 1 else ", the best of them,"
        doubts.append(
            f"these features tell nothing about these classes: linear_probe of {scored[0].name}{which} "
            f"is {100 * probe.value:.1f} %, no better than always naming the largest class "
            f"({100 * probe.details['largest_class']:.1f} %). Is it the right network, input size and "
            "normalisation?"
        )
    for row in at_chance[:MAX_LISTED]:
        other = _tells_more(row)
        if other is not None:
            doubts.append(
                f"linear_probe of {row.name} is at chance ({100 * row.scores['linear_probe'].value:.1f} "
                f"%) while {other} is not ({100 * row.scores[other].value:.1f} %): do not trust it."
            )
    return doubts


def _tells_more(row: Row) -> str | None:
    """A component that is above chance where the whole features, which hold it, are not."""
    for name in ("residual_component", "main_component"):
        if name in row.scores and not is_at_chance(row, name):
            return name
    return None


def order_rows(
    rows: Sequence[Row],
    results: dict[str, dict[str, ScoreResult]],
    score: str,
    n_resamples: int,
    seed: int,
) -> tuple[list[Row], dict[str, Baseline]]:
    """Ranked rows and baselines from the score results of each scored row (by name).

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
    by_score: dict[str, NDArray[np.float64]] = {}
    if per_image:
        # One draw of images for all scores: their intervals can be compared.
        means = bootstrap_means(np.concatenate(list(per_image.values())), n_resamples, seed)
        by_score = dict(zip(per_image, np.split(means, len(per_image)), strict=True))
    intervals = _score_values(scored, results, by_score)
    if score == EPOCH:
        order = sorted(range(len(scored)), key=lambda i: -scored[i].order)
        ties, p_best = np.ones(len(scored), dtype=bool), [None] * len(scored)
        behind: list[Difference | None] = [None] * len(scored)
        baselines = {
            name: as_baseline(row.name, None, score) for name, row in baseline_rows(scored).items()
        }
    else:
        values, resampled = per_image[score].mean(axis=1), by_score[score]
        ties, p_best = find_tie_set(values, resampled), probability_best(resampled).tolist()
        tie_break = [_tie_break_value(results[row.name], score) for row in scored]
        order = sorted(
            range(len(scored)),
            key=lambda i: (not ties[i], -(tie_break[i] if ties[i] else values[i]), scored[i].order),
        )
        pairs = [[order[0], i] for i in range(len(scored))]
        behind = [compare(values[pair], resampled[pair], score) for pair in pairs]
        by_name = {row.name: d for row, d in zip(scored, behind, strict=True)}
        baselines = {
            name: as_baseline(row.name, by_name[row.name], score)
            for name, row in baseline_rows(scored).items()
        }
    ranks = {scored[i].name: place for place, i in enumerate(order, start=1)}
    ranked = {
        row.name: dataclasses.replace(
            row,
            rank=ranks[row.name],
            in_tie_set=bool(ties[i]),
            p_best=p_best[i],
            score_rank=ranks[row.name],
            score_tie=bool(ties[i]),
            behind_best=behind[i],
            scores=intervals[row.name],
        )
        for i, row in enumerate(scored)
    }
    return arrange([ranked.get(row.name, row) for row in rows]), baselines


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
            bounds = interval(result.value, resampled[name][i]) if name in resampled else None
            values[row.name][name] = ScoreValue(
                result.value,
                bounds.low if bounds else None,
                bounds.high if bounds else None,
                result.flags,
                result.details,
            )
    return values


def _stack(
    scored: Sequence[Row], results: dict[str, dict[str, ScoreResult]]
) -> dict[str, NDArray[np.float64]]:
    """Per-image values (n_checkpoints, n_images) of each score that has them."""
    stacked = {}
    for name in results[scored[0].name]:
        values = [results[row.name][name].per_image for row in scored]
        present = [v for v in values if v is not None]
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
) -> Difference:
    """How far the first is ahead of the second: values (2,) and resampled (2, n_resamples)."""
    bounds = interval(values[0] - values[1], resampled[0] - resampled[1])
    return Difference(bounds.value, bounds.low, bounds.high, by, step)


def as_baseline(name: str, ahead: Difference | None, score: str) -> Baseline:
    """A baseline that the best is ahead of by this; nothing where only the order of training told."""
    if ahead is None:
        return Baseline(name, None, None, None, by=score)
    return Baseline(name, ahead.value, ahead.low, ahead.high, ahead.by, ahead.step)


def baseline_rows(scored: Sequence[Row]) -> dict[str, Row]:
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


def _row_from_dict(value: dict[str, Any]) -> Row:
    scores = {}
    for name, score in value["scores"].items():
        scores[name] = from_known_keys(ScoreValue, {**score, "flags": tuple(score["flags"])})
    confirmed = value.get("confirmed")
    if confirmed is not None:
        confirmed = {goal: standing_from_dict(s) for goal, s in confirmed.items()}
    behind = value.get("behind_best")
    if behind is not None:
        behind = from_known_keys(Difference, behind)
    by_score = {"score_rank": value["rank"], "score_tie": value["in_tie_set"]}
    read = {"scores": scores, "confirmed": confirmed, "behind_best": behind}
    return from_known_keys(Row, {**by_score, **value, **read})


def _flat_row(row: Row, score_names: Sequence[str], goals: Iterable[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {
        key: getattr(row, key)
        for key in ("rank", "name", "epoch", "step", "source_accuracy", "in_tie_set", "p_best")
    }
    for name in score_names:
        score = row.scores.get(name)
        flat[name] = score.value if score else None
        flat[f"{name}_low"] = score.low if score else None
        flat[f"{name}_high"] = score.high if score else None
    for goal in goals:
        standing = (row.confirmed or {}).get(goal)
        for key in ("state", "accuracy", "low", "high", "step"):
            flat[f"{goal}_{key}"] = None if standing is None else getattr(standing, key)
    for key in ("value", "low", "high", "by"):
        column = "behind_best" if key == "value" else f"behind_best_{key}"
        flat[column] = None if row.behind_best is None else getattr(row.behind_best, key)
    flags = [f"{name}: {flag}" for name, score in row.scores.items() for flag in score.flags]
    flat["flags"] = "; ".join(flags)
    for key in ("status", "reason", "copy_of", "weights_key", "digest", "path"):
        flat[key] = getattr(row, key)
    return flat
