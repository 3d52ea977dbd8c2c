"""What confirming a ranking gives, as plain data: part of `ranking.json` and of `confirm.json`.

`confirm.json` has the schema `ckptsel.confirm/1`: `{"schema", "ckptsel", "created", "ranking_created",
"settings", "environment", "time_s", "goals": {goal: {...GoalConfirmation, "standings": [Standing],
"runs": [Run]}}}`. Within a schema number keys are only ever added.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ckptsel.confirmation.agreement import Agreement
from ckptsel.confirmation.race import Standing
from ckptsel.ranking.uncertainty import Interval

SCHEMA = "ckptsel.confirm/1"


@dataclass(frozen=True)
class Point:
    """One point of a learning curve. step: batches so far. train_loss: mean since the last point,
    nats. held_loss, nats, and held_accuracy, a fraction: on the held-out images."""

    step: int
    train_loss: float
    held_loss: float
    held_accuracy: float


@dataclass(frozen=True)
class Run:
    """One training run with its learning curve.

    purpose: `sweep` (it chose the learning rate) or `race`. points: the curve.
    diverged_at: the step by which the loss was no longer finite, else null.
    """

    checkpoint: str
    seed: int
    lr: float
    purpose: str
    points: tuple[Point, ...]
    diverged_at: int | None


@dataclass(frozen=True)
class GoalConfirmation:
    """The outcome for one goal.

    goal: `fe` or `ft`. winner: null where every candidate diverged. tie_set: the winner and those
    that cannot be told from it at 95 %. lr: the learning rate of all candidates. sweep: mean
    held-out accuracy by learning rate (as text), null where a run diverged; empty where one rate was
    given. lr_at_edge: the chosen rate is the lowest or highest tried. protocol: how they were
    trained. split: what was held out. n_fitted, n_held: images trained on and read on. n_seeds: runs
    of each candidate. rungs: steps after which candidates may leave. n_steps: training steps of the
    race, n_steps_full: of all candidates to the end, n_steps_sweep: of the sweep besides. agreement:
    by score or baseline, over the candidates that ended the rung at `agreement_step`.
    agreement_step: null where no rung was ended by all. flags: what to doubt.
    """

    goal: str
    winner: str | None
    tie_set: tuple[str, ...]
    lr: float
    sweep: dict[str, float | None]
    lr_at_edge: bool
    protocol: dict[str, Any]
    split: str
    n_fitted: int
    n_held: int
    n_seeds: int
    rungs: tuple[int, ...]
    n_steps: int
    n_steps_full: int
    n_steps_sweep: int
    agreement: dict[str, Agreement] = field(default_factory=dict)
    agreement_step: int | None = None
    flags: tuple[str, ...] = ()


def standing_from_dict(value: dict[str, Any]) -> Standing:
    """A standing from its plain data."""
    return from_known_keys(Standing, {**value, "by_seed": tuple(value["by_seed"])})


def confirmation_from_dict(value: dict[str, Any]) -> GoalConfirmation:
    """A goal's confirmation from its plain data."""
    agreement = {}
    for name, measures in value["agreement"].items():
        bounds = {
            key: from_known_keys(Interval, part) if isinstance(part, dict) else part
            for key, part in measures.items()
        }
        agreement[name] = from_known_keys(Agreement, bounds)
    tuples = {key: tuple(value[key]) for key in ("tie_set", "rungs", "flags")}
    return from_known_keys(GoalConfirmation, {**value, **tuples, "agreement": agreement})


def from_known_keys(cls: Any, value: dict[str, Any]) -> Any:
    """An instance of a dataclass; keys that a later version added are left out."""
    known = {f.name for f in dataclasses.fields(cls)}
    return cls(**{key: v for key, v in value.items() if key in known})
