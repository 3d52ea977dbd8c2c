"""The ranking: an ordered table with intervals, ties and references, and its JSON.

`Ranking.to_dict` writes, and `Ranking.from_dict` reads, the schema `ckptsel.ranking/2`, whose keys
are the fields of the classes below. Within a schema number keys are only ever added; files of older
schemas are read (`ckptsel.results.versions`).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ckptsel.errors import InputError, UsageError, did_you_mean, listed
from ckptsel.results.about import Details, ModelAbout, SettingsAbout, Share, TargetAbout
from ckptsel.results.confirmation import CONFIRMED, GoalConfirmation, Standing
from ckptsel.results.estimate import FINITE, Estimate, Measured, percent
from ckptsel.results.search import SearchRecord
from ckptsel.results.versions import upgrade_ranking
from ckptsel.settings.rank import MOST_PARTS

SCHEMA = "ckptsel.ranking/2"

LARGEST = 10**15
"""Epochs and steps beyond are no numbers of a training."""

EPOCH = "epoch"
"""What decides in place of a score: the order of training, the last first."""

FEW_IMAGES = 20
"""Held-out images below which no checkpoint can be told from another."""

ACCURACY = "accuracy"
"""The unit of scores that are fractions of images; other scores are in `nats`, or another word."""


@dataclass(frozen=True, config=FINITE)
class ScoreValue(Estimate):
    """One score of one candidate: an estimate (over held-out images; no interval for scores that are
    no means over images) with what is to be known of it.

    flags: what to doubt.
    details: what else was recorded (chosen C, number of singular directions).
    """

    _: KW_ONLY
    flags: tuple[str, ...] = ()
    details: Details = field(default_factory=lambda: Details())


@dataclass(frozen=True, config=FINITE)
class AveragedPart:
    """A checkpoint that an average is made of.

    name: path below the scanned folder, without suffix.
    path: the file or folder.
    digest: SHA-256 of its tensors.
    weights_key: which weights of the file were used.
    """

    name: str
    path: str
    digest: str | None
    weights_key: str | None = None


@dataclass(frozen=True, config=FINITE)
class Row:
    """One checkpoint, or an average of neighbouring ones.

    name: path below the scanned folder, without suffix; of an average its last checkpoint's, with
    `~mean3` for three.
    path: the file or folder; empty for an average, which lies in no file.
    digest: SHA-256 of its tensors, null where they cannot be read; of an average of the digests of what
    it is made of.
    order: place in the order of training, from 0; of an average that of its last checkpoint.
    epoch, step: as recorded, null where unknown.
    epoch_from: where epoch and step are recorded, `file`, `name`, or `epoch-regex` where --epoch-regex
    found it in the name.
    source_accuracy: recorded in the file, a fraction.
    format: what wrote it.
    status: `ok` or `failed`.
    reason: why it failed.
    weights_key: which weights of the file were used.
    copy_of: the checkpoint with the same tensors whose scores these are.
    layer: where the network was read; `last` is the input of its classifier.
    stage_scales: what the features of each stage were divided by, by its name, where all stages were
    read side by side; null elsewhere.
    rank: from 1; null where it failed.
    in_tie_set: cannot be told from the best at 95 %.
    p_best: share of resamples in which it is the best.
    score_rank: rank by score alone, which real training does not change.
    score_tie: in the tie set by score alone.
    behind_best: how far the best is ahead of it; null where nothing measured both.
    scores: by name.
    confirmed: by goal, what real training gave; null where it was not tried.
    average_of: the checkpoints whose mean it is, in the order of training; empty for a checkpoint.
    """

    name: str
    path: str
    digest: str | None
    order: int
    epoch: Annotated[int | float, Ge(-LARGEST), Le(LARGEST)] | None
    step: Annotated[int, Ge(-LARGEST), Le(LARGEST)] | None
    epoch_from: str | None
    source_accuracy: Share | None
    format: str
    status: str
    reason: str | None = None
    weights_key: str | None = None
    copy_of: str | None = None
    layer: str = "last"
    stage_scales: dict[str, Annotated[float, Gt(0)]] | None = None
    rank: int | None = None
    in_tie_set: bool = False
    p_best: Share | None = None
    score_rank: int | None = None
    score_tie: bool = False
    behind_best: Measured | None = None
    scores: dict[str, ScoreValue] = field(default_factory=dict)
    confirmed: dict[str, Standing] | None = None
    average_of: Annotated[tuple[AveragedPart, ...], Len(0, MOST_PARTS)] = ()

    @property
    def checkpoint(self) -> str:
        """The checkpoint's name, without the layer."""
        return self.name.removesuffix(f"@{self.layer}")

    def is_at_chance(self, score: str) -> bool:
        """Whether an accuracy could not be told to be better than that of always naming the largest
        class. False where the score is not there."""
        return score in self.scores and bool(self.scores[score].details.get("at_chance"))

    def trained(self, goal: str) -> Estimate | None:
        """Accuracy after real training for a goal; none where it was not tried, or diverged."""
        standing = (self.confirmed or {}).get(goal)
        return None if standing is None else standing.accuracy


