"""Where runs are trained: in this process, in several side by side, or on a Ray cluster.

What a run is lies in the store, so that whoever gets it next goes on with it; its record comes back
besides. On machines that share no store it begins again at each rung, with the same numbers.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.confirmation.protocols import TrainingPlan
from ckptsel.confirmation.runs import Engine, OnPoints, Record, Task, Transfer, train_here
from ckptsel.errors import InputError
from ckptsel.features.store import Cache
from ckptsel.ranking.calls import Call, Crew, Job, Lost, opening_of
from ckptsel.ranking.processes import Processes
from ckptsel.ranking.ray_engine import Cluster
from ckptsel.ranking.workspace import Workspace
from ckptsel.settings.confirm import ConfirmSettings


@contextmanager
def open_engine(
    settings: ConfirmSettings, workspace: Workspace, checkpoints: Sequence[Checkpoint]
) -> Iterator[Engine]:
    """The engine that the settings ask for, for runs of these checkpoints."""
    devices = settings.devices or (workspace.device,) * settings.processes
    opening = opening_of(workspace, checkpoints)
    if settings.engine == "ray":
        # The devices are those of the cluster, not of this machine.
        there = {name: getattr(settings, name) for name in ("engine", "ray_address", "device")}
        there_settings = dataclasses.replace(opening.settings, **there)
        with Cluster(dataclasses.replace(opening, settings=there_settings)) as cluster:
            yield partial(_train_by, cluster)
    elif len(devices) > 1:
        with Processes(opening, devices) as processes:
            yield partial(_train_by, processes)
    else:
        yield train_here


def _train_by(
    crew: Crew, runs: Sequence[Transfer], to_step: int, on_points: OnPoints | None
) -> Iterator[Transfer]:
    """Raises InputError for a run that lost two workers."""
    yield from (run for run in runs if run.has_reached(to_step))
    left = {_call(run, to_step): run for run in runs if not run.has_reached(to_step)}
    for call, answer in crew.answers(list(left)):
        run = left[call]
        if isinstance(answer, Lost):
            raise InputError(
                f"{run.candidate.name}, seed {run.seed}, learning rate {run.lr:g}: {answer.why}. What "
                "was trained is kept: the same command goes on from there, with fewer processes too."
            )
        run.task.n_chunks = max(run.task.n_chunks, answer.n_chunks)
        run.take(answer.record, on_points)
        yield run


@dataclass(frozen=True)
class _Reached:
    """What comes back of a run."""

    record: Record
    n_chunks: int


@dataclass(frozen=True, eq=False)
class _Stretch:
    """A run up to a step; plain data. folder: of the store, where that is not the workspace's."""

    protocol: TrainingPlan
    fitted: NDArray[np.int64]
    held: NDArray[np.int64]
    folder: Path | None
    n_chunks: int
    seed: int
    lr: float
    to_step: int


def _call(run: Transfer, to_step: int) -> Call[_Reached]:
    task = run.task
    stretch = _Stretch(
        task.protocol,
        task.fitted,
        task.held,
        None if task.cache is task.workspace.cache else task.cache.folder,
        task.n_chunks,
        run.seed,
        run.lr,
        to_step,
    )
    return Call(partial(_train, stretch), (run.candidate,))


def _train(stretch: _Stretch, job: Job, workspace: Workspace) -> _Reached:
    cache = workspace.cache
    if stretch.folder is not None:
        # The temporary folder of another machine is not there.
        cache = Cache(stretch.folder if stretch.folder.is_dir() else None)
    task = Task(
        stretch.protocol,
        workspace,
        cache,
        stretch.fitted,
        stretch.held,
        n_chunks=stretch.n_chunks,
    )
    run = Transfer(task, job[0], stretch.seed, stretch.lr)
    run.advance(stretch.to_step)
    return _Reached(run.record, task.n_chunks)
