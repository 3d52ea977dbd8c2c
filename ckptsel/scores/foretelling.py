"""How well logits foretell labels: the measure that scalings and strengths are chosen by.

The log-likelihood of held-out images at the best temperature (Guo et al., arXiv 1706.04599): logits are
divided by one number, chosen on the same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, log_softmax

SAME = 1e-3
"""Mean log-likelihoods, in nats, that are called equal: of equals the most regularised counts."""

FARTHEST = 1e4
"""The highest temperature."""


@dataclass(frozen=True)
class Foretold:
    """Log-likelihoods (n_held,) of the held-out images at the best temperature, nats."""

    per_image: NDArray[np.float64]
    temperature: float


def best_of(means: Mapping[float, float]) -> float:
    """The exponent of the highest mean; of equals the most regularised."""
    highest = max(means.values())
    return min(e for e, mean in means.items() if mean >= highest - SAME)


def at_best_temperature(logits: Tensor, labels: Tensor, lowest: float = 1.0) -> Foretold:
    """The highest likelihood of labels (n,) under softmax of logits (n, C) over a temperature.

    It has one peak: the logarithm is concave in the inverse of the temperature.
    """

    def log_p(log_temperature: float) -> Tensor:
        scaled = log_softmax(logits * float(np.exp(-log_temperature)), dim=1)
        return scaled.gather(1, labels[:, None])[:, 0]

    start = float(np.log(lowest))
    found = minimize_scalar(
        lambda log_temperature: -float(log_p(log_temperature).mean()),
        bounds=(start, np.log(FARTHEST)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    # The search does not try its ends.
    log_temperature = float(found.x) if -found.fun > float(log_p(start).mean()) else start
    return Foretold(log_p(log_temperature).cpu().numpy(), float(np.exp(log_temperature)))
