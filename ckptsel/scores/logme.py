"""`logme`: the exact maximised log evidence of Bayesian linear regression, per image, in nats.

For features F (N, D) and the one-vs-rest labels y of a class (You et al., ICML 2021),

    w ~ N(0, 1/alpha I),   y | w ~ N(F w, 1/beta I),

the evidence of y is that of a Gaussian with covariance 1/beta (I + F F^T / t), t = alpha / beta.
With F = U S V^T, x = U^T y and e = |y|^2 - |x|^2, the best beta at a given t is N / Q(t), where
Q(t) = e + sum_i x_i^2 t / (t + s_i^2), which leaves one variable:

    log evidence(t) = -N/2 (log(2 pi Q(t) / N) + 1) - 1/2 sum_i log(1 + s_i^2 / t)

The score is the mean over classes of its maximum, divided by N. It is a log density, so it may be
positive. Singular values of zero add log(1) = 0 to the determinant, so all D terms are counted
whatever the rank; thuml/LogME's code leaves some out (see `logme_thuml`).
"""

import math

import torch
from torch import Tensor

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

LOG_T_RANGE = (-50.0, 50.0)
"""alpha and beta are sought within exp(-25) .. exp(25) of each other's scale, t between these."""

N_GRID = 201
N_BISECTIONS = 60
MIN_RESIDUAL = math.exp(-25.0)
"""The smallest noise variance: labels that features fit exactly would have infinite evidence."""


def _score(inputs: ScoreInputs) -> ScoreResult:
    evidence, at_edge = log_evidence(inputs)
    flags = (f"{at_edge} classes at the edge of the evidence's range",) if at_edge else ()
    return ScoreResult(value=evidence, flags=flags)


def log_evidence(inputs: ScoreInputs) -> tuple[float, int]:
    """(mean over the classes that are there of the maximised log evidence / N, nats; how many
    classes have their maximum at the edge of the searched range)."""
    s2, x2, rest = inputs.once(label_energies)
    n = len(inputs.fit_labels)
    low, high = LOG_T_RANGE
    grid = torch.linspace(low, high, N_GRID, dtype=s2.dtype, device=s2.device)
    values = torch.stack([_profile(t.expand(len(rest)), s2, x2, rest, n) for t in grid])
    best = values.argmax(0)
    n_at_edge = int(((best == 0) | (best == N_GRID - 1)).sum())
    step = (high - low) / (N_GRID - 1)
    left, right = grid[best] - step, grid[best] + step
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(N_BISECTIONS):
        a, b = right - ratio * (right - left), left + ratio * (right - left)
        rising = _profile(a, s2, x2, rest, n) < _profile(b, s2, x2, rest, n)
        left, right = torch.where(rising, a, left), torch.where(rising, right, b)
    best_values = torch.maximum(_profile((left + right) / 2, s2, x2, rest, n), values.amax(0))
    return float(best_values.mean() / n), n_at_edge


def label_energies(inputs: ScoreInputs) -> tuple[Tensor, Tensor, Tensor]:
    """(s^2 (r,), x^2 (C, r), e (C,)) of the module's formulas, for the classes that are there."""
    rows, spectrum = inputs.fit_rows(), inputs.spectrum()
    classes, labels = inputs.fit_labels.unique(return_inverse=True)
    # Without the left singular vectors, which cost a product of the features with a large matrix.
    sums = rows.sums_by(labels, len(classes))
    x = sums @ spectrum.right_vectors / spectrum.singular_values
    weights = spectrum.right_vectors @ (x / spectrum.singular_values).T
    # The residual itself, not |y|^2 - |x|^2, whose rounding would be the noise of an exact fit.
    rest = x.new_zeros(len(classes))
    for some, chunk in rows.chunks():
        residual = chunk @ weights
        right = labels[some, None]
        residual.scatter_add_(1, right, torch.full_like(right, -1, dtype=residual.dtype))
        rest += residual.square_().sum(0)
    return spectrum.singular_values.square(), x.square(), rest


def _profile(log_t: Tensor, s2: Tensor, x2: Tensor, rest: Tensor, n: int) -> Tensor:
    """log evidence(t) of each class at its own t: (C,), nats."""
    t = log_t.exp()[:, None]
    quadratic = rest + (x2 * t / (t + s2)).sum(1)
    variance = (quadratic / n).clamp(min=MIN_RESIDUAL)
    fit = -n / 2 * (torch.log(2 * math.pi * variance) + quadratic / n / variance)
    return fit - torch.log1p(s2 / t).sum(1) / 2


SCORE = Score(
    name="logme",
    about="exact LogME: log evidence of Bayesian linear regression",
    unit="nats",
    compute=_score,
    streams=True,
    source="You et al., ICML 2021",
)