@dataclass(frozen=True, config=FINITE)
class Reference:
    """A checkpoint that one would take without a ranking.

    name: of the checkpoint.
    ahead: how far the best is ahead of it; null where the epoch decided, which measures nothing.
    """

    name: str
    ahead: Measured | None = None

    @property
    def difference(self) -> float | None:
        """How far the best is ahead, in the unit of what was compared."""
        return None if self.ahead is None else self.ahead.value


@dataclass(frozen=True, config=FINITE)
class Ranking:
    """A ranking; iterating over it gives the rows, the best first, the failed ones last.

    schema: name and number of this layout.
    version: of ckptsel; its key in JSON is `ckptsel`.
    created: when (UTC).
    goal: `fe` or `ft`.
    score: what decided, a score or `epoch`.
    units: unit of each score: `accuracy`, `nats`, or another word.
    lower_is_better: scores whose lowest value is the best; of all others it is the highest.
    best: name of the first.
    tie_set: names of those that cannot be told from the best at 95 %, without copies.
    checkpoints: one row each.
    target: the data and how they were split.
    model: name, layer and preprocessing.
    settings: every option, as it was used.
    environment: versions and machine.
    references: `last` (read at the last layer) and, where the files record it, `source_accuracy`, which
    are no averages; where several layers were read, `last_layer`, the best at that layer, and
    `last_checkpoint`, the best of that checkpoint at any, as `source_accuracy` then is of its; where
    averages were ranked, `checkpoint` and `average`, the best of either.
    notes: what a reader should know about the trajectory.
    time_s: seconds by stage.
    confirmation: by goal, what real training gave; its order then overrules that of the score.
    doubts: why the scores should not be believed, to be read before anything else.
    expected: accuracy (or what else decides) that the best is expected to reach on images that did
    not choose it; null where nothing measured it.
    no_winner: why no checkpoint is recommended whatever its scores, the first of the doubts; null where
    nothing is wrong with the data.
    search: how far a search went, where not all were looked at (`--budget`): the rows are then those
    that were, and ties and chances are among them; null where all were.
    files: SHA-256 of each file beside this one that belongs to it, by its name; empty in files of older
    versions.
    """

    goal: str
    score: str
    checkpoints: tuple[Row, ...]
    best: str
    tie_set: tuple[str, ...]
    references: dict[str, Reference]
    notes: tuple[str, ...]
    target: TargetAbout
    model: ModelAbout
    settings: SettingsAbout
    environment: dict[str, Any]
    time_s: dict[str, float]
    created: str
    version: str | None
    units: dict[str, str]
    confirmation: dict[str, GoalConfirmation] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    expected: Measured | None = None
    no_winner: str | None = None
    lower_is_better: tuple[str, ...] = ()
    search: SearchRecord | None = None
    files: dict[str, str] = field(default_factory=dict, compare=False)
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

    def find(self, name: str) -> Row:
        """The row of a checkpoint by its name, its path, or the name of its file where that is
        unique. Raises UsageError naming near names."""
        for row in self:
            if name in (row.name, row.path):
                return row
        files = [row for row in self if Path(row.path).name == name]
        if len(files) == 1:
            return files[0]
        known = [row.name for row in self]
        if self.search is not None and name in {one.name for one in self.search.unseen}:
            raise UsageError(
                f"{name} was not looked at: the ranking has {self.search.n_seen} of "
                f"{self.search.n_checkpoints} checkpoints (--budget). Rank with a larger one."
            )
        raise UsageError(
            f"no checkpoint {name!r} in the ranking; it has {listed(known)}."
            + did_you_mean(name, known)
        )

    @property
    def recommended(self) -> bool:
        """Whether the best may be recommended."""
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        """Why the best is not recommended: the data cannot tell, or what was measured last of it, by
        training or else by the score that decided and the probe, is at chance; None where it is."""
        if self.no_winner is not None:
            return self.no_winner
        best = self[self.best]
        trained = best.trained(self.goal)
        if trained is not None and trained.n is not None and trained.n < FEW_IMAGES:
            return few_images(trained.n)
        if trained is not None:
            return self._at_chance_still(trained)
        at_chance = best.is_at_chance("linear_probe") or best.is_at_chance(self.score)
        if not at_chance or self.goal in self.confirmation:
            return None
        return self.doubts[0] if self.doubts else f"{self.score} of {best.name} is at chance"

    def _at_chance_still(self, trained: Estimate) -> str | None:
        """That real training came to no more than the largest class, by two standard errors."""
        largest, n = self.target.get("largest_class"), trained.n
        if largest is None or not n:
            return None
        error = math.sqrt(trained.value * (1 - trained.value) / n)
        if trained.value - largest["share"] > 2 * error:
            return None
        return (
            f"trained for {self.goal}, {self.best} reaches {percent(trained, ' %')}, no more than "
            f"always naming the largest class does ({100 * largest['share']:.1f} %)"
        )

    @property
    def is_known_how_sure(self) -> bool:
        """Whether anything says how sure the order is: not where the order of training decided, or a
        score without a value of each held-out image."""
        return self[self.best].p_best is not None

    @property
    def layers(self) -> tuple[str, ...]:
        """Where the network was read, in its own order."""
        there = dict.fromkeys(row.layer for row in self)
        recorded = self.model.get("layers", [])
        return tuple(sorted(there, key=lambda x: recorded.index(x) if x in recorded else -1))

    def at_best_layer(self) -> list[Row]:
        """The rows of each checkpoint's best layer, by rank: all of them where one layer was read."""
        best: dict[str, Row] = {}
        for row in self:
            best.setdefault(row.checkpoint, row)
        return list(best.values())

    def is_accuracy(self, score: str) -> bool:
        """Whether a score, or `confirmed`, is a fraction of images."""
        return score == CONFIRMED or self.units.get(score) == ACCURACY

    def higher_when_better(self, score: str, value: float) -> float:
        """A value of a score, of a loss with its sign turned."""
        return -value if score in self.lower_is_better else value

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain data, ready for JSON."""
        value = dataclasses.asdict(self)
        value["ckptsel"] = value.pop("version")
        first = ("schema", "ckptsel", "created", "goal", "score", "best", "tie_set", "references")
        return {key: value[key] for key in (*first, *(k for k in value if k not in first))}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Ranking":
        """A ranking from its plain data. Raises InputError for another schema, or where a key is
        missing or of another type."""
        value = upgrade_ranking(dict(value), SCHEMA)
        value["version"] = value.pop("ckptsel", None)
        try:
            ranking = _reader().validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise InputError(f"no ranking that can be read: {where}: {first['msg']}.") from error
        problem = next(_contradictions(ranking), None)
        if problem:
            raise InputError(f"no ranking that can be read: {problem}.")
        return ranking

    def to_pandas(self) -> Any:
        """A DataFrame, one row a checkpoint, one column a score. Raises UsageError without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError(
                "pandas is not installed, which makes the DataFrame. Install it with: pip install pandas"
            ) from error
        return pandas.DataFrame(self.flat_rows())

    def flat_rows(self) -> list[dict[str, Any]]:
        """One dict a checkpoint, for CSV: scores as `<score>`, `<score>_low`, `<score>_high`."""
        scores = list(dict.fromkeys(name for row in self for name in row.scores))
        several = len(self.layers) > 1
        return [self._flat_row(row, scores, several) for row in self]

    def _flat_row(self, row: Row, scores: Sequence[str], with_layer: bool) -> dict[str, Any]:
        flat: dict[str, Any] = {
            key: getattr(row, key)
            for key in ("rank", "name", "epoch", "step", "source_accuracy", "in_tie_set", "p_best")
        }
        if with_layer:
            flat["layer"] = row.layer
        for name in scores:
            flat |= _columns(name, row.scores.get(name))
        for goal in self.confirmation:
            standing = (row.confirmed or {}).get(goal)
            flat[f"{goal}_state"] = standing and standing.state
            bounds = _columns(goal, row.trained(goal))
            bounds[f"{goal}_accuracy"] = bounds.pop(goal)
            flat |= {
                f"{goal}_{key}": bounds[f"{goal}_{key}"] for key in ("accuracy", "low", "high")
            }
            flat[f"{goal}_step"] = standing and standing.step
        flat |= _columns("behind_best", row.behind_best)
        flat["behind_best_by"] = row.behind_best and row.behind_best.by
        flags = [f"{name}: {flag}" for name, score in row.scores.items() for flag in score.flags]
        flat["flags"] = "; ".join(flags)
        if any(each.average_of for each in self):
            flat["average_of"] = "; ".join(part.name for part in row.average_of)
        for key in ("status", "reason", "copy_of", "weights_key", "digest", "path"):
            flat[key] = getattr(row, key)
        return flat

    def _repr_html_(self) -> str:
        """For notebooks: what the ranking says, and its rows with their scores."""
        from ckptsel.results.notebook import ranking_html

        return ranking_html(self)


