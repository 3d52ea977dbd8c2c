"""`residual_component`: held-out accuracy of a linear probe on F_r, what is left of F
without the directions of the largest singular values.

Source: Deng et al., arXiv 2203.04668, Eq. 3. The basis comes from the fitting part and is applied to the
held-out part. The probe is that of `linear_probe`.
"""

from ckptsel.scores.linear_probe import score_view
from ckptsel.scores.score import Score

SCORE = Score(
    name="residual_component",
    about="held-out accuracy of a linear probe on the residual component",
    unit="accuracy",
    compute=lambda inputs: score_view(inputs, "residual"),
    streams=True,
    source="Deng et al., arXiv 2203.04668, Eq. 3",
)
