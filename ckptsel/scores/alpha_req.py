"""`alpha_req`: how fast the spectrum of the features falls, whatever the labels are.

The eigenvalues e_1 >= e_2 >= ... of the covariance of the training features (centred) are taken to
follow a power law, e_j ~ j^-alpha. alpha is less the slope of a straight line through
(log j, log e_j) by least squares with weights 1 / j, so that each decade of ranks counts the same; all
ranks count whose eigenvalue is above the rounding of float32.

Source: Agrawal et al., "alpha-ReQ", NeurIPS 2022; weights as Stringer et al. 2019 have them. Their
range of ranks is chosen by hand, here it is all. It is shown and never decides: whether more is better
turns with the target (docs/scores.md).
"""

import torch
from torch import Tensor

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.rankme import LABEL_FREE
from ckptsel.scores.scalings import ROUNDING
from ckptsel.scores.score import Score
from ckptsel.scores.spectrum import directions


def _score(inputs: ScoreInputs) -> ScoreResult:
    singular_values, _ = directions(inputs.fit_rows(), centred=True)
    eigenvalues = singular_values.square() / len(inputs.fit_labels)
    # A spread is the root of an eigenvalue.
    return ScoreResult(_decay(eigenvalues[eigenvalues > ROUNDING**2 * eigenvalues[:1]]))


def _decay(eigenvalues: Tensor) -> float:
    """Less the slope of log eigenvalues (r,) on log rank; 0 for a single one."""
    ranks = torch.arange(1, len(eigenvalues) + 1).to(eigenvalues)
    weights = (1 / ranks) / (1 / ranks).sum()
    x, y = ranks.log(), eigenvalues.log()
    x, y = x - weights @ x, y - weights @ y
    variance = float(weights @ x.square())
    return 0.0 if variance == 0 else -float(weights @ (x * y)) / variance


SCORE = Score(
    name="alpha_req",
    about="alpha-ReQ: decay of the eigenvalues of the features, without labels",
    unit="slope",
    compute=_score,
    by_default=False,
    streams=True,
    cannot_decide=LABEL_FREE,
    source="Agrawal et al., NeurIPS 2022",
)
