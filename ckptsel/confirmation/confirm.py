"""`confirm`: from a ranking to one whose best candidates were trained for real.

ranking -> candidates -> for each goal: learning rate (sweep) -> race -> agreement with the scores
        -> the ranking in its new order, and everything that was measured
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ckptsel.common.environment import describe_environment, package_version, utc_now
from ckptsel.confirmation.candidates import choose_candidates, find_checkpoints
from ckptsel.confirmation.engines import open_engine
from ckptsel.confirmation.event_files import EventFiles
from ckptsel.confirmation.one_goal import Outcome, confirm_goal
from ckptsel.confirmation.reorder import reorder
from ckptsel.features.candidate import Candidate
from ckptsel.features.store import Cache
from ckptsel.ranking.ray_engine import describe_cluster, join_cluster
from ckptsel.ranking.reopen import Named, device_and_precision, reopen
from ckptsel.ranking.resolve import check_devices
from ckptsel.results.confirmation import (
    ConfirmationRecord,
    GoalRuns,
)
from ckptsel.results.files import check_writable, read_ranking, write_confirmation
from ckptsel.results.ranking import Ranking
from ckptsel.settings.confirm import ConfirmSettings, make_confirm_settings
from ckptsel.settings.kinds import Precision


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
    checkpoints = find_checkpoints(ranking, [*chain(*rows.values())], settings, quiet)
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
