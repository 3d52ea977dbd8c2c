"""What one-hot ridge regression foretells: a look at a scaling of the features in closed form.

    minimise over W:   1/2 |W|^2 + C / K sum_i 1/2 |t_i - b - W^T z_i|^2

for K classes, t_i the one-hot label, b the frequencies of the classes. Where all classes are as likely,
the curvature of the logistic loss is about 1/K of the square's, hence the factor. One decomposition of
the smaller Gram matrix serves every C. Its outputs, times the one number that makes the held-out labels
likeliest, are read as logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ckptsel.scores.foretelling import FARTHEST, Foretold, at_best_temperature
from ckptsel.scores.probe import Part

EXPONENTS = tuple(range(-8, 9, 2))
"""Of C, that are tried."""


def look(parts: Sequence[Part], held_labels: Tensor, n_classes: int) -> Foretold:
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
