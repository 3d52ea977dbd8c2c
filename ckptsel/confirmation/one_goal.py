"""One goal of a confirmation: the learning rate, the race, and how far the scores agree with it."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.confirmation.board import Board
from ckptsel.confirmation.event_files import EventFiles
from ckptsel.confirmation.learning_rate import Choice, Sweep, choose_rate
from ckptsel.confirmation.protocols import TrainingPlan, make_protocol
from ckptsel.confirmation.race import Correct, Race, race
from ckptsel.confirmation.runs import Engine, Task, Transfer
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoder import LAST
from ckptsel.features.store import Cache
from ckptsel.ranking.workspace import Workspace
from ckptsel.results.confirmation import Agreement, GoalConfirmation, OwnRate, Point, Run
from ckptsel.results.ranking import Row
from ckptsel.settings.confirm import ConfirmSettings

AS_A_WHOLE = (
    "checkpoints were fine-tuned as a whole, with the new layer on the last: the layers that were read "
    "say nothing here"
)
"""Where the last layer was not read."""


@dataclass(frozen=True)
class Outcome:
    """What was measured for one goal.

    predictions: held-out class numbers (n_seeds, n_images) by `<checkpoint>/<step>`.
    labels: the true ones, (n_images,).
    """

    summary: GoalConfirmation
    race: Race
    runs: tuple[Run, ...]
    predictions: dict[str, NDArray[np.int64]]
    labels: NDArray[np.int64]


def confirm_goal(
    goal: str,
    rows: Sequence[Row],
    candidates: Sequence[Candidate],
    workspace: Workspace,
    cache: Cache,
    engine: Engine,
    settings: ConfirmSettings,
    events: EventFiles,
    lower_is_better: Collection[str] = (),
) -> Outcome:
    """The learning rate, then the race, with the same split and protocol for every candidate.

    lower_is_better: scores of which that is so.
    """
    fitted, held = workspace.target.evaluation.folds[0]
    size = workspace.encoder.preparation.shape[-1]
    protocol = _protocol(goal, len(fitted), size, settings)
    task = Task(protocol, workspace, cache, fitted, held, engine)
    seeds = range(settings.seed, settings.seed + settings.n_seeds)
    sweep = choose_rate(
        task,
        candidates,
        seeds[0],
        workspace.quiet,
        search=settings.lr is None,
        per_candidate=settings.lr_per_candidate,
    )
    transfers = {
        (candidate.name, seed): Transfer(task, candidate, seed, sweep.rate_of(candidate.name))
        for candidate in candidates
        for seed in seeds
    }
    ended = _race(task, transfers, settings, workspace.quiet, events)
    steps = {standing.name: standing.step for standing in ended.standings}
    for transfer in transfers.values():
        transfer.forget_training()
    predictions = {
        f"{name}/{step}": np.stack([transfers[name, s].record.predictions[step] for s in seeds])
        for step, correct in ended.correct.items()
        for name in correct
    }
    runs = [_run(t, "sweep", t.task.protocol.n_steps) for t in sweep.runs]
    runs += [_run(t, "race", steps[name]) for (name, _), t in transfers.items()]
    agreement = _agreement(_one_trajectory(rows, goal, ended), ended, lower_is_better)
    summary = _summary(task, agreement, sweep, ended, len(seeds))
    if goal == "ft" and any(candidate.layer != LAST for candidate in candidates):
        summary = dataclasses.replace(summary, flags=(*summary.flags, AS_A_WHOLE))
    return Outcome(summary, ended, tuple(runs), predictions, task.labels)


def _summary(
    task: Task,
    agreed: tuple[dict[str, Agreement], int | None],
    sweep: Sweep,
    ended: Race,
    n_seeds: int,
) -> GoalConfirmation:
    agreement, agreement_step = agreed
    return GoalConfirmation(
        goal=task.protocol.goal,
        winner=ended.winner,
        tie_set=ended.tie_set,
        lr=sweep.lr,
        sweep=_by_text(sweep),
        lr_at_edge=sweep.at_edge,
        own_rates={
            name: OwnRate(choice.lr, _by_text(choice), choice.at_edge)
            for name, choice in sweep.own.items()
        },
        protocol=task.protocol.to_dict(),
        split=_split_text(task.workspace.target.evaluation.method),
        n_fitted=len(task.fitted),
        n_held=len(task.held),
        n_seeds=n_seeds,
        rungs=task.protocol.rungs,
        n_steps=ended.n_steps,
        n_steps_full=ended.n_steps_full,
        n_steps_sweep=sweep.n_steps,
        agreement=agreement,
        agreement_step=agreement_step,
        flags=tuple(_flags(sweep, task, ended, n_seeds)),
    )


def _by_text(choice: Choice) -> dict[str, float | None]:
    return {f"{lr:g}": accuracy for lr, accuracy in choice.accuracy.items()}


def _protocol(goal: str, n_fitted: int, size: int, settings: ConfirmSettings) -> TrainingPlan:
    return make_protocol(
        goal,
        n_fitted,
        size,
        settings.preset,
        settings.steps,
        settings.epochs,
        lrs=None if settings.lr is None else tuple(sorted(set(settings.lr))),
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        weight_decay=settings.weight_decay,
        augment=settings.augment,
        ema=settings.ema,
    )


def _race(
    task: Task,
    transfers: dict[tuple[str, int], Transfer],
    settings: ConfirmSettings,
    quiet: bool,
    events: EventFiles,
) -> Race:
    names = list(dict.fromkeys(name for name, _ in transfers))
    seeds = list(dict.fromkeys(seed for _, seed in transfers))
    for (name, seed), transfer in transfers.items():
        for point in transfer.record.points:
            events.point(name, seed, point)
    rungs = task.protocol.rungs
    with Board(task.protocol.goal, names, len(seeds), rungs, quiet) as board:
        if task.n_chunks > 1:
            # It showed in the sweep.
            board.note(_chunks_text(task))

        def on_points(name: str, seed: int, points: Sequence[Point]) -> None:
            board.point(name, seed, points[-1])
            for point in points:
                events.point(name, seed, point)

        def advance(runs: Sequence[tuple[str, int]], step: int) -> list[Correct | None]:
            n_chunks = task.n_chunks
            for _ in task.engine([transfers[run] for run in runs], step, on_points):
                if task.n_chunks > n_chunks:
                    board.note(_chunks_text(task))
                    n_chunks = task.n_chunks
            predicted = [transfers[run].record.predictions.get(step) for run in runs]
            return [None if each is None else each == task.labels for each in predicted]

        return race(names, seeds, rungs, advance, settings.full, settings.tolerance, board.standing)


def _run(transfer: Transfer, purpose: str, last_step: int) -> Run:
    """What is kept of a run: its curve up to where it left, not what an earlier run had beyond."""
    record = transfer.record
    return Run(
        transfer.candidate.name,
        transfer.seed,
        transfer.lr,
        purpose,
        tuple(point for point in record.points if point.step <= last_step),
        record.diverged_at,
    )


def _one_trajectory(rows: Sequence[Row], goal: str, ended: Race) -> list[Row]:
    """Rows whose scores make one curve over the epochs: no averages, and of the others those at the
    winner's layer; for `ft`, where each checkpoint has one row, all."""
    layer = next((row.layer for row in rows if row.name == ended.winner), None)
    files = [row for row in rows if not row.average_of]
    return [row for row in files if goal == "ft" or row.layer == layer]


