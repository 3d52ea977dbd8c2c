"""Covariance of features, shrunk towards a multiple of the identity (Ledoit and Wolf 2004).

With rows x_i (N, D) of mean zero, S = 1/N sum_i x_i x_i^T and m = tr(S) / D, the estimate is

    (1 - a) S + a m I,    a = min(b, d) / d,    d = |S - m I|^2,    b = 1/N^2 sum_i |x_i x_i^T - S|^2

in the Frobenius norm. All of it is the same in any basis, so rows may come as coordinates (N, r) along
directions outside which they are nil: there the estimate is a m I.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 1e-12
"""Of the mean variance: what exact dependence between features leaves to be inverted."""


@dataclass(frozen=True)
class ShrunkCovariance:
    """covariance: the estimate in the coordinates, (r, r). intensity: a, in [0, 1]."""

    covariance: Tensor
    intensity: float

    def solve(self, right: Tensor) -> Tensor:
        """The inverse of the estimate times vectors (r, k): (r, k)."""
        return torch.cholesky_solve(right, torch.linalg.cholesky(self.covariance))


def shrunk_covariance(centred: Tensor, n_columns: int) -> ShrunkCovariance:
    """The estimate from rows (n, r) of mean zero that stand for (n, n_columns)."""
    n, r = centred.shape
    identity = torch.eye(r, dtype=centred.dtype, device=centred.device)
    empirical = centred.T @ centred / n
    mean = float(empirical.diagonal().sum()) / n_columns
    if mean <= 0:  # no spread at all: every direction counts the same
        return ShrunkCovariance(identity, 1.0)
    squared = float(empirical.square().sum())
    distance = squared - n_columns * mean**2
    noise = (float(centred.square().sum(1).square().sum()) / n - squared) / n
    intensity = min(max(noise, 0.0), distance) / distance if distance > 0 else 0.0
    shrunk = (1 - intensity) * empirical + max(intensity, LEAST) * mean * identity
    return ShrunkCovariance(shrunk, intensity)


def class_means(rows: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """(means (C, r) of the classes of rows (n, r), nil where a class is not there; counts (C,))."""
    one_hot = torch.nn.functional.one_hot(labels, n_classes).to(rows)
    counts = one_hot.sum(0)
    return (one_hot.T @ rows) / counts.clamp(min=1)[:, None], counts
