"""Accuracy on held-out images as a score, beside that of always naming the largest class."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs

AT_CHANCE_ERRORS = 2.0
"""Standard errors that a classifier must be ahead of the largest class to count as better."""


def held_out_accuracy(
    inputs: ScoreInputs,
    predictions: NDArray[np.int64],
    flags: tuple[str, ...] = (),
    details: Mapping[str, Any] | None = None,
) -> ScoreResult:
    """The accuracy, in [0, 1], of predicted classes (n_repeats, n_eval).

    details: `largest_class`, the accuracy of always naming the largest class, and `at_chance`,
    whether the classifier cannot be told to be better than that; it is then flagged as well.
    """
    truth = inputs.labels.cpu().numpy()[inputs.evaluation.evaluated]
    correct = (predictions == truth).mean(axis=0)
    largest = (truth == np.bincount(truth).argmax()).astype(np.float64)
    at_chance = is_at_chance(correct - largest)
    if at_chance:
        flags = (*flags, f"no better than the largest class ({100 * largest.mean():.1f} %)")
    return ScoreResult(
        value=float(correct.mean()),
        per_image=correct,
        predictions=predictions,
        flags=flags,
        details={
            **(details or {}),
            "largest_class": float(largest.mean()),
            "at_chance": at_chance,
        },
    )


def is_at_chance(ahead: NDArray[np.float64]) -> bool:
    """Whether a classifier cannot be told to be better, from how far it is ahead on each image."""
    error = ahead.std() / np.sqrt(len(ahead))
    return bool(ahead.mean() <= AT_CHANCE_ERRORS * error)
