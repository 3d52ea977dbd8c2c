"""How strongly a probe is regularised, and in which scaling of the features: what predicts images
best that it has not seen.

The penalty |W|^2 makes directions in which features are wide cheap, and others dear. Which of them
hold the signal is not known beforehand, so three scalings are tried (`ckptsel.scores.scalings`),
each over a wide range of C, by five-fold cross-validation inside the fitting part.

The measure is the log-likelihood of held-out images at the best temperature (Guo et al., arXiv
1706.04599): logits are divided by one number, at least 1, chosen on the same images. Without it a
classifier that is right but too sure loses to one that says nothing, as happens with few images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from ckptsel.scores.probe import LinearProbe, Part, fit_side_by_side

COARSE = tuple(range(-6, 5, 2))
"""Exponents of C that are always tried. On features scaled to root mean square 1 the best C is near
1; it lies far from it where few directions hold the signal and others the spread."""

DEFAULT_STRENGTH = 1.0
"""C where no class has two images, so that none can be held out to choose it."""

WIDEST = 12
"""The search goes out to 1e-12 and 1e12 where the peak lies beyond the coarse grid."""

FINE_STEPS = (1.0, 0.5)
"""Then a decade, then half a decade, to both sides of the best."""

SAME = 1e-3
"""Mean log-likelihoods, in nats, that are called equal: of equals the most regularised counts."""

CLEARLY = 1.0
"""Standard errors that a scaling must be better than those before it."""

HIGHEST_TEMPERATURE = 1e4

ITERATIONS = 200
TOLERANCE = 3e-3
"""For the fits that only choose: largest gradient entry beside the value (an absolute one would stop
early where the value is near nil, and what was not converged looks better than what will be fitted)."""


@dataclass(frozen=True)
class Strength:
    """A chosen C, and the temperature that the logits are divided by. bracketed: weaker and stronger
    regularisation were both seen to be worse."""

    value: float
    bracketed: bool
    temperature: float = 1.0


def choose(parts: Mapping[str, Sequence[Part]], n_classes: int) -> tuple[str, Strength]:
    """The scaling and the strength that predict best, of the parts in each scaling.

    The first scaling counts unless another is clearly better: by more than one standard error of
    the difference on the same images.
    """
    searches = {name: _Search(some, n_classes) for name, some in parts.items()}
    name, *others = searches
    if len(searches[name].held_labels) == 0:
        return name, Strength(DEFAULT_STRENGTH, bracketed=False)
    for exponent in COARSE:
        _fit(list(searches.values()), float(exponent))
    for search in searches.values():
        search.look_around()
    for other in others:
        ahead = searches[other].best.per_image - searches[name].best.per_image
        if is_clearly_better(ahead):
            name = other
    return name, searches[name].refine()


def is_clearly_better(ahead: NDArray[np.float64]) -> bool:
    """Whether a mean (n,) is more than one standard error above nil."""
    return bool(ahead.mean() > CLEARLY * ahead.std() / np.sqrt(len(ahead)))


def choose_strength(parts: Sequence[Part], n_classes: int) -> Strength:
    """The strength alone, in the scaling that the parts have."""
    return choose({"": parts}, n_classes)[1]


@dataclass(frozen=True)
class _HeldOut:
    """Log-likelihoods (n_held,) of the held-out images at the best temperature, nats."""

    per_image: NDArray[np.float64]
    temperature: float


class _Search:
    """Mean held-out log-likelihood as a function of the exponent of C; each is fitted once."""

    def __init__(self, parts: Sequence[Part], n_classes: int) -> None:
        # A class that no image is fitted on is as unlikely at any strength: it tells nothing.
        self.parts = [part.of_fitted_classes() for part in parts]
        self.n_classes = n_classes
        self.held_labels = torch.cat([part.held_labels for part in self.parts])
        self.probes: dict[float, list[LinearProbe]] = {}
        self.seen: dict[float, _HeldOut] = {}
        self.exponent = 0.0

    @property
    def best(self) -> _HeldOut:
        return self.seen[self.exponent]

    def look_around(self) -> None:
        """A coarse grid is tried as a whole, since the likelihood may be flat or fall before it
        rises: it is flat where the penalty leaves nothing, and falls where directions without
        signal have the largest spread. Then it is widened until the best lies inside."""
        exponents = [float(exponent) for exponent in COARSE]
        step = COARSE[1] - COARSE[0]
        while True:
            self._go_to_best(exponents)
            if self.exponent == max(exponents) < WIDEST:
                exponents.append(self.exponent + step)
            elif self.exponent == min(exponents) > -WIDEST:
                exponents.append(self.exponent - step)
            else:
                return

    def refine(self) -> Strength:
        """The best to half a decade."""
        bracketed = abs(self.exponent) < WIDEST
        for fine in FINE_STEPS if bracketed else ():
            self._go_to_best([self.exponent - fine, self.exponent, self.exponent + fine])
        return Strength(10.0**self.exponent, bracketed, self.best.temperature)

    def _go_to_best(self, exponents: Sequence[float]) -> None:
        """To the exponent of the highest mean; of equals the most regularised."""
        means = {e: float(self._held_out(e).per_image.mean()) for e in sorted(exponents)}
        highest = max(means.values())
        self.exponent = next(e for e, mean in means.items() if mean >= highest - SAME)

    def _held_out(self, exponent: float) -> _HeldOut:
        if exponent not in self.seen:
            _fit([self], exponent)
        return self.seen[exponent]

    def nearest(self, exponent: float) -> list[LinearProbe] | None:
        """The fits at the nearest strength, of two the stronger: its weights are smaller."""
        near = min(self.probes, key=lambda e: (abs(e - exponent), e), default=None)
        return None if near is None else self.probes[near]

    def keep(self, exponent: float, probes: list[LinearProbe]) -> None:
        self.probes[exponent] = probes
        logits = [
            probe.logits(part.held_inputs) for part, probe in zip(self.parts, probes, strict=True)
        ]
        self.seen[exponent] = _at_best_temperature(torch.cat(logits), self.held_labels)


def _fit(searches: Sequence[_Search], exponent: float) -> None:
    """Fit every part of several searches, which have all been at the same strengths."""
    parts = [part for search in searches for part in search.parts]
    starts = [start for search in searches for start in search.nearest(exponent) or []]
    probes = fit_side_by_side(
        [(part.fit_inputs, part.fit_labels) for part in parts],
        searches[0].n_classes,
        10.0**exponent,
        starts or None,
        TOLERANCE,
        ITERATIONS,
    )
    for search in searches:
        n = len(search.parts)
        search.keep(exponent, probes[:n])
        probes = probes[n:]


def _at_best_temperature(logits: Tensor, labels: Tensor) -> _HeldOut:
    """The highest likelihood of labels (n,) under softmax of logits (n, C) over a temperature.

    It has one peak: the logarithm is concave in the inverse of the temperature.
    """

    def log_p(log_temperature: float) -> Tensor:
        scaled = torch.log_softmax(logits * float(np.exp(-log_temperature)), dim=1)
        return scaled.gather(1, labels[:, None])[:, 0]

    found = minimize_scalar(
        lambda log_temperature: -float(log_p(log_temperature).mean()),
        bounds=(0.0, np.log(HIGHEST_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    # The search does not try its ends.
    log_temperature = float(found.x) if -found.fun > float(log_p(0.0).mean()) else 0.0
    return _HeldOut(log_p(log_temperature).cpu().numpy(), float(np.exp(log_temperature)))
