"""`main_component`: held-out accuracy of a linear probe on F_m, the directions of the
largest singular values that make up 80 % of their sum.

Source: Deng et al., arXiv 2203.04668, Eq. 2. The basis comes from the fitting part and is applied to the
held-out part. The probe is that of `linear_probe`.
"""

import dataclasses

from ckptsel.results.scores import SINGULAR_VALUES, ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.linear_probe import score_view
from ckptsel.scores.score import Score


def _score(inputs: ScoreInputs) -> ScoreResult:
    values = inputs.spectrum().singular_values.float().cpu().numpy()
    return dataclasses.replace(score_view(inputs, "main"), arrays={SINGULAR_VALUES: values})


SCORE = Score(
    name="main_component",
    about="held-out accuracy of a linear probe on the main component",
    unit="accuracy",
    compute=_score,
    streams=True,
    source="Deng et al., arXiv 2203.04668, Eq. 2",
)
