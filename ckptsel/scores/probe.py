"""Probes: a linear classifier on features, fitted on one part and read on another.

Logistic probe (the default): L2-regularised multinomial logistic regression,

    minimise over W, b:   1/2 |W|^2 + C sum_i -log softmax(W^T z_i + b)[y_i]

scikit-learn's objective and its `C`, the intercept b not penalised. `ckptsel.scores.strength` chooses
C, `ckptsel.scores.scalings` has what z may be. The columns of z are nearly uncorrelated, so a diagonal
change of variables makes L-BFGS converge in a few dozen steps.

Paper's probe (Deng et al., arXiv 2203.04668, Table 1): a linear layer with Gaussian initial weights,
Adam, learning rate 0.01, batches of 128, 50 epochs. It is not run to convergence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.scores.lbfgs import minimise
from ckptsel.scores.logistic import SideBySide, Streamed
from ckptsel.scores.rows import Mapped
from ckptsel.training.heads import gaussian_head
from ckptsel.training.loop import TensorBatches, Training, epoch_generator

MAX_ITERATIONS = 1000
TOLERANCE = 1e-5
"""Largest gradient entry, in the scaled variables, beside the value at which a fit has converged."""

TOGETHER, GPU_TOGETHER = 2**20, 2**26
"""Values of inputs and logits of the problems that are fitted side by side."""

PAPER_EPOCHS = 50
PAPER_BATCH = 128
PAPER_LR = 0.01


Inputs = Tensor | Mapped
"""What is fitted or read, (n, r) float64: held, or made of features when it is read."""


@dataclass(frozen=True)
class Part:
    """What one fit sees and what it is read on: inputs (n, r) and labels (n,) int64, and the
    same of the images held out. Everything that the inputs are made with (basis, mean, scale) must
    come from the images that are fitted on."""

    fit_inputs: Inputs
    fit_labels: Tensor
    held_inputs: Inputs
    held_labels: Tensor

    def of_fitted_classes(self) -> "Part":
        """Without the held-out images of classes that are not fitted on."""
        known = torch.isin(self.held_labels, self.fit_labels)
        if bool(known.all()):
            return self
        return Part(
            self.fit_inputs, self.fit_labels, self.held_inputs[known], self.held_labels[known]
        )


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

    def logits(self, inputs: Inputs) -> Tensor:
        """Of inputs (N, r): (N, C)."""
        return inputs @ self.weights + self.bias

    def log_probabilities(self, inputs: Inputs, temperature: float = 1.0) -> Tensor:
        """log softmax of the logits of inputs (N, r) divided by a temperature: (N, C), nats."""
        return torch.log_softmax(self.logits(inputs) / temperature, dim=1)


def fit_logistic(
    inputs: Inputs,
    labels: Tensor,
    n_classes: int,
    strength: float,
    start: LinearProbe | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> LinearProbe:
    """The minimiser of the module's formula for inputs (N, r) float64 and labels (N,) int64.

    start: a fit at another strength to begin from; the minimum is the same from anywhere.
    """
    return fit_side_by_side(
        [(inputs, labels)],
        n_classes,
        [strength],
        None if start is None else [start],
        tolerance,
        max_iterations,
    )[0]


def fit_side_by_side(
    problems: Sequence[tuple[Inputs, Tensor]],
    n_classes: int,
    strengths: Sequence[float],
    starts: Sequence[LinearProbe | None] | None,
    tolerance: float,
    max_iterations: int,
) -> list[LinearProbe]:
    """`fit_logistic` for several (inputs, labels); small ones are computed together."""
    starts = starts or [None] * len(problems)
    probes: list[LinearProbe] = []
    for some in _together(problems, n_classes):
        batch = _posed(problems[some], n_classes, strengths[some])
        found = minimise(batch.objective, _pack(batch, starts[some]), tolerance, max_iterations)
        probes += _unpack(batch, *found, strengths[some])
    return probes


def _together(problems: Sequence[tuple[Inputs, Tensor]], n_classes: int) -> Iterator[slice]:
    """Runs of problems that are computed together; one that is streamed is alone."""
    sizes = [len(inputs) * (inputs.shape[1] + n_classes) for inputs, _ in problems]
    together = GPU_TOGETHER if problems[0][1].is_cuda else TOGETHER
    n_together = max(1, together // max(*sizes, 1))
    is_streamed = any(isinstance(inputs, Mapped) for inputs, _ in problems)
    step = 1 if is_streamed else n_together
    return (slice(first, first + step) for first in range(0, len(problems), step))


def _posed(
    problems: Sequence[tuple[Inputs, Tensor]], n_classes: int, strengths: Sequence[float]
) -> SideBySide | Streamed:
    inputs, labels = problems[0]
    if isinstance(inputs, Mapped):
        return Streamed(inputs, labels, n_classes, strengths[0])
    held = [(z, labels) for z, labels in problems if isinstance(z, Tensor)]
    return SideBySide(held, n_classes, strengths)


def _pack(problems: SideBySide | Streamed, starts: Sequence[LinearProbe | None]) -> Tensor:
    """Probes as points (k, P); None is all zero."""
    k, _, columns = problems.scale.shape
    parameters = problems.scale.new_zeros(k, problems.n_classes, columns)
    for i, start in enumerate(starts):
        if start is not None:
            parameters[i, :, : len(start.weights)] = start.weights.T
            parameters[i, :, -1] = start.bias
    return (parameters / problems.scale).flatten(1)


def _unpack(
    problems: SideBySide | Streamed,
    x: Tensor,
    values: Tensor,
    converged: Tensor,
    strengths: Sequence[float],
) -> list[LinearProbe]:
    """Points (k, P) as probes; values, converged: (k,)."""
    parameters = x.view(len(x), problems.n_classes, -1) * problems.scale
    return [
        LinearProbe(
            parameters[i, :, :r].T.contiguous(),
            parameters[i, :, -1] - parameters[i, :, -1].mean(),
            strengths[i],
            objective=float(values[i]) * strengths[i] * n,
            converged=bool(converged[i]),
        )
        for i, (n, r) in enumerate(problems.sizes)
    ]


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
