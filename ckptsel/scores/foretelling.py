"""How well logits foretell labels: the measure that scalings and strengths are chosen by.

The log-likelihood of held-out images at the best temperature (Guo et al., arXiv 1706.04599): logits are
divided by one number, chosen on the same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, log_softmax, softmax

SAME = 1e-3
"""Mean log-likelihoods, in nats, that are called equal: of equals the most regularised counts."""

FARTHEST = 1e4
"""The highest temperature."""

CLOSE = 1e-3
"""Relative change of the temperature at which the search for it ends."""

MAX_STEPS = 50


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

    Its logarithm is concave in the inverse of the temperature: Newton's steps find the one peak, or a
    halving of what is left of the range where they lead out of it.
    """
    of_truth = logits.gather(1, labels[:, None])[:, 0]
    least, most = 1 / FARTHEST, 1 / lowest
    inverse = min(1.0, most)
    for _ in range(MAX_STEPS):
        weighted = softmax(logits * inverse, dim=1) * logits
        expected = weighted.sum(1)
        slope = float((of_truth - expected).mean())
        if slope < 0:
            most = inverse
        elif inverse == most:
            break
        else:
            least = inverse
        curvature = float(((weighted * logits).sum(1) - expected.square()).mean())
        new = inverse + slope / curvature if curvature > 0 else most
        if not least < new < most:
            new = (least * most) ** 0.5
        before, inverse = inverse, new
        if abs(inverse - before) <= CLOSE * before:
            break
    log_p = log_softmax(logits * inverse, dim=1).gather(1, labels[:, None])[:, 0]
    return Foretold(log_p.cpu().numpy(), 1 / inverse)
