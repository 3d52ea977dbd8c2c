"""Probes: a linear classifier on features, fitted on one part and read on another.

Converged probe (the default): L2-regularised multinomial logistic regression,

    minimise over W, b:   1/2 |W|^2 + C sum_i -log softmax(W^T z_i + b)[y_i]

scikit-learn's objective and its `C`, the intercept b not penalised. z are the features' coordinates
in the basis of their spectrum, centred and scaled by one number: since the penalty does not change
under rotation, this is the probe of the features themselves, and the columns are uncorrelated, so a
diagonal change of variables makes L-BFGS converge in a few dozen steps.

Paper's probe (Deng et al., arXiv 2203.04668, Table 1): a linear layer with Gaussian initial weights,
Adam, learning rate 0.01, batches of 128, 50 epochs. It is not run to convergence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from ckptsel.training import TensorBatches, Training, epoch_generator

STRENGTHS = tuple(float(f"1e{exponent}") for exponent in range(-6, 4))
"""The grid of C, a decade apart. On features scaled to root mean square 1 the best is near 1; a
residual component with little signal wants far less."""

N_WORSE = 2
"""Weaker regularisation is not tried after this many values in a row without improvement: the
log-likelihood has one peak in C, and fits far beyond it take longest."""

MAX_ITERATIONS = 1000
TOLERANCE = 1e-7
"""Largest gradient entry, in the scaled variables, at which a fit has converged."""

SELECTION_TOLERANCE = 1e-3
"""The same for the fits that only choose C: the log-likelihood is settled to three digits."""

PAPER_EPOCHS = 50
PAPER_BATCH = 128
PAPER_LR = 0.01
PAPER_INIT_STD = 0.01
"""The paper says "Gaussian" without a width; 0.01 is the usual one for a linear classifier."""


@dataclass(frozen=True)
class LinearProbe:
    """Weights (r, C), bias (C,), float64, and how the fit ended.

    objective is the minimised value of the module's formula; strength is C.
    """

    weights: Tensor
    bias: Tensor
    strength: float
    objective: float
    converged: bool

    def log_probabilities(self, inputs: Tensor) -> Tensor:
        """log softmax of the logits of inputs (N, r): (N, C), nats."""
        return torch.log_softmax(inputs @ self.weights + self.bias, dim=1)


def fit_logistic(
    inputs: Tensor,
    labels: Tensor,
    n_classes: int,
    strength: float,
    start: LinearProbe | None = None,
    tolerance: float = TOLERANCE,
) -> LinearProbe:
    """The minimiser of the module's formula for inputs (N, r) float64 and labels (N,) int64.

    start: a fit at another strength to begin from; the minimum is the same from anywhere.
    """
    n, r = inputs.shape
    penalty = 1 / (strength * n)
    variance = inputs.var(dim=0, correction=0)
    # The Hessian of the loss is at most variance / n_classes at equal probabilities: in these
    # variables it is near the identity, whatever the spectrum.
    scale = (variance / n_classes + penalty).rsqrt()[:, None]
    bias_scale = float(n_classes) ** 0.5
    targets = nn.functional.one_hot(labels, n_classes).to(inputs)

    def unpack(vector: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        parameters = torch.from_numpy(vector).to(inputs.device).view(r + 1, n_classes)
        return parameters[:r] * scale, parameters[r] * bias_scale

    def objective(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = unpack(vector)
        log_p = torch.log_softmax(inputs @ weights + bias, dim=1)
        residual = (log_p.exp() - targets) / n
        value = -(log_p * targets).sum() / n + penalty / 2 * weights.square().sum()
        gradient = torch.cat(
            [
                (inputs.T @ residual + penalty * weights) * scale,
                residual.sum(0, keepdim=True) * bias_scale,
            ]
        )
        return float(value), gradient.cpu().numpy().ravel()

    first = np.zeros((r + 1) * n_classes)
    if start is not None:
        parameters = torch.cat([start.weights / scale, start.bias[None] / bias_scale])
        first = parameters.cpu().numpy().ravel()
    result = minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": MAX_ITERATIONS,
            "maxfun": 2 * MAX_ITERATIONS,
            "maxcor": 20,
            "gtol": tolerance,
            "ftol": 0.0,
        },
    )
    weights, bias = unpack(result.x)
    return LinearProbe(
        weights,
        bias - bias.mean(),
        strength,
        objective=float(result.fun) * strength * n,
        converged=bool(np.abs(result.jac).max() <= 10 * tolerance),
    )


def choose_strength(
    inputs: Tensor,
    labels: Tensor,
    n_classes: int,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """The C of the grid with the highest mean held-out log-likelihood over `folds`.

    Of equals the smallest, which is the most regularised.
    """
    parts = []
    for fit_part, held_out in folds:
        fit_rows = torch.from_numpy(fit_part).to(inputs.device)
        held_rows = torch.from_numpy(held_out).to(inputs.device)
        mean = inputs[fit_rows].mean(0)
        parts.append(
            (inputs[fit_rows] - mean, labels[fit_rows], inputs[held_rows] - mean, labels[held_rows])
        )
    probes: list[LinearProbe | None] = [None] * len(parts)
    best, best_total, n_worse = strengths[0], -np.inf, 0
    for strength in strengths:
        total = 0.0
        for i, (fit_inputs, fit_labels, held_inputs, held_labels) in enumerate(parts):
            probe = fit_logistic(
                fit_inputs, fit_labels, n_classes, strength, probes[i], SELECTION_TOLERANCE
            )
            log_p = probe.log_probabilities(held_inputs)
            total += float(log_p.gather(1, held_labels[:, None]).sum())
            probes[i] = probe
        if total > best_total:
            best, best_total, n_worse = strength, total, 0
        else:
            n_worse += 1
        if n_worse == N_WORSE:
            break
    return best


def fit_paper_probe(inputs: Tensor, labels: Tensor, n_classes: int, seed: int) -> LinearProbe:
    """The paper's probe on inputs (N, D), float32, as they are. strength and objective are NaN."""
    layer = nn.Linear(inputs.shape[1], n_classes).to(inputs.device)
    generator = epoch_generator(seed, 0)
    with torch.no_grad():
        initial = torch.randn(layer.weight.shape, generator=generator) * PAPER_INIT_STD
        layer.weight.copy_(initial)
        layer.bias.zero_()
    training = Training(layer, torch.optim.Adam(layer.parameters(), lr=PAPER_LR))
    for epoch in range(1, PAPER_EPOCHS + 1):
        shuffled = epoch_generator(seed, epoch)
        training.run(TensorBatches(inputs, labels, PAPER_BATCH, generator=shuffled))
    return LinearProbe(
        layer.weight.detach().T.double(),
        layer.bias.detach().double(),
        strength=float("nan"),
        objective=float("nan"),
        converged=True,
    )
