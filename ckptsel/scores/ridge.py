"""What one-hot ridge regression foretells: a look at a scaling of the features in closed form.

    minimise over W:   1/2 |W|^2 + C / K sum_i 1/2 |t_i - b - W^T z_i|^2

for K classes, t_i the one-hot label, b the frequencies of the classes. Where all classes are as likely,
the curvature of the logistic loss is about 1/K of the square's, hence the factor. One decomposition of
the smaller Gram matrix serves every C. Its outputs, times the one number that makes the held-out labels
likeliest, are read as logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from ckptsel.scores.probe import Part

EXPONENTS = tuple(range(-8, 9, 2))
"""Of C, that are tried."""

SAME = 1e-3
"""Mean log-likelihoods, in nats, that are called equal: of equals the most regularised counts."""

FARTHEST = 1e4
"""The temperature lies between this and, for ridge regression, one divided by it."""


@dataclass(frozen=True)
class HeldOut:
    """Log-likelihoods (n_held,) of the held-out images at the best temperature, nats."""

    per_image: NDArray[np.float64]
    temperature: float


def look(parts: Sequence[Part], held_labels: Tensor, n_classes: int) -> HeldOut:
    """What ridge regression foretells at its best C. held_labels: of all parts, one after the other."""
    logits: list[list[Tensor]] = [[] for _ in EXPONENTS]
    for part in parts:
        one_hot = torch.nn.functional.one_hot(part.fit_labels, n_classes).to(part.fit_inputs)
        frequencies = one_hot.mean(0)
        targets, inputs = one_hot - frequencies, part.fit_inputs
        if inputs.shape[0] >= inputs.shape[1]:
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


def best_of(means: dict[float, float]) -> float:
    """The exponent of the highest mean; of equals the most regularised."""
    highest = max(means.values())
    return min(e for e, mean in means.items() if mean >= highest - SAME)


def at_best_temperature(logits: Tensor, labels: Tensor, lowest: float = 1.0) -> HeldOut:
    """The highest likelihood of labels (n,) under softmax of logits (n, C) over a temperature.

    It has one peak: the logarithm is concave in the inverse of the temperature.
    """

    def log_p(log_temperature: float) -> Tensor:
        scaled = torch.log_softmax(logits * float(np.exp(-log_temperature)), dim=1)
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
    return HeldOut(log_p(log_temperature).cpu().numpy(), float(np.exp(log_temperature)))
