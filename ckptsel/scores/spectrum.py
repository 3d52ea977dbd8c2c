"""The spectrum of training features: one eigendecomposition that every score shares.

Deng et al. (arXiv 2203.04668), Eqs. 1-3, for features F of shape (N, D), not centred:

    F = U S V^T
    k = the least k with sum(s_1 .. s_k) / sum(s) >= energy        (0.8)
    main component      F_m = F V_k V_k^T
    residual component  F_r = F - F_m

The Gram matrix F^T F (D x D) is decomposed, summed up from chunks of F where N >= D; where N < D, in
the space that the rows span (N x N). Squaring loses the small singular values, which the residual is
made of: what lies below 1e-4 of the largest is decomposed again, in the subspace that holds it.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.results.scores import count_main
from ckptsel.scores.rows import Rows

SMALL = 1e-4
"""Below this part of the largest singular value, its square has lost half of its sixteen digits."""


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
        self._rows: dict[Hashable, Rows] = {}
        self._kept: dict[Hashable, Spectrum] = {}

    def rows(self, part: Hashable, places: Tensor) -> Rows:
        """The rows at `places` (n,), which are known as `part`, with what was computed of them."""
        if part not in self._rows:
            self._rows[part] = Rows.at(self._features, places)
        return self._rows[part]

    def of(self, part: Hashable, places: Tensor) -> Spectrum:
        """Their spectrum."""
        if part not in self._kept:
            self._kept[part] = spectrum_of(self.rows(part, places), self._energy)
        return self._kept[part]


def compute_spectrum(features: Tensor, energy: float = 0.8) -> Spectrum:
    """The spectrum of features (N, D), computed in float64 on their device.

    energy: the part of the sum of singular values that the main component keeps, in (0, 1].
    """
    return spectrum_of(Rows.all_of(features), energy)


def spectrum_of(rows: Rows, energy: float = 0.8) -> Spectrum:
    """`compute_spectrum` of some rows."""
    values, vectors = directions(rows)
    return Spectrum(values, vectors, count_main(values.cpu().numpy(), energy), rows.shape)


def directions(
    rows: Rows, *, centred: bool = False, basis: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Singular values (r,) in falling order and right singular vectors (k, r) of the rows in a basis
    (D, k), less their mean where `centred`; r is the numerical rank.

    basis: orthonormal; None for the columns themselves.
    """
    values, vectors = _directions(rows, centred, basis)
    rank = int((values > values[:1] * max(rows.shape) * torch.finfo(values.dtype).eps).sum())
    return values[:rank], vectors[:, :rank]


def _directions(rows: Rows, centred: bool, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """`directions`, those of rounding with them."""
    n, d = rows.shape
    if n < d:
        return _of_wide(rows, centred, basis)
    gram = rows.scatter if centred else rows.gram
    mean = rows.columns.mean if centred else torch.zeros_like(rows.columns.mean)
    if basis is None:
        return _decompose(gram, lambda vectors: rows.gram_in(vectors, mean))
    return _decompose(basis.T @ gram @ basis, lambda vectors: rows.gram_in(basis @ vectors, mean))


def _of_wide(rows: Rows, centred: bool, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """`directions` of fewer rows than columns, which are few enough to be held."""
    held = rows.whole()
    held = held - held.mean(0) if centred else held
    held = held if basis is None else held @ basis
    if held.shape[0] >= held.shape[1]:
        return _of_held(held)
    span, triangle = torch.linalg.qr(held.T)
    values, vectors = _of_held(triangle.T)
    return values, span @ vectors


def _of_held(held: Tensor) -> tuple[Tensor, Tensor]:
    def gram(along: Tensor) -> Tensor:
        return along.T @ along

    return _decompose(gram(held), lambda vectors: gram(held @ vectors))


def _decompose(
    gram: Tensor, again: Callable[[Tensor], Tensor], least: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Roots of the eigenvalues (k,) of a Gram matrix in falling order, and its eigenvectors (k, k).

    again: the Gram matrix of the rows along some vectors (k, m). What is not above `least` is rounding,
    and is not decomposed again.
    """
    squares, vectors = torch.linalg.eigh(gram)
    values, vectors = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    largest = float(values[0]) if len(values) else 0.0
    least = least or largest * len(values) * torch.finfo(values.dtype).eps
    n_exact = int((values >= SMALL * largest).sum())
    if largest <= least or n_exact == len(values):
        return values, vectors
    tail = vectors[:, n_exact:]
    small, within = _decompose(again(tail), lambda some: again(tail @ some), least)
    return (
        torch.cat([values[:n_exact], small]),
        torch.cat([vectors[:, :n_exact], tail @ within], 1),
    )
