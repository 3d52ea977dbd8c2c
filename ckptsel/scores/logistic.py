"""The logistic objective: of several small problems side by side, or of one whose rows are streamed.

    1 / (C n) * 1/2 |W|^2 + 1/n sum_i -log softmax(W^T z_i + b)[y_i]

Variables are W and b divided by a scale: the Hessian of the loss is at most variance / n_classes at
equal probabilities, so in these variables it is near the identity, whatever the spectrum.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ckptsel.scores.rows import Mapped, values_at_once


def losses(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted loss (k,), its gradient (k, C, n) for the logits) of logits (k, C, n), which are lost.

    labels, weights: (k, 1, n). Images come last, and exponentials are taken once, or with few classes
    they take most of it.
    """
    logits -= logits.amax(1, keepdim=True)
    truth = logits.gather(1, labels)
    odds = logits.exp_()
    total = odds.sum(1, keepdim=True)
    value = (weights * (total.log() - truth)).sum((1, 2))
    return value, odds.mul_(weights / total).scatter_add_(1, labels, -weights)


def scale_of(variance: Tensor, penalty: Tensor, n_classes: int) -> Tensor:
    """What W (..., r) is divided by, and b in the last column. variance: of the inputs (..., r)."""
    scale = (variance.clamp(min=0) / n_classes + penalty).rsqrt()
    of_bias = scale.new_full((*scale.shape[:-1], 1), n_classes**0.5)
    return torch.cat([scale, of_bias], -1)


class SideBySide:
    """Problems padded to one size: (k, n, r) inputs, and 1 / n as the weight of an image, 0 of padding.
    Points are rows (k, C (r + 1)); the last of each class is the intercept."""

    def __init__(
        self,
        problems: Sequence[tuple[Tensor, Tensor]],
        n_classes: int,
        strengths: Sequence[float],
    ) -> None:
        self.sizes = [tuple(inputs.shape) for inputs, _ in problems]
        self.n_classes = n_classes
        k, n, r = len(problems), max(s[0] for s in self.sizes), max(s[1] for s in self.sizes)
        like = problems[0][0]
        # One problem alone is read where it lies.
        self.inputs = like[None] if k == 1 else like.new_zeros(k, n, r)
        self.weights = like.new_zeros(k, 1, n)
        self.labels = torch.zeros(k, 1, n, dtype=torch.int64, device=like.device)
        self.penalty = like.new_zeros(k, 1, r + 1)
        for i, ((inputs, labels), strength) in enumerate(zip(problems, strengths, strict=True)):
            m, columns = inputs.shape
            if k > 1:
                self.inputs[i, :m, :columns] = inputs
            self.weights[i, 0, :m] = 1 / m
            self.labels[i, 0, :m] = labels
            self.penalty[i, 0, :r] = 1 / (strength * m)
        variance = self._variance()
        self.scale = scale_of(variance, self.penalty[:, :, :r], n_classes)
        self._which: tuple[int, ...] = tuple(range(k))
        self._kept: tuple[Tensor, ...] = (
            self.inputs,
            self.weights,
            self.labels,
            self.penalty,
            self.scale,
        )

    def _variance(self) -> Tensor:
        """Of the columns (k, 1, r)."""
        mean = self.inputs.new_zeros(len(self.inputs), 1, self.inputs.shape[2])
        square = mean
        for some in self._parts(self.inputs):
            part, weights = self.inputs[:, some], self.weights[:, :, some]
            square, mean = square + weights @ part.square(), mean + weights @ part
        return square - mean.square()

    def objective(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Value of the formula (k,), and its gradient (k, P)."""
        inputs, weights, labels, penalty, scale = self._of(which)
        parameters = x.view(len(x), self.n_classes, -1) * scale
        value = (penalty * parameters.square()).sum((1, 2)) / 2
        gradient = penalty * parameters
        of_inputs, bias = parameters[:, :, :-1], parameters[:, :, -1:]
        for some in self._parts(inputs):
            part = inputs[:, some]
            logits = torch.baddbmm(bias, of_inputs, part.mT)
            loss, residual = losses(logits, labels[:, :, some], weights[:, :, some])
            value += loss
            gradient[:, :, :-1] += residual @ part
            gradient[:, :, -1] += residual.sum(2)
        return value, (gradient * scale).flatten(1)

    @staticmethod
    def _parts(inputs: Tensor) -> Iterator[slice]:
        """Of the images: both products with a part find it in the processor's cache."""
        k, n, r = inputs.shape
        rows = max(1, values_at_once(inputs) // max(1, k * r))
        return (slice(first, first + rows) for first in range(0, n, rows))

    def _of(self, which: Tensor) -> tuple[Tensor, ...]:
        """The tensors of some problems, kept until others are asked for."""
        wanted = tuple(which.tolist())
        if self._which != wanted:
            tensors = (self.inputs, self.weights, self.labels, self.penalty, self.scale)
            self._which, self._kept = wanted, tuple(tensor[which] for tensor in tensors)
        return self._kept


class Streamed:
    """One problem of many rows, which are read a chunk at a time. Points are (1, C (r + 1))."""

    def __init__(self, inputs: Mapped, labels: Tensor, n_classes: int, strength: float) -> None:
        n, r = inputs.shape
        self.sizes = [(n, r)]
        self.n_classes = n_classes
        self._inputs, self._labels = inputs, labels[None, None]
        self._penalty = inputs.matrix.new_full((r + 1,), 1 / (strength * n))
        self._penalty[r] = 0
        self.scale = scale_of(inputs.squares(), self._penalty[:r], n_classes)[None, None]

    def objective(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Value of the formula (1,), and its gradient (1, P)."""
        parameters = x.view(self.n_classes, -1) * self.scale[0]
        value = (self._penalty * parameters.square()).sum()[None] / 2
        gradient = self._penalty * parameters
        mean, matrix = self._inputs.mean, self._inputs.matrix
        weights = parameters[:, :-1] @ matrix.T
        bias = (parameters[:, -1] - weights @ mean)[:, None]
        of_weights, of_bias = torch.zeros_like(weights), torch.zeros_like(bias[:, 0])
        for some, chunk in self._inputs.rows.chunks():
            labels = self._labels[:, :, some]
            each = torch.full_like(labels, 1 / len(self._inputs), dtype=chunk.dtype)
            loss, residual = losses(torch.addmm(bias, weights, chunk.T)[None], labels, each)
            value += loss
            of_weights.addmm_(residual[0], chunk)
            of_bias += residual[0].sum(1)
        gradient[:, :-1] += (of_weights - torch.outer(of_bias, mean)) @ matrix
        gradient[:, -1] += of_bias
        return value, (gradient * self.scale[0]).flatten()[None]
