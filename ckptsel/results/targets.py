"""Several targets of one run, over all: who is how far behind the best on which, and its JSON.

`TargetsRecord.to_dict` writes, and `from_dict` reads, the schema `ckptsel.targets/1`, whose keys are
the fields of the classes below.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ckptsel.common.files import read_json, write_json
from ckptsel.errors import InputError, listed
from ckptsel.results.estimate import FINITE, Estimate
from ckptsel.results.ranking import ACCURACY

SCHEMA = "ckptsel.targets/1"
TARGETS_NAME = "targets.json"


@dataclass(frozen=True, config=FINITE)
class TargetEntry:
    """One target.

    name: that of its folder, which lies beside this file and holds its ranking.
    data: the labelled images.
    n_eval: images that are held out.
    best: the first of its ranking.
    created: when its ranking was made (UTC).
    not_counted: why it does not count over all: its ranking recommends no checkpoint; null where it
    counts.
    """

    name: str
    data: str
    n_eval: int
    best: str
    created: str
    not_counted: str | None = None


@dataclass(frozen=True, config=FINITE)
class OnTarget:
    """One candidate on one target.

    rank: from 1; null where it failed.
    in_tie_set: cannot be told from the best of this target at 95 %.
    regret: how far it is behind the best of this target, in the unit of the score; its interval is
    that of its ranking, for this target by itself; null where nothing measured it.
    """

    rank: int | None
    in_tie_set: bool
    regret: Estimate | None


@dataclass(frozen=True, config=FINITE)
class OverallRow:
    """One candidate over all targets that count.

    name: of the candidate.
    path: the file or folder; empty for an average, which lies in no file.
    order: place in the order of training, from 0.
    epoch: as recorded; null where unknown.
    mean_rank: mean over the targets; null where it failed on one.
    worst_target: where it is furthest behind the best; null where that is not known on each.
    worst_regret: how far that is.
    n_tied: on how many targets it cannot be told from the best at 95 %.
    targets: by name, those that do not count too.
    """

    name: str
    path: str
    order: int
    epoch: float | None
    mean_rank: float | None
    worst_target: str | None
    worst_regret: Estimate | None
    n_tied: int
    targets: dict[str, OnTarget]


@dataclass(frozen=True, config=FINITE)
class TargetsRecord:
    """What `targets.json` holds.

    schema: name and number of this layout.
    version: of ckptsel; its key in JSON is `ckptsel`.
    created: when (UTC).
    checkpoints: the folder that was ranked.
    goal: `fe` or `ft`.
    score: what decided on each target, a score or `epoch`.
    unit: of the score and so of the regrets: `accuracy` (a fraction), `nats`, or another word.
    tolerance: how far behind is still good enough, in that unit.
    targets: in the order in which they were given.
    candidates: without copies; the one whose worst regret is least comes first, where no regret is
    known the one of the best mean rank; those that failed somewhere come last.
    nearest: the first of them, where its worst regret is known; else null.
    good_everywhere: names of those that are nowhere further behind the best than the tolerance.
    """

    checkpoints: str
    goal: str
    score: str
    unit: str
    tolerance: Annotated[float, Ge(0)]
    targets: tuple[TargetEntry, ...]
    candidates: tuple[OverallRow, ...]
    nearest: str | None
    good_everywhere: tuple[str, ...]
    created: str
    version: str | None
    schema: str = SCHEMA

    def __getitem__(self, name: str) -> OverallRow:
        """A candidate by its name."""
        return next(row for row in self.candidates if row.name == name)

    @property
    def counted(self) -> list[TargetEntry]:
        """The targets that count over all."""
        return [target for target in self.targets if target.not_counted is None]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        value = dataclasses.asdict(self)
        value["ckptsel"] = value.pop("version")
        first = ("schema", "ckptsel", "created", "goal", "score", "nearest", "good_everywhere")
        return {key: value[key] for key in (*first, *(k for k in value if k not in first))}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "TargetsRecord":
        """From plain data. Raises InputError for another schema, or a key of another type."""
        value = dict(value)
        if value.get("schema") != SCHEMA:
            raise InputError(
                f"no table over targets that this version reads: schema {value.get('schema')!r}, "
                f"expected {SCHEMA!r}."
            )
        value["version"] = value.pop("ckptsel", None)
        try:
            return TypeAdapter(TargetsRecord).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise InputError(
                f"no table over targets that can be read: {where}: {first['msg']}."
            ) from error


def write_targets(folder: Path, record: TargetsRecord) -> None:
    """Write `targets.json`, which comes after the rankings that it is made from."""
    write_json(folder / TARGETS_NAME, record.to_dict())


def read_targets(folder: Path) -> TargetsRecord:
    """What lies in a folder. Raises InputError where there is none, or it cannot be read."""
    path = folder / TARGETS_NAME
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not an object.")
    try:
        return TargetsRecord.from_dict(value)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def overall_summary(record: TargetsRecord) -> str:
    """Which candidate is good on every target, how far it may be behind, and who else is."""
    if not record.counted:
        return "no checkpoint is recommended over all: on none of the targets is one."
    first = record.candidates[0]
    if first.mean_rank is None:
        return "no checkpoint is recommended over all: each failed on some target."
    if record.nearest is None:
        return (
            f"how far each is behind the best is not known, since {record.score} decides: they stand in "
            f"the order of their mean rank, the first {first.name}."
        )
    others = [name for name in record.good_everywhere if name != first.name]
    limit = amount(record.tolerance, record)
    if first.name not in record.good_everywhere:
        return (
            f"no checkpoint is within {limit} of the best on every target; the nearest is {first.name}, "
            f"{_worst(first, record)}; the best of each: {_best_of_each(record)}."
        )
    also = f"{len(others)} other{'s' * (len(others) > 1)} within {limit} everywhere"
    rest = f"{also} ({', '.join(others[:3])}{', ...' * (len(others) > 3)})" if others else ""
    return (
        "; ".join(filter(None, [_good(first, record), rest or f"no other is within {limit}"])) + "."
    )


def _good(row: OverallRow, record: TargetsRecord) -> str:
    assert row.worst_regret is not None
    value, doubt = row.worst_regret.value, ""
    regrets = [row.targets[target.name].regret for target in record.counted]
    ends = [regret.high for regret in regrets if regret is not None and regret.high is not None]
    if ends and (may := max(ends)) > record.tolerance:
        doubt = f", though {amount(may, record)} cannot be ruled out at 95 %"
    if value == 0:
        return f"{row.name} is nowhere behind the best{doubt}"
    where = f"{row.worst_target}: {regret_text(row.worst_regret, record)}"
    return (
        f"{row.name} is nowhere more than {amount(value, record)} behind the best ({where}){doubt}"
    )


def _worst(row: OverallRow, record: TargetsRecord) -> str:
    assert row.worst_regret is not None
    return f"{regret_text(row.worst_regret, record)} {regret_unit(record)} behind on {row.worst_target}"


def _best_of_each(record: TargetsRecord) -> str:
    return listed([f"{target.best} ({target.name})" for target in record.counted], 4)


def regret_unit(record: TargetsRecord) -> str:
    """What regrets are counted in, where people read."""
    return "points" if record.unit == ACCURACY else record.unit


def amount(value: float, record: TargetsRecord) -> str:
    """A distance in words: '0.8 points', '0.013 nats'."""
    said = _number(value, record)
    return (
        "1 point" if said == "1.0" and record.unit == ACCURACY else f"{said} {regret_unit(record)}"
    )


def regret_text(regret: Estimate, record: TargetsRecord) -> str:
    """A regret with its interval, where it has one; accuracies in points."""
    text = _number(regret.value, record)
    if regret.low is None or regret.high is None:
        return text
    return f"{text} [{_number(regret.low, record)}, {_number(regret.high, record)}]"


def _number(value: float, record: TargetsRecord) -> str:
    # Adding zero turns -0.0 into 0.0.
    return f"{round(100 * value, 1) + 0.0:.1f}" if record.unit == ACCURACY else f"{value + 0.0:.3f}"
