"""Which images a score is fitted on and which it is read on; the two never overlap."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

N_FOLDS = 5
MAX_REPEATS = 3
REPEAT_BELOW = 1000
"""With fewer images the folds are drawn more than once, and the predictions averaged."""

HOLDOUT_ABOVE = 20_000
"""With more training images five fits cost too much, and a fifth of them is held out instead."""


@dataclass(frozen=True)
class Evaluation:
    """How held-out predictions are made. Indices count the images of the target as one sequence,
    training images first.

    method: `validation split`, `cross-validation` or `holdout`.
    fit_part: all training images that are fitted on where nothing is held out (LogME).
    folds: (fitted, held out) pairs; each repeat covers `evaluated` once.
    evaluated: the images that predictions are for, in rising order.
    """

    method: str
    fit_part: Indices
    folds: tuple[tuple[Indices, Indices], ...]
    evaluated: Indices
    n_repeats: int = 1

    def at(self, places: Indices) -> "Evaluation":
        """The same plan for the images that lie at `places`, which rise, of a longer sequence."""
        return dataclasses.replace(
            self,
            fit_part=places[self.fit_part],
            folds=tuple((places[fitted], places[held]) for fitted, held in self.folds),
            evaluated=places[self.evaluated],
        )

    def describe(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "n_train": len(self.fit_part),
            "n_eval": len(self.evaluated),
            "n_folds": len(self.folds) // self.n_repeats,
            "n_repeats": self.n_repeats,
        }


def plan_validation(n_train: int, n_eval: int, method: str = "validation split") -> Evaluation:
    """Fit on the training images, evaluate on the images that follow them."""
    fit_part = np.arange(n_train)
    evaluated = np.arange(n_train, n_train + n_eval)
    return Evaluation(method, fit_part, ((fit_part, evaluated),), evaluated)


def plan_cross_validation(labels: Indices, seed: int) -> Evaluation:
    """Stratified five-fold cross-validation, repeated for small sets."""
    everything = np.arange(len(labels))
    n_repeats = min(MAX_REPEATS, math.ceil(REPEAT_BELOW / len(labels)))
    folds = [
        fold
        for repeat in range(n_repeats)
        for fold in stratified_folds(labels, N_FOLDS, (seed, repeat))
    ]
    return Evaluation("cross-validation", everything, tuple(folds), everything, n_repeats)


def plan_holdout(labels: Indices, fraction: float, seed: int) -> Evaluation:
    """A stratified part of the training images is evaluated on, the rest fitted on."""
    n_held = max(1, round(fraction * len(labels)))
    held = stratified_sample(labels, n_held, (seed, 0))
    fit_part = np.setdiff1d(np.arange(len(labels)), held)
    return Evaluation("holdout", fit_part, ((fit_part, held),), held)


def stratified_folds(
    labels: Indices, n_folds: int, seed: int | tuple[int, ...]
) -> list[tuple[Indices, Indices]]:
    """(fitted, held out) index pairs; each class is spread over the folds as evenly as can be.

    The folds do not depend on how the classes are numbered.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    _, first_seen, class_of = np.unique(labels[order], return_index=True, return_inverse=True)
    by_class = order[np.argsort(first_seen[class_of], kind="stable")]
    fold_of = np.empty(len(labels), dtype=np.int64)
    fold_of[by_class] = np.arange(len(labels)) % n_folds
    return [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(n_folds)]


def stratified_sample(labels: Indices, n: int, seed: int | tuple[int, ...]) -> Indices:
    """Indices of `n` images, in rising order, classes in the proportions of `labels`.

    Each class that is there keeps at least one image where `n` allows it.
    """
    if n >= len(labels):
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    quota = counts * (n / len(labels))
    take = np.minimum(np.floor(quota).astype(np.int64), counts)
    if n >= len(classes):
        take = np.maximum(take, 1)
    # Largest remainders make up the difference; over-full classes give back.
    while take.sum() != n:
        gap = quota - take
        if take.sum() < n:
            take[int(np.argmax(np.where(take < counts, gap, -np.inf)))] += 1
        else:
            take[int(np.argmin(np.where(take > 1, gap, np.inf)))] -= 1
    return _draw(labels, classes, take, seed)


def balanced_sample(labels: Indices, n: int, seed: int | tuple[int, ...]) -> Indices:
    """Indices of `n` images, in rising order, as many of each class (one more of the first classes
    where that does not come out even). Raises ValueError where a class has too few."""
    classes, counts = np.unique(labels, return_counts=True)
    take = np.full(len(classes), n // len(classes))
    take[: n % len(classes)] += 1
    if (counts < take).any():
        raise ValueError(f"a class has {counts.min()} images, fewer than the {take.max()} wanted")
    return _draw(labels, classes, take, seed)


def _draw(labels: Indices, classes: Indices, take: Indices, seed: int | tuple[int, ...]) -> Indices:
    generator = np.random.default_rng(seed)
    chosen = [
        generator.permutation(np.flatnonzero(labels == c))[:t]
        for c, t in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
