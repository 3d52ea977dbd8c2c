"""`linear_probe`: held-out accuracy of a linear classifier on the features F.

The probe is defined in `ckptsel.scores.probe`; its strength of regularisation is chosen inside the
fitting part. With repeated cross-validation an image counts with the mean over the repeats.
"""

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.accuracy import held_out_accuracy
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score


def score_view(inputs: ScoreInputs, view: str) -> ScoreResult:
    """Held-out accuracy, in [0, 1], of the probe on one view of the features."""
    held_out = inputs.held_out(view)
    return held_out_accuracy(inputs, held_out.predictions, held_out.flags, held_out.details)


SCORE = Score(
    name="linear_probe",
    about="held-out accuracy of a linear probe on the features",
    unit="accuracy",
    compute=lambda inputs: score_view(inputs, "all"),
    streams=True,
    source="multinomial logistic regression",
)
