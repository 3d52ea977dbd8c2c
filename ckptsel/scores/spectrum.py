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

    def main_component(self, features: Tensor) -> Tensor:
        """F_m of features (N', D) (Eq. 2), (N', D) float64."""
        basis = self.right_vectors[:, : self.n_main]
        return features.to(basis) @ basis @ basis.T

    def residual_component(self, features: Tensor) -> Tensor:
        """F_r = F - F_m of features (N', D) (Eq. 3), (N', D) float64."""
        return features.to(self.right_vectors) - self.main_component(features)


def compute_spectrum(features: Tensor, energy: float = 0.8) -> Spectrum:
    """The spectrum of features (N, D), computed in float64 on their device.

    energy: the part of the sum of singular values that the main component keeps, in (0, 1].
    """
    n, d = features.shape
    features = features.double()
    if n >= d:
        singular_values, right_vectors, _ = _decompose(features)
    else:
        singular_values, _, right_vectors = _decompose(features.T)
    return Spectrum(
        singular_values,
        right_vectors,
        n_main=count_main(singular_values.cpu().numpy(), energy),
        shape=(n, d),
    )


def _decompose(tall: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values, short-side and long-side vectors of a matrix with rows >= columns."""
    short = torch.linalg.eigh(tall.T @ tall).eigenvectors.flip(1)
    long = tall @ short
    values = torch.linalg.vector_norm(long, dim=0)
    n_exact = int((values >= SMALL * values[0]).cumprod(0).sum())
    long[:, :n_exact] /= values[:n_exact]
    if n_exact < len(values):
        head = long[:, :n_exact]
        tail = long[:, n_exact:] - head @ (head.T @ long[:, n_exact:])
        left, tail_values, right = torch.linalg.svd(tail, full_matrices=False)
        values = torch.cat([values[:n_exact], tail_values])
        short = torch.cat([short[:, :n_exact], short[:, n_exact:] @ right.T], dim=1)
        long = torch.cat([head, left], dim=1)
    rank = int((values > values[0] * max(tall.shape) * torch.finfo(values.dtype).eps).sum())
    return values[:rank], short[:, :rank], long[:, :rank]
