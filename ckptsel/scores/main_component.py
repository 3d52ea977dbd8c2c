"""`main_component`: held-out accuracy of a linear probe on F_m, the directions of the
largest singular values that make up 80 % of their sum.

Source: Deng et al., arXiv 2203.04668, Eq. 2. The basis comes from the fitting part and is applied to the
held-out part. The probe is that of `linear_probe`.
"""

from ckptsel.scores import Score
from ckptsel.scores.linear_probe import score_view

SCORE = Score(
    name="main_component",
    about="held-out accuracy of a linear probe on the main component",
    unit="accuracy",
    compute=lambda inputs: score_view(inputs, "main"),
)
