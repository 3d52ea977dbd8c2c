"""Probes: a linear classifier on features, fitted on one part and read on another.

Converged probe (the default): L2-regularised multinomial logistic regression,

    minimise over W, b:   1/2 |W|^2 + C sum_i -log softmax(W^T z_i + b)[y_i]

scikit-learn's objective and its `C`, the intercept b not penalised. z are the features' coordinates
in the basis of their spectrum, centred by the mean of the fitting part and then divided by one
number, their root mean square: since the penalty does not change under rotation, this is the probe
of the features themselves, and a shift or a scale of the features changes nothing. The columns are
nearly uncorrelated, so a diagonal change of variables makes L-BFGS converge in a few dozen steps.

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

from ckptsel.training.heads import gaussian_head
from ckptsel.training.loop import TensorBatches, Training, epoch_generator

COARSE = tuple(range(-6, 7, 2))
"""Exponents of C that are always tried. On features scaled to root mean square 1 the best C is near
1; it lies far from it where few directions hold the signal and others the spread."""

DEFAULT_STRENGTH = 1.0
"""C where no class has two images, so that none can be held out to choose it."""

WIDEST = 12
"""The search goes out to 1e-12 and 1e12 where the peak lies beyond the coarse grid."""

FINE_STEPS = (1.0, 0.5)
"""Then a decade, then half a decade, to both sides of the best."""

SAME = 1e-6
"""Mean log-likelihoods, in nats, that are called equal: of equals the most regularised counts."""

MAX_ITERATIONS = 1000
TOLERANCE = 1e-7
"""Largest gradient entry, in the scaled variables, at which a fit has converged."""

SELECTION_ITERATIONS = 200
SELECTION_TOLERANCE = 1e-3
"""The same for the fits that only choose C: the log-likelihood is settled to three digits."""

PAPER_EPOCHS = 50
PAPER_BATCH = 128
PAPER_LR = 0.01


@dataclass(frozen=True)
class Part:
    """What one fit sees and what it is read on: inputs (n, r) float64 and labels (n,) int64, and the
    same of the images held out. Everything that the inputs are made with (basis, mean, scale) must
    come from the images that are fitted on."""

    fit_inputs: Tensor
    fit_labels: Tensor
    held_inputs: Tensor
    held_labels: Tensor

    def of_fitted_classes(self) -> "Part":
        """Without the held-out images of classes that are not fitted on."""
        known = torch.isin(self.held_labels, self.fit_labels)
        return Part(
            self.fit_inputs, self.fit_labels, self.held_inputs[known], self.held_labels[known]
        )


@dataclass(frozen=True)
class Strength:
    """A chosen C. bracketed: weaker and stronger regularisation were both seen to be worse."""

    value: float
    bracketed: bool


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
    max_iterations: int | None = None,
) -> LinearProbe:
    """The minimiser of the module's formula for inputs (N, r) float64 and labels (N,) int64.

    start: a fit at another strength to begin from; the minimum is the same from anywhere.
    """
    max_iterations = max_iterations or MAX_ITERATIONS
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
            "maxiter": max_iterations,
            "maxfun": 2 * max_iterations,
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


def choose_strength(parts: Sequence[Part], n_classes: int) -> Strength:
    """The C with the highest mean held-out log-likelihood over `parts`, to half a decade.

    A coarse grid is tried as a whole, since the likelihood may be flat or fall before it rises: it
    is flat where the penalty leaves nothing, and falls where directions without signal have the
    largest spread. Then it is widened until the best lies inside, and refined around the best.
    """
    likelihood = _HeldOutLikelihood(parts, n_classes)
    if likelihood.n_held == 0:
        return Strength(DEFAULT_STRENGTH, bracketed=False)
    exponents = [float(exponent) for exponent in COARSE]
    while True:
        best = likelihood.best(exponents)
        step = COARSE[1] - COARSE[0]
        if best == max(exponents) < WIDEST:
            exponents.append(best + step)
        elif best == min(exponents) > -WIDEST:
            exponents.append(best - step)
        else:
            break
    if abs(best) >= WIDEST:
        return Strength(10.0**best, bracketed=False)
    for fine in FINE_STEPS:
        best = likelihood.best([best - fine, best, best + fine])
    return Strength(10.0**best, bracketed=True)


class _HeldOutLikelihood:
    """Mean held-out log-likelihood, nats, as a function of the exponent of C; each is fitted once."""

    def __init__(self, parts: Sequence[Part], n_classes: int) -> None:
        # A class that no image is fitted on is as unlikely at any strength: it tells nothing.
        self.parts = [part.of_fitted_classes() for part in parts]
        self.n_classes = n_classes
        self.n_held = sum(len(part.held_labels) for part in self.parts)
        self.probes: list[dict[float, LinearProbe]] = [{} for _ in self.parts]
        self.values: dict[float, float] = {}

    def best(self, exponents: Sequence[float]) -> float:
        """The exponent of the highest value; of equals the most regularised."""
        values = {exponent: self(exponent) for exponent in sorted(exponents)}
        highest = max(values.values())
        return next(exponent for exponent, value in values.items() if value >= highest - SAME)

    def __call__(self, exponent: float) -> float:
        if exponent not in self.values:
            total = 0.0
            for part, probes in zip(self.parts, self.probes, strict=True):
                # From the nearest fit, of two the stronger: its weights are smaller.
                start = min(probes, key=lambda e: (abs(e - exponent), e), default=None)
                probes[exponent] = fit_logistic(
                    part.fit_inputs,
                    part.fit_labels,
                    self.n_classes,
                    10.0**exponent,
                    None if start is None else probes[start],
                    SELECTION_TOLERANCE,
                    SELECTION_ITERATIONS,
                )
                log_p = probes[exponent].log_probabilities(part.held_inputs)
                total += float(log_p.gather(1, part.held_labels[:, None]).sum())
            self.values[exponent] = total / self.n_held
        return self.values[exponent]


def fit_paper_probe(inputs: Tensor, labels: Tensor, n_classes: int, seed: int) -> LinearProbe:
    """The paper's probe on inputs (N, D), float32, as they are. strength and objective are NaN."""
    layer = gaussian_head(inputs.shape[1], n_classes, seed).to(inputs.device)
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
