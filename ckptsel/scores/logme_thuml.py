"""`logme_thuml`: LogME as the code of its authors computes it, to compare with published figures.

Facts of thuml/LogME's default method (JMLR 2022), which differ from the exact evidence of `logme`:
the fixed point alpha = gamma / (|m|^2 + 1e-5), beta = (N - gamma) / (|y - F m|^2 + 1e-5) from 1 and
1, at most 11 rounds, ended when alpha / beta changes by less than a thousandth; and an evidence that
counts D/2 log(alpha) but log(alpha + beta s^2) for min(N, D) singular values only. Where there are
fewer images than dimensions the number is too large, without bound. (With N > D and rank-deficient
features its numerical noise counts as singular values, so all D terms are there.)
"""

import math

import torch
from torch import Tensor

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.logme import label_energies
from ckptsel.scores.score import Score

N_ROUNDS = 11
ROUND_TOLERANCE = 1e-3
EPSILON = 1e-5


def _score(inputs: ScoreInputs) -> ScoreResult:
    s2, x2, rest = inputs.once(label_energies)
    n, d = inputs.fit_rows().shape
    evidence = [_fixed_point(s2, x2[c], rest[c], n, d) for c in range(len(rest))]
    flags = ("too large: fewer images than feature dimensions",) if n < d else ()
    return ScoreResult(sum(evidence) / len(evidence), flags=flags)


def _fixed_point(s2: Tensor, x2: Tensor, rest: Tensor, n: int, d: int) -> float:
    """The evidence of one class, divided by N."""
    alpha = beta = torch.ones((), dtype=s2.dtype, device=s2.device)
    for _ in range(N_ROUNDS):
        t = alpha / beta
        gamma = (s2 / (s2 + t)).sum()
        m2 = (s2 * x2 / (t + s2).square()).sum()
        residual = (x2 / (1 + s2 / t).square()).sum() + rest
        alpha = gamma / (m2 + EPSILON)
        beta = (n - gamma) / (residual + EPSILON)
        if abs(alpha / beta - t) / t <= ROUND_TOLERANCE:
            break
    evidence = (
        d * torch.log(alpha)
        + n * torch.log(beta)
        - torch.log(alpha + beta * s2).sum()
        - (min(n, d) - len(s2)) * torch.log(alpha)
        - beta * residual
        - alpha * m2
        - n * math.log(2 * math.pi)
    )
    return float(evidence) / (2 * n)


SCORE = Score(
    name="logme_thuml",
    about="LogME as thuml/LogME computes it",
    unit="nats",
    compute=_score,
    streams=True,
    source="You et al., JMLR 2022; github.com/thuml/LogME",
)
