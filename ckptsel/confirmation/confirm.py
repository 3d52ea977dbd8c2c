"""`confirm`: from a ranking to one whose best candidates were trained for real.

ranking -> candidates -> for each goal: learning rate (sweep) -> race -> agreement with the scores
        -> the ranking in its new order, and everything that was measured
"""

import dataclasses
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.averages import average_of
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common.environment import describe_environment, package_version, utc_now
from ckptsel.common.remote import kept_path, local_path
from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.confirmation.board import Board
from ckptsel.confirmation.engines import open_engine
from ckptsel.confirmation.event_files import EventFiles
from ckptsel.confirmation.learning_rate import Choice, Sweep, choose_rate, spread
from ckptsel.confirmation.protocols import TrainingPlan, make_protocol
from ckptsel.confirmation.race import Correct, Race, race
from ckptsel.confirmation.reorder import reorder
from ckptsel.confirmation.runs import Engine, Task, Transfer
from ckptsel.errors import CheckpointError, InputError
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoder import LAST
from ckptsel.features.store import Cache
from ckptsel.ranking.ray_engine import describe_cluster, join_cluster
from ckptsel.ranking.reopen import Named, device_and_precision, reopen
from ckptsel.ranking.workspace import Workspace, check_devices
from ckptsel.results.confirmation import (
    Agreement,
    ConfirmationRecord,
    GoalConfirmation,
    GoalRuns,
    OwnRate,
    Point,
    Run,
)
from ckptsel.results.files import check_writable, read_ranking, write_confirmation
from ckptsel.results.ranking import EPOCH, Ranking, Row
from ckptsel.settings.confirm import ConfirmSettings, make_confirm_settings
from ckptsel.settings.kinds import Precision

AS_A_WHOLE = (
    "checkpoints were fine-tuned as a whole, with the new layer on the last: the layers that were read "
    "say nothing here"
)
"""Where the last layer was not read."""

MIN_CANDIDATES = 5
N_SPREAD = 8


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


@dataclass(frozen=True)
class Confirmation:
    """Everything that was measured, and the ranking in its new order."""

    ranking: Ranking
    outcomes: dict[str, Outcome]
    settings: dict[str, Any]
    environment: dict[str, Any]
    time_s: dict[str, float] = field(default_factory=dict)

    def record(self) -> ConfirmationRecord:
        """What `confirm.json` holds."""
        return ConfirmationRecord(
            version=package_version("ckptsel"),
            created=utc_now(),
            ranking_created=self.ranking.created,
            settings=self.settings,
            environment=self.environment,
            time_s=self.time_s,
            goals={
                goal: GoalRuns(
                    **vars(outcome.summary), standings=outcome.race.standings, runs=outcome.runs
                )
                for goal, outcome in self.outcomes.items()
            },
        )

    def predictions(self) -> dict[str, NDArray[np.int64]]:
        """Held-out class numbers (n_seeds, n_images) by `<goal>/<checkpoint>/<step>`, and the true
        ones by `<goal>/labels`."""
        arrays = {}
        for goal, outcome in self.outcomes.items():
            arrays[f"{goal}/labels"] = outcome.labels
            for key, value in outcome.predictions.items():
                arrays[f"{goal}/{key}"] = value
        return arrays


def write_confirmation_of(folder: Path, confirmation: Confirmation) -> None:
    """Write a confirmation beside its ranking. Raises OutputError where that cannot be done."""
    write_confirmation(
        folder, confirmation.ranking, confirmation.record(), confirmation.predictions()
    )


