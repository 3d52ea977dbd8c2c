"""What confirming a ranking gives: part of `ranking.json`, and all of `confirm.json`."""

from dataclasses import field
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from pydantic.dataclasses import dataclass

from ckptsel.results.about import Number, Share
from ckptsel.results.estimate import FINITE, Estimate, Measured

CONFIRMED = "confirmed"
"""What measured an accuracy after real training."""

SCHEMA = "ckptsel.confirm/2"


@dataclass(frozen=True, config=FINITE)
class Point:
    """One point of a learning curve.

    step: batches so far.
    train_loss: mean since the last point, nats.
    held_loss: on the held-out images, nats.
    held_accuracy: on the held-out images, a fraction.
    """

    step: int
    train_loss: float
    held_loss: float
    held_accuracy: float


@dataclass(frozen=True, config=FINITE)
class Run:
    """One training run with its learning curve.

    checkpoint: its name.
    seed: of batches, draws and first weights.
    lr: learning rate.
    purpose: `sweep` (it chose the learning rate) or `race`.
    points: the curve.
    diverged_at: the step by which the loss was no longer finite, else null.
    """

    checkpoint: str
    seed: int
    lr: float
    purpose: str
    points: tuple[Point, ...]
    diverged_at: int | None


@dataclass(frozen=True, config=FINITE)
class Standing:
    """Where one candidate stands in the race.

    name: of the checkpoint.
    state: `racing`; `out` (behind, at 95 %, after its last rung); when the race is over `won`,
    `tied` (cannot be told from the winner) or `behind`; `diverged`.
    rung: the last that it ended, counted from 1; 0 before the first.
    step: of that rung.
    accuracy: of the held-out images after that step, mean over seeds, with the interval over images
    and seeds.
    by_seed: the accuracy of each seed.
    p_best: share of resamples in which it is the best.
    behind_best: how far the best of those that ended the same rung is ahead of it.
    """

    name: str
    state: str = "racing"
    rung: int = 0
    step: int = 0
    accuracy: Estimate | None = None
    by_seed: tuple[float, ...] = ()
    p_best: Share = 0.0
    behind_best: Measured | None = None


MEASURES = ("kendall_tau", "weighted_tau", "pearson_r")
"""How the agreement of a score with accuracy after training is measured; all in [-1, 1]."""

MIN_CHECKPOINTS = 5
"""With fewer, correlations are perfect by chance too often, and resamples of them say nothing."""


@dataclass(frozen=True, config=FINITE)
class Agreement:
    """One score (or reference) against accuracy after training; null where the score or the accuracy
    is the same for all checkpoints. Intervals are those of `n_effective` independent ones.

    n: how many checkpoints.
    kendall_tau: Kendall's tau-b.
    weighted_tau: Vigna's weighted tau (2015), in which the top of both orders counts most.
    pearson_r: Pearson's correlation.
    n_effective: how many independent checkpoints would vary by chance as much as these, which are
    alike where they are neighbours; null in files of older versions, whose intervals (a bootstrap over
    checkpoints) are too narrow.
    """

    n: int
    kendall_tau: Estimate | None
    weighted_tau: Estimate | None
    pearson_r: Estimate | None
    n_effective: float | None = None


@dataclass(frozen=True, config=FINITE)
class OwnRate:
    """The learning rate of one candidate, where each has its own, or the candidates at each layer.

    lr: it was trained with this; where all that were tried diverged, the rate for all.
    sweep: held-out accuracy of its short runs, or the mean of some at its layer, by learning rate (as
    text), null where one diverged.
    at_edge: it is the lowest or highest tried.
    """

    lr: float
    sweep: dict[str, float | None]
    at_edge: bool


@dataclass(frozen=True, config=FINITE)
class GoalConfirmation:
    """The outcome for one goal.

    goal: `fe` or `ft`.
    winner: null where every candidate diverged.
    tie_set: the winner and those that cannot be told from it at 95 %.
    lr: the learning rate of all candidates; where `own_rates` are used, the one that all would have.
    sweep: mean held-out accuracy of a few candidates by learning rate (as text), null where a run
    diverged; empty where one rate was given.
    lr_at_edge: the chosen rate is the lowest or highest tried.
    protocol: how they were trained.
    split: what was held out.
    n_fitted: images trained on.
    n_held: images read on.
    n_seeds: runs of each candidate.
    rungs: steps after which candidates may leave.
    n_steps: training steps of the race.
    n_steps_full: of all candidates to the end.
    n_steps_sweep: of the sweep besides.
    agreement: by score or reference, over the candidates that ended the rung at `agreement_step`.
    agreement_step: null where no rung was ended by all.
    flags: what to doubt.
    own_rates: by candidate, with `--lr-per-candidate`, and for `fe` of several layers; else empty.
    """

    goal: str
    winner: str | None
    tie_set: tuple[str, ...]
    lr: float
    sweep: dict[str, float | None]
    lr_at_edge: bool
    protocol: dict[str, Any]
    split: str
    n_fitted: Number
    n_held: Number
    n_seeds: Number
    rungs: Annotated[tuple[Number, ...], MinLen(1)]
    n_steps: Number
    n_steps_full: Annotated[Number, Ge(1)]
    n_steps_sweep: Number
    agreement: dict[str, Agreement] = field(default_factory=dict)
    agreement_step: int | None = None
    flags: tuple[str, ...] = ()
    own_rates: dict[str, OwnRate] = field(default_factory=dict)


@dataclass(frozen=True, config=FINITE)
class GoalRuns(GoalConfirmation):
    """The outcome for one goal with everything that was run for it.

    standings: one a candidate.
    runs: with their learning curves, those of the sweep too.
    """

    standings: tuple[Standing, ...] = ()
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, config=FINITE)
class ConfirmationRecord:
    """What `confirm.json` holds.

    schema: name and number of this layout.
    version: of ckptsel; its key in JSON is `ckptsel`.
    created: when (UTC).
    ranking_created: when the ranking was made that was confirmed.
    settings: every option, as it was used.
    environment: versions and machine.
    time_s: seconds by stage.
    goals: by goal, what came out.
    files: SHA-256 of `confirm.safetensors`, by that name; empty in files of older versions.
    """

    version: str | None
    created: str
    ranking_created: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    time_s: dict[str, float]
    goals: dict[str, GoalRuns]
    files: dict[str, str] = field(default_factory=dict)
    schema: str = SCHEMA
