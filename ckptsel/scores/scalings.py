"""Scalings of features (n, D) in which a probe is regularised; each is linear.

| name | what is divided by what | does not change under |
| --- | --- | --- |
| `plain` | all by one number | rotation, shift, scale |
| `whitened` | each principal direction by its own spread | any invertible linear map, shift |
| `standardised` | each column by its own spread | shift and scale of each column |

Features come as coordinates along directions in which they are uncorrelated, so that fits converge
fast, and as fast wherever their mean lies. Directions and columns whose spread is no more than the
rounding of float32 are left out where they would be divided by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ckptsel.scores.rows import Rows
from ckptsel.scores.spectrum import Spectrum, directions

PLAIN, WHITENED, STANDARDISED = "plain", "whitened", "standardised"
SCALINGS = (PLAIN, WHITENED, STANDARDISED)

ROUNDING = 4 * 2.0**-24
"""Of a float32, relative, several times over: a spread below that is none."""

NUMERICAL = 1e-14
"""Part of the largest eigenvalue below which one is rounding of float64."""


@dataclass(frozen=True)
class Scaling:
    """A linear map: features (n, D) less mean (D,), times matrix (D, r), give coordinates (n, r).

    n_columns: of the matrix that the coordinates stand for, whose root mean square is made 1.
    """

    mean: Tensor
    matrix: Tensor
    n_columns: int


def find_scalings(rows: Rows, spectrum: Spectrum, view: str) -> Mapping[str, Scaling]:
    """The scalings of a view of features, made with the images of `rows`, (n, D).

    spectrum: theirs. Of a view of one direction, all scalings are the same.
    """
    about = rows.columns
    basis = spectrum.of_view(view)
    # Uncorrelated directions of the view, and the images along them.
    is_all = basis.shape[1] == len(about.mean)
    values, vectors = directions(rows, centred=True, basis=None if is_all else basis)
    along = vectors if is_all else basis @ vectors
    spread = values / len(rows) ** 0.5
    found = {PLAIN: Scaling(about.mean, along, len(about.mean))}
    if basis.shape[1] < 2:
        return found
    rounding = ROUNDING * torch.maximum(about.most, -about.least)
    noise = (along.square().T @ rounding.square()).sqrt()
    live = spread > noise
    whitened = along[:, live] / spread[live]
    standardised = _standardised((about.most - about.least) > 0, along, spread, rounding)
    if view != "all":
        standardised = spectrum.into_view(standardised, view)
    for name, matrix in ((WHITENED, whitened), (STANDARDISED, standardised)):
        if matrix.shape[1] and name in SCALINGS:
            found[name] = Scaling(about.mean, matrix, matrix.shape[1])
    return found


def _standardised(moves: Tensor, along: Tensor, spread: Tensor, rounding: Tensor) -> Tensor:
    """(D, r): a view of features times this has the inner products of the view's columns, each divided
    by its standard deviation, along directions in which they are uncorrelated.

    moves: (D,), whether a column is more than one number.
    The view of the images has `spread` (k,) along the directions W (D, k), so that its columns have the
    covariance W diag(spread^2) W^T. With columns divided by their deviations S that is B B^T,
    B = S^-1 W diag(spread); its eigenvectors are B Q / sqrt(g), where Q and g are those of B^T B, and
    features go onto them as S^-1 B Q / sqrt(g).
    """
    columns = (along.square() @ spread.square()).sqrt()
    live = moves & (columns > rounding)
    scaled = along * spread / torch.where(live, columns, torch.inf)[:, None]
    values, vectors = torch.linalg.eigh(scaled.T @ scaled)
    kept = values > NUMERICAL * values.amax().clamp(min=1e-300)
    onto = scaled @ (vectors[:, kept] / values[kept].sqrt()).flip(1)
    return onto / torch.where(live, columns, torch.inf)[:, None]