def confirm(
    run: str | Path,
    settings: ConfirmSettings | None = None,
    quiet: bool = True,
    **options: Any,
) -> Ranking:
    """Train the best candidates of a ranking for real; the ranking in the order of what came out.

    run: the folder that `rank --out` wrote; it gets `confirm.json` and the new `ranking.json`.
    options: fields of `ConfirmSettings`, where no `settings` are given.
    Raises UsageError for options; InputError where there are fewer than two candidates, or the
    checkpoints or the data are not those of the ranking.
    """
    settings = settings or make_confirm_settings(options)
    folder = Path(run)
    ranking, _ = read_ranking(folder)
    check_writable(folder)
    confirmation = confirm_ranking(ranking, settings, quiet, folder)
    write_confirmation_of(folder, confirmation)
    return confirmation.ranking


def confirm_ranking(
    ranking: Ranking,
    settings: ConfirmSettings,
    quiet: bool = True,
    folder: Path | None = None,
) -> Confirmation:
    """As `confirm`, for a ranking in memory.

    folder: where TensorBoard's event files go, if the settings ask for them.
    """
    start = time.monotonic()
    goals = ("fe", "ft") if settings.goal == "both" else (settings.goal or ranking.goal,)
    rows = {goal: choose_candidates(ranking, goal, settings.n_candidates) for goal in goals}
    checkpoints = _find_checkpoints(ranking, [*chain(*rows.values())], settings, quiet)
    found = list(checkpoints.values())
    named = Named(settings.model, settings.data, settings.data_root)
    workspace = reopen(ranking, found, named, _machine(ranking, settings), quiet)
    outcomes = {}
    with (
        tempfile.TemporaryDirectory(prefix="ckptsel-") as temporary,
        open_engine(settings, workspace, found) as engine,
    ):
        # A race goes on from what it keeps.
        cache = workspace.cache if workspace.cache.can_write() else Cache(Path(temporary))
        for goal in goals:
            with workspace.timed(goal), EventFiles(folder, goal, settings.tensorboard) as events:
                outcomes[goal] = confirm_goal(
                    goal,
                    rows[goal],
                    [Candidate(checkpoints[row.checkpoint], row.layer) for row in rows[goal]],
                    workspace,
                    cache,
                    engine,
                    settings,
                    events,
                    ranking.lower_is_better,
                )
    workspace.time_s["total"] = time.monotonic() - start
    notes = [*workspace.cache.notes(), *cache.notes()]
    if settings.engine == "ray":
        notes.append(f"trained on {describe_cluster(settings)}")
    reordered = reorder(
        _with_notes(ranking, notes),
        ranking.goal if ranking.goal in goals else goals[0],
        {goal: outcome.summary for goal, outcome in outcomes.items()},
        {goal: outcome.race for goal, outcome in outcomes.items()},
    )
    return Confirmation(
        reordered,
        outcomes,
        {
            **dataclasses.asdict(settings),
            "device": workspace.device,
            "precision": workspace.precision,
        },
        describe_environment(workspace.device),
        {stage: round(seconds, 3) for stage, seconds in workspace.time_s.items()},
    )


def _machine(ranking: Ranking, settings: ConfirmSettings) -> ConfirmSettings:
    """The settings for this process, where others train: their first device, or the precision of theirs.

    Raises UsageError where this machine does not have a device, and what `join_cluster` raises.
    """
    if settings.engine == "ray":
        there = dataclasses.replace(settings, device=join_cluster(settings))
        precision = device_and_precision(ranking, there)[1]
        return dataclasses.replace(settings, precision=cast(Precision, precision))
    if settings.devices is None:
        return settings
    check_devices(settings.devices)
    return dataclasses.replace(settings, device=settings.devices[0], devices=None)


def _with_notes(ranking: Ranking, notes: Sequence[str]) -> Ranking:
    """Each note once, in whatever run it was made."""
    return dataclasses.replace(ranking, notes=tuple(dict.fromkeys((*ranking.notes, *notes))))


