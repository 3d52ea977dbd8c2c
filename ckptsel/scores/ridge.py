"""One-hot ridge regression, in closed form.

    minimise over W, b:   1/2 |W|^2 + C / K sum_i 1/2 |t_i - b - W^T z_i|^2

for K classes, t_i the one-hot label, z_i centred inputs, so that b is the frequencies of the classes.
Where all classes are as likely, the curvature of the logistic loss is about 1/K of the square's, hence
the factor. One decomposition of the smaller Gram matrix serves every C, and tells what each image would
be given by a fit without it (Hastie, Tibshirani and Friedman, 2nd ed., Eq. 7.64).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.scores.foretelling import FARTHEST, Foretold, at_best_temperature
from ckptsel.scores.probe import Part
from ckptsel.scores.rows import Mapped

EXPONENTS = tuple(range(-8, 9, 2))
"""Of C, that a look tries."""

DECADES = tuple(range(-8, 9))
"""Of C, that a fit tries; then half a decade to both sides of the best."""

ROUNDING = 1e-14
"""Part of the largest eigenvalue below which one is rounding of float64."""


@dataclass(frozen=True)
class Ridge:
    """Weights (r, K), bias (K,), float64, and the C that was chosen."""

    weights: Tensor
    bias: Tensor
    strength: float

    def classes(self, inputs: Tensor) -> Tensor:
        """The class of each of inputs (N, r): (N,)."""
        return (inputs @ self.weights + self.bias).argmax(1)


class _Decomposed:
    """Inputs (n, r) along the directions of their Gram matrix (the smaller one): `values` (m,), its
    eigenvalues; `images` (n, m) with images images^T = inputs inputs^T."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs, self.is_tall = inputs, inputs.shape[0] >= inputs.shape[1]
        gram = inputs.T @ inputs if self.is_tall else inputs @ inputs.T
        values, vectors = torch.linalg.eigh(gram)
        kept = values > ROUNDING * values[-1]
        self.values, self.vectors = values[kept], vectors[:, kept]
        self.images = inputs @ self.vectors if self.is_tall else self.vectors * self.values.sqrt()

    def weights(self, along: Tensor) -> Tensor:
        """(r, K) of weights `along` (m, K) the directions."""
        if self.is_tall:
            return self.vectors @ along
        return self.inputs.T @ (self.vectors @ (along / self.values.sqrt()[:, None]))


def fit_ridge(inputs: Tensor, labels: Tensor, n_classes: int) -> Ridge:
    """The minimiser for centred inputs (n, r) float64 and labels (n,), at the C with the least squared
    error of each image by a fit without it; of equals the most regularised."""
    targets = torch.nn.functional.one_hot(labels, n_classes).to(inputs)
    bias = targets.mean(0)
    targets -= bias
    decomposed = _Decomposed(inputs)
    images, values = decomposed.images, decomposed.values
    squares, truth = images.square(), images.T @ targets

    def shrunk(exponent: float) -> Tensor:
        return truth / (values + n_classes / 10.0**exponent)[:, None]

    def left_out(exponent: float) -> float:
        residuals = targets - images @ shrunk(exponent)
        leverage = 1 / len(inputs) + squares @ (1 / (values + n_classes / 10.0**exponent))
        return float((residuals / (1 - leverage)[:, None]).square().mean())

    errors = {float(exponent): left_out(exponent) for exponent in DECADES}
    best = min(errors, key=lambda e: (errors[e], e))
    errors |= {exponent: left_out(exponent) for exponent in (best - 0.5, best + 0.5)}
    best = min(errors, key=lambda e: (errors[e], e))
    return Ridge(decomposed.weights(shrunk(best)), bias, 10.0**best)


def look(parts: Sequence[Part], held_labels: Tensor, n_classes: int) -> Foretold:
    """What ridge regression foretells at its best C: its outputs, times the one number that makes the
    held-out labels likeliest, are read as logits. held_labels: of all parts, one after the other."""
    logits: list[list[Tensor]] = [[] for _ in EXPONENTS]
    for part in parts:
        one_hot = torch.nn.functional.one_hot(part.fit_labels, n_classes).double()
        frequencies = one_hot.mean(0)
        targets, inputs = one_hot - frequencies, part.fit_inputs
        if isinstance(inputs, Mapped):
            values, vectors = torch.linalg.eigh(inputs.gram())
            held, along = part.held_inputs @ vectors, vectors.T @ inputs.cross(targets)
        elif inputs.shape[0] >= inputs.shape[1]:
            values, vectors = torch.linalg.eigh(inputs.T @ inputs)
            held, along = part.held_inputs @ vectors, vectors.T @ (inputs.T @ targets)
        else:
            values, vectors = torch.linalg.eigh(inputs @ inputs.T)
            held, along = part.held_inputs @ (inputs.T @ vectors), vectors.T @ targets
        for exponent, outputs in zip(EXPONENTS, logits, strict=True):
            shrunk = along / (values.clamp(min=0) + n_classes / 10.0**exponent)[:, None]
            outputs.append(held @ shrunk + frequencies)
    found = (at_best_temperature(torch.cat(each), held_labels, 1 / FARTHEST) for each in logits)
    return max(found, key=lambda held: held.per_image.mean())
