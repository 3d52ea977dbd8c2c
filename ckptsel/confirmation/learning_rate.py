"""The learning rate of a race, shared by all candidates or of each its own, chosen by short runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from ckptsel.common.progress import Progress
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.errors import DataError, InputError, listed
from ckptsel.features.candidate import Candidate
from ckptsel.target.splits import stratified_sample

T = TypeVar("T")

N_CHECKPOINTS = 3
"""Short runs are made of so many candidates, spread over the trajectory."""

HELD_OUT = 0.2
"""Part of the fitted images that is held out; the images that the race is read on stay unseen."""


N_DECADES = 3
"""A grid is widened by at most so many decades each way."""


@dataclass(frozen=True)
class Choice:
    """lr: the chosen rate. accuracy: held-out accuracy by rate, rising, None where a run diverged;
    empty where one rate was given."""

    lr: float
    accuracy: dict[float, float | None]

    @property
    def at_edge(self) -> bool:
        """Whether the best may lie beyond the rates that were tried."""
        return len(self.accuracy) > 1 and self.lr in (min(self.accuracy), max(self.accuracy))


@dataclass(frozen=True)
class Sweep(Choice):
    """The rate for all candidates; accuracy is the mean over those that were tried.

    n_steps: training steps that it took. runs: what was run. own: by candidate, where each, or each
    layer, has a rate of its own.
    """

    n_steps: int
    runs: tuple[Transfer, ...]
    own: dict[str, Choice] = field(default_factory=dict)

    def rate_of(self, name: str) -> float:
        """What a candidate is trained with."""
        return self.own.get(name, self).lr


def choose_rate(
    task: Task,
    candidates: Sequence[Candidate],
    seed: int,
    quiet: bool,
    search: bool = False,
    per_candidate: bool = False,
) -> Sweep:
    """The rate with the highest mean accuracy of a few candidates; of equals the lowest.

    The rates are the protocol's, and with `search` those of `try_rates` besides. With `per_candidate`
    each candidate has one of its own besides, chosen by its own runs in the same way; where all of
    them diverge it has the others' rate. Without, the same holds for all candidates at one layer, where
    features are read at several: the best rate falls with their number.

    Every run has the same batches, draws and first weights, a quarter of the protocol's steps and a
    schedule of its own. Raises InputError where no rate trains all of those tried, or a class has a
    single image.
    """
    lrs = task.protocol.lrs
    if len(lrs) == 1:
        return Sweep(lrs[0], {}, 0, ())
    short = _short_task(task, seed)
    few = spread(candidates, N_CHECKPOINTS)
    groups = _sharing(candidates, task.protocol.goal, per_candidate)
    title = f"{task.protocol.goal} learning rate"
    tried_of = {c.name for group in (candidates, *groups) for c in spread(group, N_CHECKPOINTS)}
    with Progress(title, len(lrs) * len(tried_of), quiet=quiet) as progress:
        trials = _Trials(short, seed, progress)
        tried = try_rates(lrs, partial(trials.mean_accuracies, few), search)
        shared = best_rate(tried)
        if shared is None:
            raise InputError(
                f"every learning rate of {', '.join(f'{lr:g}' for lr in tried)} diverged "
                f"({task.protocol.goal}). Give lower ones with --lr."
            )
        own: dict[str, Choice] = {}
        for group in groups:
            some = spread(group, N_CHECKPOINTS)
            its = try_rates(lrs, partial(trials.mean_accuracies, some), search)
            choice = Choice(best_rate(its) or shared, its)
            own |= {candidate.name: choice for candidate in group}
    short.release()
    task.n_chunks = short.n_chunks
    n_steps = len(trials.runs) * short.protocol.n_steps
    return Sweep(shared, tried, n_steps, trials.runs, own)


def _sharing(
    candidates: Sequence[Candidate], goal: str, per_candidate: bool
) -> list[list[Candidate]]:
    """Candidates with a rate of their own, by those that share it; none where all share one."""
    if per_candidate:
        return [[candidate] for candidate in candidates]
    layers = dict.fromkeys(c.layer for c in candidates) if goal == "fe" else {}
    groups = [[c for c in candidates if c.layer == layer] for layer in layers]
    return groups if len(groups) > 1 else []


Measure = Callable[[Sequence[float]], Sequence[float | None]]
"""learning rates -> held-out accuracy of each; None where it diverged."""


def try_rates(lrs: Sequence[float], measure: Measure, search: bool) -> dict[float, float | None]:
    """Accuracy by rate, rising.

    With `search` the rates are a decade apart, and more are tried: further decades while the best is
    at an edge, at most N_DECADES each way (a rate that diverges is beyond the edge), then half a
    decade to each side of the best.
    """
    tried = _measured(lrs, measure)
    if search:
        _widen(tried, measure, 0.1)
        _widen(tried, measure, 10)
        best = best_rate(tried)
        if best is not None:
            tried |= _measured([_times(best, 10**-0.5), _times(best, 10**0.5)], measure)
    return dict(sorted(tried.items()))


def _measured(lrs: Sequence[float], measure: Measure) -> dict[float, float | None]:
    return dict(zip(lrs, measure(lrs), strict=True))


def _widen(tried: dict[float, float | None], measure: Measure, factor: float) -> None:
    """Try rates beyond one edge, while the best is there. Where all diverge lower ones are tried."""
    for _ in range(N_DECADES):
        edge = min(tried) if factor < 1 else max(tried)
        best = best_rate(tried)
        if best != edge and not (best is None and factor < 1):
            return
        tried |= _measured([_times(edge, factor)], measure)


def _times(lr: float, factor: float) -> float:
    """Three digits are as exact as a rate need be, and what is shown."""
    return float(f"{lr * factor:.3g}")


def best_rate(accuracy: Mapping[float, float | None]) -> float | None:
    """The rate of the highest accuracy, of equals the lowest; None where all diverged."""
    trained = {lr: value for lr, value in accuracy.items() if value is not None}
    return max(trained, key=lambda lr: (trained[lr], -lr), default=None)


class _Trials:
    """Short runs, each of a candidate at a rate, and none of them twice."""

    def __init__(self, task: Task, seed: int, progress: Progress) -> None:
        self.task, self.seed, self.progress = task, seed, progress
        self._runs: dict[tuple[str, float], Transfer] = {}

    @property
    def runs(self) -> tuple[Transfer, ...]:
        return tuple(self._runs.values())

    def mean_accuracies(
        self, candidates: Sequence[Candidate], lrs: Sequence[float]
    ) -> list[float | None]:
        """Held-out accuracy at the end by rate, the mean over candidates; None where one diverged."""
        self._run([(candidate, lr) for lr in lrs for candidate in candidates])
        return [self._mean_accuracy(candidates, lr) for lr in lrs]

    def _mean_accuracy(self, candidates: Sequence[Candidate], lr: float) -> float | None:
        reached = [_accuracy(self._runs[candidate.name, lr]) for candidate in candidates]
        trained = [accuracy for accuracy in reached if accuracy is not None]
        return float(np.mean(trained)) if len(trained) == len(reached) else None

    def _run(self, wanted: Sequence[tuple[Candidate, float]]) -> None:
        """All of them that were not run before, wherever and in whatever order the engine does."""
        new = {
            (candidate.name, lr): Transfer(self.task, candidate, self.seed, lr)
            for candidate, lr in wanted
            if (candidate.name, lr) not in self._runs
        }
        self._runs |= new
        n_left = self.progress.total - self.progress.done
        self.progress.expect(max(0, len(new) - n_left))
        for run in self.task.engine(list(new.values()), self.task.protocol.n_steps, None):
            reached = _accuracy(run)
            outcome = "diverged" if reached is None else f"{100 * reached:.1f} %"
            self.progress.advance(f"{run.lr:g} on {run.candidate.name}: {outcome}")


def _accuracy(run: Transfer) -> float | None:
    """At the end of a run; None where it diverged."""
    return None if run.record.diverged_at is not None else run.record.points[-1].held_accuracy


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
        task.engine,
    )
