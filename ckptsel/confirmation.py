"""`confirm`: from a ranking to one whose best candidates were trained for real.

ranking -> candidates -> for each goal: learning rate (sweep) -> race -> agreement with the scores
        -> the ranking in its new order, and everything that was measured
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.agreement import Agreement, measure_agreement
from ckptsel.board import Board
from ckptsel.cache import Cache
from ckptsel.checkpoints import Checkpoint, scan_checkpoints
from ckptsel.confirmed import GoalConfirmation, Point, Run, from_known_keys
from ckptsel.curves import EventFiles
from ckptsel.environment import describe_environment
from ckptsel.errors import CheckpointError, DataError, InputError
from ckptsel.output import check_writable, read_ranking, write_confirmation
from ckptsel.progress import Progress
from ckptsel.protocols import Protocol, make_protocol
from ckptsel.race import Race, race
from ckptsel.ranking import Ranking, Row
from ckptsel.reorder import reorder
from ckptsel.settings import ConfirmSettings, RankSettings, make_confirm_settings
from ckptsel.splits import stratified_sample
from ckptsel.transfer import Task, Transfer
from ckptsel.workspace import Workspace, open_workspace

MIN_CANDIDATES = 5
N_SWEEP_CANDIDATES = 3
SWEEP_HELD_OUT = 0.2
"""Part of the fitted images that the sweep holds out; those of the race stay unseen."""


@dataclass(frozen=True)
class Outcome:
    """What was measured for one goal. predictions: held-out class numbers (n_seeds, n_images) by
    `<checkpoint>/<step>`. labels: the true ones, (n_images,)."""

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
    ranking, predictions = read_ranking(folder)
    check_writable(folder)
    confirmation = confirm_ranking(ranking, predictions, settings, quiet, folder)
    write_confirmation(folder, confirmation)
    return confirmation.ranking


def confirm_ranking(
    ranking: Ranking,
    predictions: dict[str, NDArray[Any]],
    settings: ConfirmSettings,
    quiet: bool = True,
    folder: Path | None = None,
) -> Confirmation:
    """As `confirm`, for a ranking in memory.

    predictions: those of the scores, as `rank` gives them. folder: where TensorBoard's event files
    go, if the settings ask for them.
    """
    start = time.monotonic()
    rows = choose_candidates(ranking, settings.n_candidates)
    workspace = _open_workspace(ranking, rows, settings, quiet)
    checkpoints = _find_checkpoints(ranking, rows, settings)
    goals = ("fe", "ft") if settings.goal == "both" else (settings.goal or ranking.goal,)
    outcomes = {}
    with tempfile.TemporaryDirectory(prefix="ckptsel-") as temporary:
        kept = workspace.cache.folder is not None
        cache = workspace.cache if kept else Cache(Path(temporary))
        for goal in goals:
            with workspace.timed(goal), EventFiles(folder, goal, settings.tensorboard) as events:
                confirming = _Confirming(goal, rows, checkpoints, workspace, cache, settings)
                outcomes[goal] = confirming.run(events)
    workspace.time_s["total"] = time.monotonic() - start
    reordered = reorder(
        ranking,
        ranking.goal if ranking.goal in goals else goals[0],
        {goal: outcome.summary for goal, outcome in outcomes.items()},
        {goal: outcome.race for goal, outcome in outcomes.items()},
        predictions,
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


def choose_candidates(ranking: Ranking, n: int | None = None) -> list[Row]:
    """The best `n` by score, in the order of training.

    None takes the tie set, at least MIN_CANDIDATES, and the last checkpoint, which is what one would
    use without a ranking.

    Raises InputError where that is fewer than two.
    """
    ranked = [row for row in ranking if row.score_rank is not None and row.copy_of is None]
    ranked.sort(key=lambda row: row.score_rank or 0)
    n_tied = sum(row.score_tie for row in ranked)
    chosen = ranked[: n or max(MIN_CANDIDATES, n_tied)]
    last = max(ranked, key=lambda row: row.order)
    if n is None and last not in chosen:
        chosen.append(last)
    if len(chosen) < 2:
        raise InputError(
            f"there are {len(chosen)} candidates ({', '.join(row.name for row in chosen)}); a race "
            "needs two. Ask for more with --candidates, or rank more checkpoints."
        )
    return sorted(chosen, key=lambda row: row.order)


def _open_workspace(
    ranking: Ranking, rows: Sequence[Row], settings: ConfirmSettings, quiet: bool
) -> Workspace:
    """The workspace of the ranking. Raises DataError where the images are no longer the same."""
    recorded = {k: tuple(v) if isinstance(v, list) else v for k, v in ranking.settings.items()}
    rank_settings = from_known_keys(RankSettings, recorded)
    changes = {
        name: getattr(settings, name)
        for name in ("data_root", "device", "precision", "workers", "cache_dir", "cache")
        if getattr(settings, name) is not None
    }
    changes.setdefault("device", None)
    changes.setdefault("precision", None if changes["device"] else recorded["precision"])
    rank_settings = dataclasses.replace(rank_settings, model=ranking.model["name"], **changes)
    data = settings.data or ranking.target["data"]
    workspace = open_workspace(rank_settings, [], data, quiet)
    if workspace.target.describe()["fingerprint"] != ranking.target["fingerprint"]:
        raise DataError(
            f"the images or labels of {data} are not those of the ranking: they have changed since. "
            "Rank again, or name the right ones with --data."
        )
    return workspace


def _find_checkpoints(
    ranking: Ranking, rows: Sequence[Row], settings: ConfirmSettings
) -> list[Checkpoint]:
    """The candidates' files. Raises CheckpointError where one has moved or changed."""
    root = Path(settings.checkpoints or ranking.settings["checkpoints"])
    if not root.exists():
        raise CheckpointError(
            f"the ranking's checkpoints are no longer at {root}. Name where they are now with "
            "--checkpoints."
        )
    found = {c.name: c for c in scan_checkpoints(root, ranking.settings["weights"])}
    problems = []
    for row in rows:
        if row.name not in found:
            problems.append(f"  {row.name}: not there any more")
        elif found[row.name].digest != row.digest:
            digest = found[row.name].digest
            problems.append(
                f"  {row.name}: has changed (digest {(digest or 'none')[:12]}, ranked "
                f"{(row.digest or 'none')[:12]})"
            )
    if problems:
        raise CheckpointError(
            f"{len(problems)} of {len(rows)} candidates are not what was ranked, in {root}:\n"
            + "\n".join(problems)
            + "\nRank again, or name where they are now with --checkpoints."
        )
    return [found[row.name] for row in rows]


