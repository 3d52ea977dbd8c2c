"""One-hot ridge regression, in closed form.

    minimise over W, b:   1/2 |W|^2 + C / K sum_i 1/2 |t_i - b - W^T z_i|^2

for K classes, t_i the one-hot label, z_i centred inputs, so that b is the frequencies of the classes.
Where all classes are as likely, the curvature of the logistic loss is about 1/K of the square's, hence
the factor. One decomposition of the smaller Gram matrix serves every C, and tells what each image would
be given by a fit without it (Hastie, Tibshirani and Friedman, 2nd ed., Eq. 7.64).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.scores.foretelling import FARTHEST, Foretold, at_best_temperature
from ckptsel.scores.probe import Part
from ckptsel.scores.rows import Mapped, Rows

EXPONENTS = tuple(range(-8, 9, 2))
"""Of C, that a look tries."""

DECADES = tuple(float(exponent) for exponent in range(-8, 9))
"""Of C, that a fit tries; then half a decade to both sides of the best."""

ROUNDING = 1e-14
"""Part of the largest eigenvalue below which one is rounding of float64."""


@dataclass(frozen=True)
class Ridge:
    """Weights (D, K) of features less `mean` (D,), bias (K,), float64, and the C that was chosen."""

    weights: Tensor
    mean: Tensor
    bias: Tensor
    strength: float

    def classes(self, rows: Rows) -> Tensor:
        """The class of each of n rows: (n,)."""
        return (rows.times(self.weights, self.mean) + self.bias).argmax(1)


def fit_ridge(rows: Rows, labels: Tensor, n_classes: int) -> Ridge:
    """The minimiser for features less their mean, divided by their root mean square, and labels (n,), at
    the C with the least squared error of each image by a fit without it; of equals the most regularised.

    No copy of the features is held where there are many.
    """
    values, basis, images = _along_directions(rows)
    bias = _frequencies(labels, n_classes)
    truth = bias.new_zeros(len(values), n_classes)
    for some, chunk in _chunks(images):
        truth.addmm_(chunk.T, _one_hot(labels[some], bias))

    def shrunk(exponent: float) -> Tensor:
        return truth / _shrinking(values, n_classes, exponent)[:, None]

    def left_out(exponents: Sequence[float]) -> dict[float, float]:
        squares = dict.fromkeys(exponents, 0.0)
        for some, chunk in _chunks(images):
            targets, along = _one_hot(labels[some], bias), chunk.square()
            for exponent in exponents:
                leverage = 1 / len(rows) + along @ (1 / _shrinking(values, n_classes, exponent))
                residuals = targets - chunk @ shrunk(exponent)
                squares[exponent] += float((residuals / (1 - leverage)[:, None]).square().sum())
        return squares

    errors = left_out(DECADES)
    best = min(errors, key=lambda e: (errors[e], e))
    errors |= left_out((best - 0.5, best + 0.5))
    best = min(errors, key=lambda e: (errors[e], e))
    return Ridge(basis @ shrunk(best), rows.columns.mean, bias, 10.0**best)


def _along_directions(rows: Rows) -> tuple[Tensor, Tensor, Tensor | Mapped]:
    """The eigenvalues (m,) of the smaller Gram matrix of a fit's inputs; a basis (D, m) that features
    less their mean are multiplied with; and the product (n, m), whose columns have these squares."""
    (n, width), mean = rows.shape, rows.columns.mean
    centred = None if n >= width else rows.whole() - mean
    gram = rows.scatter if centred is None else centred @ centred.T
    scale = (gram.trace() / (n * width)).sqrt().clamp(min=1e-30)
    values, vectors = torch.linalg.eigh(gram / scale.square())
    kept = values > ROUNDING * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    if centred is None:
        basis = vectors / scale
        return values, basis, Mapped(rows, mean, basis).held_if_small()
    basis = centred.T @ (vectors / values.sqrt()) / scale.square()
    return values, basis, vectors * values.sqrt()


def _shrinking(values: Tensor, n_classes: int, exponent: float) -> Tensor:
    return values + n_classes / 10.0**exponent


def _frequencies(labels: Tensor, n_classes: int) -> Tensor:
    return torch.bincount(labels, minlength=n_classes).double() / len(labels)


def _one_hot(labels: Tensor, less: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, len(less)).double() - less


def _chunks(images: Tensor | Mapped) -> Iterator[tuple[slice, Tensor]]:
    """Which of them, and these."""
    return images.chunks() if isinstance(images, Mapped) else iter([(slice(None), images)])


def look(parts: Sequence[Part], held_labels: Tensor, n_classes: int) -> Foretold:
    """What ridge regression foretells at its best C: its outputs, times the one number that makes the
    held-out labels likeliest, are read as logits. held_labels: of all parts, one after the other."""
    logits: list[list[Tensor]] = [[] for _ in EXPONENTS]
    for part in parts:
        frequencies, inputs = _frequencies(part.fit_labels, n_classes), part.fit_inputs
        targets = _one_hot(part.fit_labels, frequencies)
        if isinstance(inputs, Mapped) or inputs.shape[0] >= inputs.shape[1]:
            values, basis = torch.linalg.eigh(_gram(inputs))
            along = basis.T @ _cross(inputs, targets)
        else:
            values, vectors = torch.linalg.eigh(inputs @ inputs.T)
            basis, along = inputs.T @ vectors, vectors.T @ targets
        held = part.held_inputs @ basis
        for exponent, outputs in zip(EXPONENTS, logits, strict=True):
            shrunk = along / _shrinking(values.clamp(min=0), n_classes, exponent)[:, None]
            outputs.append(held @ shrunk + frequencies)
    found = (at_best_temperature(torch.cat(each), held_labels, 1 / FARTHEST) for each in logits)
    return max(found, key=lambda held: held.per_image.mean())


def _gram(inputs: Tensor | Mapped) -> Tensor:
    return inputs.gram() if isinstance(inputs, Mapped) else inputs.T @ inputs


def _cross(inputs: Tensor | Mapped, targets: Tensor) -> Tensor:
    return inputs.cross(targets) if isinstance(inputs, Mapped) else inputs.T @ targets