def choose_candidates(ranking: Ranking, goal: str, n: int | None = None) -> list[Row]:
    """The best `n` by score, in the order of training.

    None takes the tie set, at least MIN_CANDIDATES, and the last checkpoint (at its last layer where
    that was read), which is what one would use without a ranking. Where the epoch decided, whose
    neighbours are much alike, and for `ft`, which no score was found to foretell, they are spread over
    the trajectory instead, by default N_SPREAD. Fine-tuning trains a checkpoint as a whole: for `ft` its
    row at the last layer stands for it; its best, where the last layer was not read.
    Raises InputError where that is fewer than two.
    """
    ranked = [row for row in ranking if row.score_rank is not None and row.copy_of is None]
    ranked.sort(key=lambda row: row.score_rank or 0)
    if goal == "ft":
        at_last = {row.checkpoint: row for row in ranked if row.layer == LAST}
        best: dict[str, Row] = {}
        for row in ranked:
            best.setdefault(row.checkpoint, at_last.get(row.checkpoint, row))
        ranked = list(best.values())
    if goal == "ft" or ranking.score == EPOCH:
        chosen = spread(sorted(ranked, key=lambda row: row.order), n or N_SPREAD)
    else:
        n_tied = sum(row.score_tie for row in ranked)
        chosen = ranked[: n or max(MIN_CANDIDATES, n_tied)]
    files = [row for row in ranked if not row.average_of] or ranked
    last = max(files, key=lambda row: (row.order, row.layer == LAST))
    if n is None and last not in chosen:
        chosen.append(last)
    if len(chosen) < 2:
        raise InputError(
            f"there are {len(chosen)} candidates ({', '.join(row.name for row in chosen)}); a race "
            "needs two. Ask for more with --candidates, or rank more checkpoints."
        )
    return sorted(chosen, key=lambda row: row.order)


def _find_checkpoints(
    ranking: Ranking, rows: Sequence[Row], settings: ConfirmSettings, quiet: bool
) -> dict[str, Checkpoint]:
    """The candidates' checkpoints, by their names, in the order of training; averages of what files
    there hold. Raises CheckpointError where one has moved or changed."""
    if settings.checkpoints is not None:
        root = local_path(settings.checkpoints, settings.cache_dir, quiet, NOT_NEEDED)
    else:
        root = kept_path(ranking.settings["checkpoints"], settings.cache_dir)
    if not root.exists():
        raise CheckpointError(
            f"the ranking's checkpoints are no longer at {root}. Name where they are now with "
            "--checkpoints."
        )
    cache = Cache.open(settings.cache is not False, settings.cache_dir, settings.cache_size)
    scanned = scan_checkpoints(root, ranking.settings["weights"], quiet=quiet, cache=cache)
    found = {c.name: c for c in scanned}
    rows = sorted(rows, key=lambda row: row.order)
    wanted = dict(file for row in rows for file in _files_of(row))
    problems = []
    for name, ranked in wanted.items():
        if name not in found:
            problems.append(f"  {name}: not there any more")
        elif found[name].digest != ranked:
            digest = found[name].digest
            problems.append(
                f"  {name}: has changed (digest {(digest or 'none')[:12]}, ranked "
                f"{(ranked or 'none')[:12]})"
            )
    if problems:
        raise CheckpointError(
            f"{len(problems)} of {len(wanted)} checkpoints are not what was ranked, in {root}:",
            *problems,
            "Rank again, or name where they are now with --checkpoints.",
        )
    return {row.checkpoint: _found_of(row, found) for row in rows}


def _files_of(row: Row) -> list[tuple[str, str | None]]:
    """(name, digest) of each checkpoint that a candidate is made of."""
    if row.average_of:
        return [(part.name, part.digest) for part in row.average_of]
    return [(row.checkpoint, row.digest)]


def _found_of(row: Row, found: Mapping[str, Checkpoint]) -> Checkpoint:
    """A candidate's checkpoint, of those that were found."""
    if not row.average_of:
        return found[row.checkpoint]
    average = average_of([found[part.name] for part in row.average_of])
    return dataclasses.replace(average, name=row.checkpoint)


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
