"""`rankme`: how many directions the features fill, whatever the labels are.

Of the singular values s of the training features (N, D), not centred, all min(N, D) of them,

    p_i = s_i / sum(s) + 1e-7        rankme = exp(-sum_i p_i log p_i)

which is 1 where one direction holds everything, and min(N, D) where all hold as much.

Source: Garrido et al., arXiv 2210.02885, Eq. 1. It is shown and never decides: whether more is better
turns with the target (docs/scores.md).
"""

import torch

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

EPSILON = 1e-7

LABEL_FREE = (
    "no labels are looked at, and where it was measured the target decided whether more is better"
)


def _score(inputs: ScoreInputs) -> ScoreResult:
    spectrum = inputs.spectrum()
    values = spectrum.singular_values
    nil = values.new_zeros(min(spectrum.shape) - len(values))
    shares = torch.cat([values, nil]) / values.sum() + EPSILON
    return ScoreResult(float(torch.exp(-(shares * shares.log()).sum())))


SCORE = Score(
    name="rankme",
    about="RankMe: effective rank of the features, without labels",
    unit="directions",
    compute=_score,
    by_default=False,
    streams=True,
    cannot_decide=LABEL_FREE,
    source="Garrido et al., arXiv 2210.02885, Eq. 1",
)
