"""The spectrum of training features: one eigendecomposition that every score shares.

Deng et al. (arXiv 2203.04668), Eqs. 1-3, for features F of shape (N, D), not centred:

    F = U S V^T
    k = the least k with sum(s_1 .. s_k) / sum(s) >= energy        (0.8)
    main component      F_m = F V_k V_k^T
    residual component  F_r = F - F_m

The smaller Gram matrix is decomposed: F^T F (D x D) where N >= D, else F F^T (N x N). Squaring
loses the small singular values, which the residual is made of: what lies below 1e-5 of the largest
is decomposed again, directly, in the small subspace that holds it.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.results.scores import count_main

SMALL = 1e-5
"""Below this part of the largest singular value, its square has lost ten of sixteen digits."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values (r,) in falling order and right singular vectors (D, r), float64.

    r is the numerical rank; n_main is k, the number of main singular values; shape is (N, D).
    """

    singular_values: Tensor
    right_vectors: Tensor
    n_main: int
    shape: tuple[int, int]

    def project(self, features: Tensor) -> Tensor:
        """Coordinates F V of features (N', D) in the basis, (N', r): columns up to `n_main` are
        those of F_m, the others those of F_r."""
        return features.to(self.right_vectors) @ self.right_vectors

    def of_view(self, view: str) -> Tensor:
        """The right singular vectors of a view: `all`, `main` or `residual`, (D, r)."""
        first, last = self.columns(view)
        return self.right_vectors[:, first:last]

    def columns(self, view: str) -> tuple[int, int]:
        """The places of a view's singular values: first, and one past the last."""
        rank = len(self.singular_values)
        return {"all": (0, rank), "main": (0, self.n_main), "residual": (self.n_main, rank)}[view]

    def into_view(self, matrix: Tensor, view: str) -> Tensor:
        """(D, r) that does to features what `matrix` (D, r) does to a component of them."""
        main = self.of_view("main")
        within = main @ (main.T @ matrix)
        return within if view == "main" else matrix - within

    def component(self, features: Tensor, view: str) -> Tensor:
        """Features (N', D) themselves, F_m (Eq. 2) or F_r = F - F_m (Eq. 3) of them, float64."""
        features = features.to(self.right_vectors)
        if view == "all":
            return features
        main = self.of_view("main")
        within = features @ main @ main.T
        return within if view == "main" else features - within


class Spectra:
    """Spectra of parts of features (N, D), each computed once."""

    def __init__(self, features: Tensor, energy: float) -> None:
        self._features, self._energy = features, energy
        self._kept: dict[Hashable, Spectrum] = {}

    def of(self, part: Hashable, rows: Tensor) -> Spectrum:
        """The spectrum of `rows` (n,), which are known as `part`."""
        if part not in self._kept:
            self._kept[part] = compute_spectrum(self._features[rows], self._energy)
        return self._kept[part]


def compute_spectrum(features: Tensor, energy: float = 0.8) -> Spectrum:
    """The spectrum of features (N, D), computed in float64 on their device.

    energy: the part of the sum of singular values that the main component keeps, in (0, 1].
    """
    n, d = features.shape
    features = features.double()
    if n >= d:
        values, right_vectors, _ = _decompose(features)
    else:
        values, _, long = _decompose(features.T)
        right_vectors = long / values
    return Spectrum(
        values,
        right_vectors,
        n_main=count_main(values.cpu().numpy(), energy),
        shape=(n, d),
    )


def _decompose(tall: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values (r,) of a matrix A with rows >= columns, its vectors V of the short side, and
    those of the long side times the values, A V."""
    short = torch.linalg.eigh(tall.T @ tall).eigenvectors.flip(1)
    long = tall @ short
    values = (long * long).sum(0).sqrt()
    n_exact = int((values >= SMALL * values[0]).cumprod(0).sum())
    if n_exact < len(values):
        head = long[:, :n_exact] / values[:n_exact]
        tail = long[:, n_exact:] - head @ (head.T @ long[:, n_exact:])
        left, tail_values, right = torch.linalg.svd(tail, full_matrices=False)
        values = torch.cat([values[:n_exact], tail_values])
        short = torch.cat([short[:, :n_exact], short[:, n_exact:] @ right.T], dim=1)
        long = torch.cat([long[:, :n_exact], left * tail_values], dim=1)
    rank = int((values > values[0] * max(tall.shape) * torch.finfo(values.dtype).eps).sum())
    return values[:rank], short[:, :rank], long[:, :rank]
