"""`linear_probe`: held-out accuracy of a linear classifier on the features F.

The probe is defined in `ckptsel.probe`; its strength of regularisation is chosen inside the
fitting part. With repeated cross-validation an image counts with the mean over the repeats.
"""

from ckptsel.scores import Score
from ckptsel.scores.inputs import ScoreInputs, ScoreResult


def score_view(inputs: ScoreInputs, view: str) -> ScoreResult:
    """Held-out accuracy, in [0, 1], of the probe on one view of the features."""
    held_out = inputs.held_out(view)
    truth = inputs.labels.cpu().numpy()[inputs.evaluation.evaluated]
    correct = (held_out.predictions == truth).mean(axis=0)
    return ScoreResult(
        value=float(correct.mean()),
        per_image=correct,
        predictions=held_out.predictions,
        flags=held_out.flags,
        details=held_out.details,
    )


SCORE = Score(
    name="linear_probe",
    about="held-out accuracy of a linear probe on the features",
    unit="accuracy",
    compute=lambda inputs: score_view(inputs, "all"),
)