def _agreement(
    rows: Sequence[Row], ended: Race, lower_is_better: Collection[str]
) -> tuple[dict[str, Agreement], int | None]:
    """Scores and references against accuracy at the last rung that everyone reached who did not
    diverge. A score whose lowest value is the best agrees where it falls as accuracy rises."""
    diverged = {s.name for s in ended.standings if s.state == "diverged"}
    rows = [row for row in rows if row.name not in diverged]
    steps = [step for step, c in ended.correct.items() if all(row.name in c for row in rows)]
    if not steps or not rows:
        return {}, None
    correct = ended.correct[steps[-1]]
    accuracy = np.array([correct[row.name].mean() for row in rows])
    scores = {
        name: np.array([row.scores[name].value for row in rows])
        * (-1 if name in lower_is_better else 1)
        for name in rows[0].scores
        if all(name in row.scores for row in rows)
    }
    scores["epoch"] = np.array([float(row.order) for row in rows])
    if all(row.source_accuracy is not None for row in rows):
        scores["source_accuracy"] = np.array([float(row.source_accuracy or 0) for row in rows])
    return measure_agreement(scores, accuracy), steps[-1]


def _flags(sweep: Sweep, task: Task, ended: Race, n_seeds: int) -> Iterator[str]:
    for whose, choice in (("", sweep), *((f" of {name}", c) for name, c in sweep.own.items())):
        if choice.at_edge:
            tried = ", ".join(f"{lr:g}" for lr in choice.accuracy)
            yield (
                f"learning rate {choice.lr:g}{whose} is at the edge of those tried ({tried}): see --lr"
            )
    for standing in ended.standings:
        if standing.state == "diverged":
            yield f"{standing.name} diverged by step {standing.step} and left the race"
    if task.n_chunks > 1:
        yield _chunks_text(task)
    if n_seeds == 1:
        yield "one seed: intervals are over images only"


def _chunks_text(task: Task) -> str:
    return (
        f"out of memory: batches of {task.protocol.batch_size} go through in {task.n_chunks} parts, "
        "gradients accumulated"
    )


def _split_text(method: str) -> str:
    return "first fold of the cross-validation" if method == "cross-validation" else method
