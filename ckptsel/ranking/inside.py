"""What a probe reaches inside each split alone: tells which split's labels look wrong."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ckptsel.common.devices import few_threads
from ckptsel.scores.accuracy import is_at_chance
from ckptsel.scores.probe import fit_logistic
from ckptsel.scores.strength import DEFAULT_STRENGTH, ITERATIONS, TOLERANCE
from ckptsel.target.splits import N_FOLDS, stratified_folds, stratified_sample
from ckptsel.target.target import Target

MOST_IMAGES = 2000
"""Of a split that are looked at: enough to tell a probe from chance."""

APART = 3.0
"""Standard errors of a difference of two accuracies that is no accident."""

LITTLE = 1 / 3
"""Of what can be learned from right labels. Shuffled ones leave nothing but luck, which is not small
where a few well-parted classes are right or wrong as a whole."""


@dataclass(frozen=True)
class Inside:
    """A probe that is cross-validated inside one split: its accuracy, a fraction, with its standard
    error; how far that is ahead of always naming the largest class, and whether it cannot be told
    from it."""

    split: str
    accuracy: float
    error: float
    ahead: float
    at_chance: bool

    def looks_wrong_beside(self, other: "Inside") -> bool:
        """Whether little can be learned here of what can be learned there from as many images."""
        apart = APART * float(np.hypot(self.error, other.error))
        return other.ahead - self.ahead > apart and self.ahead < LITTLE * other.ahead


def probe_inside(
    features: NDArray[np.float32], target: Target, seed: int = 0
) -> tuple[Inside, Inside]:
    """One of the fitted and one of the held-out split, with as many images of each.

    features: (N, D) of all images of the target.
    """
    plan = target.evaluation
    parts = (plan.fit_part, plan.evaluated)
    n = min(MOST_IMAGES, *(len(part) for part in parts))
    chosen = [part[stratified_sample(target.labels[part], n, (seed, 6))] for part in parts]
    correct = [_cross_validated(features[rows], target.labels[rows], seed) for rows in chosen]
    fitted, held = (
        _inside(images.split, right, target.labels[rows])
        for images, right, rows in zip(target.image_sets, correct, chosen, strict=True)
    )
    return fitted, held


def _inside(split: str, correct: NDArray[np.float64], labels: NDArray[np.int64]) -> Inside:
    ahead = correct - (labels == np.bincount(labels).argmax())
    error = float(correct.std() / np.sqrt(len(correct)))
    return Inside(split, float(correct.mean()), error, float(ahead.mean()), is_at_chance(ahead))


def _cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """(n,) 1 where a probe that was not fitted on an image is right on it, else 0. Its strength is not
    chosen: to tell it from chance any will do."""
    inputs, classes = torch.from_numpy(features).double(), torch.from_numpy(labels)
    correct = np.zeros(len(labels))
    with few_threads(inputs.numel()):
        for fitted, held in stratified_folds(labels, N_FOLDS, (seed, 7)):
            mean = inputs[fitted].mean(0)
            scale = (inputs[fitted] - mean).square().mean().sqrt().clamp(min=1e-30)
            probe = fit_logistic(
                (inputs[fitted] - mean) / scale,
                classes[fitted],
                int(labels.max()) + 1,
                DEFAULT_STRENGTH,
                tolerance=TOLERANCE,
                max_iterations=ITERATIONS,
            )
            named = probe.log_probabilities((inputs[held] - mean) / scale).argmax(1)
            correct[held] = (named == classes[held]).numpy()
    return correct