class _Confirming:
    """One goal: the sweep, then the race, with the same split and protocol for every candidate."""

    def __init__(
        self,
        goal: str,
        rows: Sequence[Row],
        checkpoints: Sequence[Checkpoint],
        workspace: Workspace,
        cache: Cache,
        settings: ConfirmSettings,
    ) -> None:
        self.goal, self.rows, self.checkpoints = goal, rows, checkpoints
        self.workspace, self.cache, self.settings = workspace, cache, settings
        self.fitted, self.held = workspace.target.evaluation.folds[0]
        self.seeds = range(settings.seed, settings.seed + settings.n_seeds)
        self.protocol = make_protocol(
            goal,
            len(self.fitted),
            workspace.backbone.preprocessing.input_size[1],
            settings.preset,
            settings.steps,
            settings.epochs,
            lrs=None if settings.lr is None else tuple(sorted(settings.lr)),
            **{
                name: getattr(settings, name)
                for name in (
                    "batch_size",
                    "optimizer",
                    "schedule",
                    "weight_decay",
                    "augment",
                    "ema",
                )
            },
        )
        self.runs: list[Run] = []
        self.flags: list[str] = []

    def run(self, events: EventFiles) -> Outcome:
        lr, sweep, n_steps_sweep = self._choose_rate()
        task = self._task(self.protocol, self.fitted, self.held)
        transfers = {
            (checkpoint.name, seed): Transfer(task, checkpoint, seed, lr)
            for checkpoint in self.checkpoints
            for seed in self.seeds
        }
        names = [checkpoint.name for checkpoint in self.checkpoints]
        rungs = self.protocol.rungs
        quiet = self.workspace.quiet
        with Board(self.goal, names, len(self.seeds), rungs, quiet) as board:

            def on_point(name: str, seed: int, point: Point) -> None:
                board.point(name, seed, point)
                events.point(name, seed, point)

            def advance(name: str, seed: int, step: int) -> NDArray[np.bool_] | None:
                n_chunks = task.n_chunks
                predicted = transfers[name, seed].advance(step, on_point)
                if task.n_chunks > n_chunks:
                    flag = (
                        f"out of memory: batches of {self.protocol.batch_size} go through in "
                        f"{task.n_chunks} parts, gradients accumulated"
                    )
                    board.note(flag)
                    self.flags.append(flag)
                return None if predicted is None else predicted == task.labels

            ended = race(
                names,
                self.seeds,
                rungs,
                advance,
                self.settings.full,
                self.settings.tolerance,
                board.standing,
            )
        for transfer in transfers.values():
            transfer.forget_training()
            self._keep_run(transfer, "race")
        measured, step = self._agreement(ended)
        target = self.workspace.target
        summary = GoalConfirmation(
            goal=self.goal,
            winner=ended.winner,
            tie_set=ended.tie_set,
            lr=lr,
            sweep=sweep,
            lr_at_edge=len(sweep) > 1 and lr in (self.protocol.lrs[0], self.protocol.lrs[-1]),
            protocol=self.protocol.to_dict(),
            split=_split_text(target.evaluation.method),
            n_fitted=len(self.fitted),
            n_held=len(self.held),
            n_seeds=len(self.seeds),
            rungs=rungs,
            n_steps=ended.n_steps,
            n_steps_full=ended.n_steps_full,
            n_steps_sweep=n_steps_sweep,
            agreement=measured,
            agreement_step=step,
            flags=(*self.flags, *self._flags(ended, lr, sweep)),
        )
        predictions = {
            f"{name}/{rungs[rung - 1]}": np.stack(
                [transfers[name, seed].record.predictions[rungs[rung - 1]] for seed in self.seeds]
            )
            for rung, correct in ended.correct.items()
            for name in correct
        }
        return Outcome(summary, ended, tuple(self.runs), predictions, task.labels)

    def _task(self, protocol: Protocol, fitted: NDArray[np.int64], held: NDArray[np.int64]) -> Task:
        return Task(protocol, self.workspace, self.cache, fitted, held)

    def _choose_rate(self) -> tuple[float, dict[str, float | None], int]:
        """The learning rate with the highest mean accuracy over a few candidates and images that
        the race does not read; every rate's accuracy; the training steps that it took.

        Raises InputError where no rate trains all of them.
        """
        lrs = self.protocol.lrs
        if len(lrs) == 1:
            return lrs[0], {}, 0
        labels = self.workspace.target.labels[self.fitted]
        n_held = max(1, round(SWEEP_HELD_OUT * len(labels)))
        held = stratified_sample(labels, n_held, (self.settings.seed, 6))
        fitted = np.setdiff1d(np.arange(len(labels)), held)
        protocol = self.protocol.for_sweep(len(fitted))
        task = self._task(protocol, self.fitted[fitted], self.fitted[held])
        places = np.linspace(0, len(self.checkpoints) - 1, N_SWEEP_CANDIDATES).round()
        chosen = [self.checkpoints[int(i)] for i in np.unique(places)]
        accuracy: dict[float, float | None] = {}
        title = f"{self.goal} learning rate"
        with Progress(title, len(lrs) * len(chosen), quiet=self.workspace.quiet) as progress:
            for lr in lrs:
                reached = []
                for checkpoint in chosen:
                    transfer = Transfer(task, checkpoint, self.seeds[0], lr)
                    if transfer.advance(protocol.n_steps) is not None:
                        reached.append(transfer.record.points[-1].held_accuracy)
                    self._keep_run(transfer, "sweep")
                    last = f"{100 * reached[-1]:.1f} %" if reached else "diverged"
                    progress.advance(f"{lr:g} on {checkpoint.name}: {last}")
                accuracy[lr] = float(np.mean(reached)) if len(reached) == len(chosen) else None
        trained = {lr: value for lr, value in accuracy.items() if value is not None}
        if not trained:
            raise InputError(
                f"every learning rate of {', '.join(f'{lr:g}' for lr in lrs)} diverged ({self.goal}). "
                "Give lower ones with --lr."
            )
        best = max(trained, key=lambda lr: (trained[lr], -lr))
        n_steps = len(lrs) * len(chosen) * protocol.n_steps
        return best, {f"{lr:g}": value for lr, value in accuracy.items()}, n_steps

    def _keep_run(self, transfer: Transfer, purpose: str) -> None:
        self.runs.append(
            Run(
                transfer.checkpoint.name,
                transfer.seed,
                transfer.lr,
                purpose,
                tuple(transfer.record.points),
                transfer.record.diverged_at,
            )
        )

    def _agreement(self, ended: Race) -> tuple[dict[str, Agreement], int | None]:
        """Scores and baselines against accuracy at the last rung that everyone reached who did not
        diverge."""
        diverged = {s.name for s in ended.standings if s.state == "diverged"}
        rows = [row for row in self.rows if row.name not in diverged]
        rungs = [r for r, c in ended.correct.items() if all(row.name in c for row in rows)]
        if not rungs or not rows:
            return {}, None
        correct = ended.correct[rungs[-1]]
        accuracy = np.array([correct[row.name].mean() for row in rows])
        scores = {
            name: np.array([row.scores[name].value for row in rows]) for name in rows[0].scores
        }
        scores["epoch"] = np.array([float(row.order) for row in rows])
        if all(row.source_accuracy is not None for row in rows):
            scores["source_accuracy"] = np.array([float(row.source_accuracy or 0) for row in rows])
        return measure_agreement(scores, accuracy), ended.rungs[rungs[-1] - 1]

    def _flags(self, ended: Race, lr: float, sweep: dict[str, float | None]) -> list[str]:
        flags = []
        lrs = self.protocol.lrs
        if len(lrs) > 1 and lr in (lrs[0], lrs[-1]):
            flags.append(
                f"learning rate {lr:g} is at the edge of those tried "
                f"({', '.join(sweep)}): give others with --lr"
            )
        flags += [
            f"{s.name} diverged by step {s.step} and left the race"
            for s in ended.standings
            if s.state == "diverged"
        ]
        if len(self.seeds) == 1:
            flags.append("one seed: intervals are over images only")
        return flags


def _split_text(method: str) -> str:
    return "first fold of the cross-validation" if method == "cross-validation" else method
