"""The learning rate that all candidates of a race share, chosen before it by short runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ckptsel.checkpoints.scan import Checkpoint
from ckptsel.common.progress import Progress
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.errors import DataError, InputError, listed
from ckptsel.target.splits import stratified_sample

T = TypeVar("T")

N_CHECKPOINTS = 3
"""Short runs are made of so many candidates, spread over the trajectory."""

HELD_OUT = 0.2
"""Part of the fitted images that is held out; the images that the race is read on stay unseen."""


@dataclass(frozen=True)
class Sweep:
    """lr: the chosen rate. accuracy: mean held-out accuracy by rate, None where a run diverged;
    empty where one rate was given. n_steps: training steps that it took. runs: what was run."""

    lr: float
    accuracy: dict[float, float | None]
    n_steps: int
    runs: tuple[Transfer, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the best may lie beyond the rates that were tried."""
        return len(self.accuracy) > 1 and self.lr in (min(self.accuracy), max(self.accuracy))


def choose_rate(task: Task, checkpoints: Sequence[Checkpoint], seed: int, quiet: bool) -> Sweep:
    """The rate of the task's protocol with the highest mean accuracy; of equals the lowest.

    Every run has the same batches, draws and first weights, a quarter of the protocol's steps and a
    schedule of its own. Raises InputError where no rate trains all of them, or a class has a single
    image.
    """
    lrs = task.protocol.lrs
    if len(lrs) == 1:
        return Sweep(lrs[0], {}, 0, ())
    short = _short_task(task, seed)
    chosen = spread(checkpoints, N_CHECKPOINTS)
    runs = []
    accuracy: dict[float, float | None] = {}
    title = f"{task.protocol.goal} learning rate"
    with Progress(title, len(lrs) * len(chosen), quiet=quiet) as progress:
        for lr in lrs:
            reached = []
            for checkpoint in chosen:
                run = Transfer(short, checkpoint, seed, lr)
                if run.advance(short.protocol.n_steps) is not None:
                    reached.append(run.record.points[-1].held_accuracy)
                    outcome = f"{100 * reached[-1]:.1f} %"
                else:
                    outcome = "diverged"
                runs.append(run)
                progress.advance(f"{lr:g} on {checkpoint.name}: {outcome}")
            accuracy[lr] = float(np.mean(reached)) if len(reached) == len(chosen) else None
    short.release()
    task.n_chunks = short.n_chunks
    trained = {lr: value for lr, value in accuracy.items() if value is not None}
    if not trained:
        raise InputError(
            f"every learning rate of {', '.join(f'{lr:g}' for lr in lrs)} diverged "
            f"({task.protocol.goal}). Give lower ones with --lr."
        )
    best = max(trained, key=lambda lr: (trained[lr], -lr))
    return Sweep(best, accuracy, len(runs) * short.protocol.n_steps, tuple(runs))


def spread(items: Sequence[T], n: int) -> list[T]:
    """At most `n` of the items, evenly spaced, the first and the last among them (n above 1)."""
    places = np.linspace(0, len(items) - 1, n).round().astype(int)
    return [items[i] for i in np.unique(places)]


def _short_task(task: Task, seed: int) -> Task:
    target = task.workspace.target
    labels = target.labels[task.fitted]
    single = np.flatnonzero(np.bincount(labels, minlength=target.n_classes) < 2)
    if len(single):
        names = [target.class_names[i] for i in single]
        raise DataError(
            f"{len(single)} classes of {target.spec} have a single image to train on, of which no part "
            f"can be held out to choose a learning rate: {listed(names)}. Add images, or "
            "give one rate with --lr."
        )
    held = stratified_sample(labels, max(1, round(HELD_OUT * len(labels))), (seed, 6))
    fitted = np.setdiff1d(np.arange(len(labels)), held)
    return Task(
        task.protocol.for_sweep(len(fitted)),
        task.workspace,
        task.cache,
        task.fitted[fitted],
        task.fitted[held],
    )
