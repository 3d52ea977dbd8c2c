"""`linear_probe`: held-out accuracy of a linear classifier on the features F.

The probe is defined in `ckptsel.scores.probe`; its strength of regularisation is chosen inside the
fitting part. With repeated cross-validation an image counts with the mean over the repeats.
"""

import numpy as np
from numpy.typing import NDArray

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

AT_CHANCE_ERRORS = 2.0
"""Standard errors that a probe must be ahead of the largest class to count as better."""


def score_view(inputs: ScoreInputs, view: str) -> ScoreResult:
    """Held-out accuracy, in [0, 1], of the probe on one view of the features.

    details: `largest_class`, the accuracy of always naming the largest class, and `at_chance`,
    whether the probe cannot be told to be better than that; it is then flagged as well.
    """
    held_out = inputs.held_out(view)
    truth = inputs.labels.cpu().numpy()[inputs.evaluation.evaluated]
    correct = (held_out.predictions == truth).mean(axis=0)
    largest = (truth == np.bincount(truth).argmax()).astype(np.float64)
    at_chance = is_at_chance(correct - largest)
    flags = held_out.flags
    if at_chance:
        flags = (*flags, f"no better than the largest class ({100 * largest.mean():.1f} %)")
    return ScoreResult(
        value=float(correct.mean()),
        per_image=correct,
        predictions=held_out.predictions,
        flags=flags,
        details={
            **held_out.details,
            "largest_class": float(largest.mean()),
            "at_chance": at_chance,
        },
    )


def is_at_chance(ahead: NDArray[np.float64]) -> bool:
    """Whether a probe cannot be told to be better, from how far it is ahead on each image."""
    error = ahead.std() / np.sqrt(len(ahead))
    return bool(ahead.mean() <= AT_CHANCE_ERRORS * error)


SCORE = Score(
    name="linear_probe",
    about="held-out accuracy of a linear probe on the features",
    unit="accuracy",
    compute=lambda inputs: score_view(inputs, "all"),
)