def few_images(n: int) -> str:
    """Why n held-out images, fewer than FEW_IMAGES, tell nothing."""
    return (
        f"there are {n} held-out images only: on so few no checkpoint can be told from another. Give a "
        "few hundred."
    )


def _columns(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {
        name: None if estimate is None else estimate.value,
        f"{name}_low": None if estimate is None else estimate.low,
        f"{name}_high": None if estimate is None else estimate.high,
    }


def _contradictions(ranking: Ranking) -> Iterator[str]:
    """What cannot be true of a ranking, in words."""
    names = [row.name for row in ranking]
    if len(set(names)) < len(names):
        yield "two checkpoints have the same name"
    named = {"best": {ranking.best}, "tie_set": set(ranking.tie_set)}
    named["references"] = {reference.name for reference in ranking.references.values()}
    named["copy_of"] = {row.copy_of for row in ranking if row.copy_of is not None}
    for confirmation in ranking.confirmation.values():
        named["a confirmation"] = {*confirmation.tie_set, confirmation.winner or ranking.best}
    for where, mentioned in named.items():
        if unknown := sorted(mentioned - set(names)):
            yield f"{where} names {unknown[0]!r}, which is no checkpoint of it"
    confirmed = {goal for row in ranking for goal in row.confirmed or {}}
    if unknown := sorted(confirmed - set(ranking.confirmation)):
        yield f"a checkpoint was confirmed for {unknown[0]!r}, and nothing is said of that"
    by_training = ranking.expected is not None and ranking.expected.by == CONFIRMED
    if by_training and ranking.goal not in ranking.confirmation:
        yield "its best was confirmed, and nothing is said of that"
    unseen = () if ranking.search is None else (one.name for one in ranking.search.unseen)
    if both := sorted({row.checkpoint for row in ranking}.intersection(unseen)):
        yield f"{both[0]!r} was looked at, and was not"
    if "last" not in ranking.references:
        yield "it does not say which checkpoint is the last"
    if ranking[ranking.best].status != "ok":
        yield f"the best, {ranking.best!r}, is one that failed"
    is_doubted = ranking.no_winner is not None or ranking.goal not in ranking.confirmation
    if is_doubted and not ranking.recommended and not ranking.doubts:
        yield "it recommends nothing, and does not say why"


@cache
def _reader() -> TypeAdapter[Ranking]:
    return TypeAdapter(Ranking)
