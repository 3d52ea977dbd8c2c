"""`linear_probe_loglik`: mean held-out log-likelihood of the same fits as `linear_probe`, in nats.

Smoother than accuracy: it sees how sure the probe is, not only which side of the border an image
falls. At most 0.
"""

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score


def _score(inputs: ScoreInputs) -> ScoreResult:
    held_out = inputs.held_out("all")
    per_image = held_out.log_likelihoods.mean(axis=0)
    return ScoreResult(
        value=float(per_image.mean()),
        per_image=per_image,
        flags=held_out.flags,
        details=held_out.details,
    )


SCORE = Score(
    name="linear_probe_loglik",
    about="mean held-out log-likelihood of the linear probe",
    unit="nats",
    compute=_score,
    streams=True,
    source="the fits of linear_probe",
)
