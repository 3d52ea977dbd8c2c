"""Scalings of features (n, D) in which a probe is regularised; each is linear.

| name | what is divided by what | does not change under |
| --- | --- | --- |
| `plain` | all by one number | rotation, shift, scale |
| `whitened` | each principal direction by its own spread | any invertible linear map, shift |
| `standardised` | each column by its own spread | shift and scale of each column |

Features come as coordinates along directions in which they are nearly uncorrelated, so that fits
converge fast, and as fast wherever their mean lies. Directions and columns whose spread is no more
than the rounding of float32 are left out where they would be divided by it.
"""

from torch import Tensor

from ckptsel.scores.spectrum import Spectrum, compute_spectrum

PLAIN, WHITENED, STANDARDISED = "plain", "whitened", "standardised"
SCALINGS = (PLAIN, WHITENED, STANDARDISED)

ROUNDING = 4 * 2.0**-24
"""Of a float32, relative, several times over: a spread below that is none."""


def rounding_of(features: Tensor) -> Tensor:
    """What columns (n, D) of float32 may differ by for rounding alone, (D,)."""
    return ROUNDING * features.abs().amax(0)


def standardise(fitted: Tensor, rows: Tensor, rounding: Tensor) -> Tensor:
    """Rows (n', D) with each column less its mean over `fitted` (n, D) and divided by its standard
    deviation there, as coordinates (n', r) in the basis of `fitted`."""
    spread = fitted.std(0, correction=0)
    live = spread > rounding
    mean, spread = fitted[:, live].mean(0), spread[live]
    basis = compute_spectrum((fitted[:, live] - mean) / spread).right_vectors
    return ((rows[:, live] - mean) / spread) @ basis


def principal(fitted: Tensor) -> Spectrum:
    """The principal directions of `fitted` (n, r): the spectrum of what is left of its mean."""
    return compute_spectrum(fitted - fitted.mean(0))


def whiten(rows: Tensor, directions: Spectrum, basis: Tensor, rounding: Tensor) -> Tensor:
    """Rows (n', r') along principal directions, each divided by its standard deviation: (n', r'').

    basis: (D, r), whose coordinates the directions are of; rounding: of the D columns.
    """
    spread = directions.singular_values / directions.shape[0] ** 0.5
    noise = ((basis @ directions.right_vectors).square().T @ rounding.square()).sqrt()
    live = spread > noise
    return rows[:, live] / spread[live]
