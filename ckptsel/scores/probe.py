"""Probes: a linear classifier on features, fitted on one part and read on another.

Logistic probe (the default): L2-regularised multinomial logistic regression,

    minimise over W, b:   1/2 |W|^2 + C sum_i -log softmax(W^T z_i + b)[y_i]

scikit-learn's objective and its `C`, the intercept b not penalised. `ckptsel.scores.strength` chooses
C, `ckptsel.scores.scalings` has what z may be. The columns of z are nearly uncorrelated, so a diagonal
change of variables makes L-BFGS converge in a few dozen steps.

Paper's probe (Deng et al., arXiv 2203.04668, Table 1): a linear layer with Gaussian initial weights,
Adam, learning rate 0.01, batches of 128, 50 epochs. It is not run to convergence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.scores.lbfgs import minimise
from ckptsel.training.heads import gaussian_head
from ckptsel.training.loop import TensorBatches, Training, epoch_generator

MAX_ITERATIONS = 1000
TOLERANCE = 1e-5
"""Largest gradient entry, in the scaled variables, beside the value at which a fit has converged."""

TOGETHER = 2**20
"""Values of inputs and logits of the problems that are fitted side by side."""

CHUNK = 2**19
"""Values of inputs that are read at a time: both products with them find them in the cache."""

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
class LinearProbe:
    """Weights (r, C), bias (C,), float64, and how the fit ended.

    objective is the minimised value of the module's formula; strength is C.
    """

    weights: Tensor
    bias: Tensor
    strength: float
    objective: float
    converged: bool

    def logits(self, inputs: Tensor) -> Tensor:
        """Of inputs (N, r): (N, C)."""
        return inputs @ self.weights + self.bias

    def log_probabilities(self, inputs: Tensor, temperature: float = 1.0) -> Tensor:
        """log softmax of the logits of inputs (N, r) divided by a temperature: (N, C), nats."""
        return torch.log_softmax(self.logits(inputs) / temperature, dim=1)


def fit_logistic(
    inputs: Tensor,
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
    problems: Sequence[tuple[Tensor, Tensor]],
    n_classes: int,
    strengths: Sequence[float],
    starts: Sequence[LinearProbe | None] | None,
    tolerance: float,
    max_iterations: int,
) -> list[LinearProbe]:
    """`fit_logistic` for several (inputs, labels); small ones are computed together."""
    largest = max(len(inputs) * (inputs.shape[1] + n_classes) for inputs, _ in problems)
    n_together = max(1, TOGETHER // max(largest, 1))
    probes: list[LinearProbe] = []
    for first in range(0, len(problems), n_together):
        some = slice(first, first + n_together)
        batch = _Problems(problems[some], n_classes, strengths[some])
        start = batch.pack(None if starts is None else starts[some])
        found, ended = minimise(batch.objective, start, tolerance, max_iterations)
        probes += batch.unpack(found, ended)
    return probes


class _Problems:
    """Problems padded to one size: (k, n, r) inputs, and 1 / n as the weight of an image, 0 of
    padding. Variables are W and b divided by `scale` (k, 1, r + 1), as rows (k, C (r + 1))."""

    def __init__(
        self,
        problems: Sequence[tuple[Tensor, Tensor]],
        n_classes: int,
        strengths: Sequence[float],
    ) -> None:
        self.sizes = [tuple(inputs.shape) for inputs, _ in problems]
        self.n_classes, self.strengths = n_classes, strengths
        k, n, r = len(problems), max(s[0] for s in self.sizes), max(s[1] for s in self.sizes)
        like = problems[0][0]
        # The last column is one everywhere: its weights are the intercept.
        self.inputs = like.new_zeros(k, n, r + 1)
        self.weights = like.new_zeros(k, 1, n)
        self.labels = torch.zeros(k, 1, n, dtype=torch.int64, device=like.device)
        self.penalty = like.new_zeros(k, 1, r + 1)
        for i, ((inputs, labels), strength) in enumerate(zip(problems, strengths, strict=True)):
            m, columns = inputs.shape
            self.inputs[i, :m, :columns] = inputs
            self.inputs[i, :m, r] = 1
            self.weights[i, 0, :m] = 1 / m
            self.labels[i, 0, :m] = labels
            self.penalty[i, 0, :r] = 1 / (strength * m)
        # The Hessian of the loss is at most variance / n_classes at equal probabilities: in these
        # variables it is near the identity, whatever the spectrum.
        square = torch.linalg.vector_norm(self.inputs, dim=1, keepdim=True).square()
        variance = square * self.weights[:, :, :1] - (self.weights @ self.inputs).square()
        self.scale = (variance.clamp(min=0) / n_classes + self.penalty).rsqrt()
        self.scale[:, 0, r] = float(n_classes) ** 0.5
        self._which: tuple[int, ...] = tuple(range(k))
        self._kept: tuple[Tensor, ...] = (
            self.inputs,
            self.weights,
            self.labels,
            self.penalty,
            self.scale,
        )

    def objective(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Value of the formula divided by C n (k,), and its gradient (k, P)."""
        inputs, weights, labels, penalty, scale = self._of(which)
        parameters = x.view(len(x), self.n_classes, -1) * scale
        value = (penalty * parameters.square()).sum((1, 2)) / 2
        gradient = penalty * parameters
        rows = max(1, CHUNK // (len(x) * inputs.shape[2]))
        for first in range(0, inputs.shape[1], rows):
            some = slice(first, first + rows)
            part, weight, right = inputs[:, some], weights[:, :, some], labels[:, :, some]
            # (k, C, rows): images last, and exponentials taken once, or with few classes they take
            # most of it.
            logits = parameters @ part.mT
            logits -= logits.amax(1, keepdim=True)
            truth = logits.gather(1, right)
            odds = logits.exp_()
            total = odds.sum(1, keepdim=True)
            value += (weight * (total.log() - truth)).sum((1, 2))
            residual = odds.mul_(weight / total).scatter_add_(1, right, -weight)
            gradient += residual @ part
        return value, (gradient * scale).flatten(1)

    def _of(self, which: Tensor) -> tuple[Tensor, ...]:
        """The tensors of some problems, kept until others are asked for."""
        wanted = tuple(which.tolist())
        if self._which != wanted:
            tensors = (self.inputs, self.weights, self.labels, self.penalty, self.scale)
            self._which, self._kept = wanted, tuple(tensor[which] for tensor in tensors)
        return self._kept

    def pack(self, starts: Sequence[LinearProbe | None] | None) -> Tensor:
        """Probes as points (k, P); None is all zero."""
        k, _, columns = self.scale.shape
        parameters = self.scale.new_zeros(k, self.n_classes, columns)
        for i, start in enumerate(starts or []):
            if start is not None:
                parameters[i, :, : len(start.weights)] = start.weights.T
                parameters[i, :, -1] = start.bias
        return (parameters / self.scale).flatten(1)

    def unpack(self, x: Tensor, converged: Tensor) -> list[LinearProbe]:
        """Points (k, P) as probes; converged: (k,)."""
        values = self.objective(x, torch.arange(len(x), device=x.device))[0]
        parameters = x.view(len(x), self.n_classes, -1) * self.scale
        return [
            LinearProbe(
                parameters[i, :, :r].T.contiguous(),
                parameters[i, :, -1] - parameters[i, :, -1].mean(),
                self.strengths[i],
                objective=float(values[i]) * self.strengths[i] * n,
                converged=bool(converged[i]),
            )
            for i, (n, r) in enumerate(self.sizes)
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
