"""How strongly a probe is regularised, and in which scaling of the features: what predicts images
best that it has not seen.

The penalty |W|^2 makes directions in which features are wide cheap, and others dear. Which of them
hold the signal is not known beforehand, so three scalings are tried (`ckptsel.scores.scalings`),
each over a wide range of C, by five-fold cross-validation inside the fitting part. Where many images
are held out, scalings that are clearly behind by ridge regression (`ckptsel.scores.ridge`), which
costs next to nothing, are left out.

The measure is the log-likelihood at the best temperature (`ckptsel.scores.foretelling`), at least 1:
without it a classifier that is right but too sure loses to one that says nothing, as happens with few
images.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.scores.foretelling import SAME, Foretold, at_best_temperature, best_of
from ckptsel.scores.probe import Inputs, LinearProbe, Part, fit_side_by_side
from ckptsel.scores.ridge import look

COARSE = tuple(range(-6, 5, 2))
"""Exponents of C that are always tried. On features scaled to root mean square 1 the best C is near
1; it lies far from it where few directions hold the signal and others the spread."""

DEFAULT_STRENGTH = 1.0
"""C where no class has two images, so that none can be held out to choose it."""

WIDEST = 12
"""The search goes out to 1e-12 and 1e12 where the peak lies beyond the coarse grid."""

FINE_STEPS = (1.0, 0.5)
"""Then a decade, then half a decade, to both sides of the best."""

CLEARLY = 1.0
"""Standard errors that a scaling must be better than those before it."""

FAR = 2.0
"""Standard errors behind the best, by ridge regression, at which a scaling is not searched."""

MANY = 480
"""Held-out images from which on ridge regression tells which scalings are behind; of few it does not."""

ITERATIONS = 200
TOLERANCE = 3e-3
"""Of fits that choose, and of what is chosen: largest gradient entry beside the value (an absolute one
would stop early where the value is near nil)."""


@dataclass(frozen=True)
class Strength:
    """A chosen C, and the temperature that the logits are divided by. bracketed: weaker and stronger
    regularisation were both seen to be worse. path: the strengths that were fitted before it, each
    the start of the next."""

    value: float
    bracketed: bool
    temperature: float = 1.0
    path: tuple[float, ...] = ()


def choose(
    several: Sequence[Mapping[str, Sequence[Part]]], n_classes: int
) -> list[tuple[str, Strength]]:
    """The scaling and the strength that predict best, of the parts in each scaling.

    Several such choices are made side by side; none knows of the others. The first scaling counts
    unless another is clearly better: by more than one standard error of the difference on the same
    images.
    """
    chosen: dict[int, tuple[str, Strength]] = {}
    choices = {i: _choice(parts, n_classes) for i, parts in enumerate(several)}
    while choices:
        wanted: list[_Wanted] = []
        for i, choice in list(choices.items()):
            try:
                wanted += next(choice)
            except StopIteration as end:
                chosen[i] = end.value
                del choices[i]
        if wanted:
            _fit(wanted, n_classes)
    return [chosen[i] for i in range(len(several))]


def _choice(
    parts: Mapping[str, Sequence[Part]], n_classes: int
) -> Generator[list["_Wanted"], None, tuple[str, Strength]]:
    """One choice. It yields the fits that it wants next, and goes on once they are made."""
    searches = {name: _Search(some) for name, some in parts.items()}
    first = next(iter(searches))
    held_labels = searches[first].held_labels
    if len(held_labels) == 0:
        return first, Strength(DEFAULT_STRENGTH, bracketed=False)
    if len(held_labels) >= MANY:
        for name in _clearly_behind(searches, held_labels, n_classes):
            del searches[name]
    for exponent in COARSE:
        yield [(search, float(exponent)) for search in searches.values()]
    for search in searches.values():
        yield from search.widen()
    name, *others = searches
    for other in others:
        if is_clearly_better(searches[other].best.per_image - searches[name].best.per_image):
            name = other
    return name, (yield from searches[name].refine())


def _clearly_behind(
    searches: Mapping[str, "_Search"], held_labels: Tensor, n_classes: int
) -> list[str]:
    """Scalings in which ridge regression foretells clearly less than in the best."""
    found = {
        name: look(search.parts, held_labels, n_classes).per_image
        for name, search in searches.items()
    }
    best = max(found.values(), key=lambda per_image: per_image.mean())
    return [name for name, seen in found.items() if is_clearly_better(best - seen, FAR)]


def fit_as_chosen(
    problems: Sequence[tuple[Inputs, Tensor]], strengths: Sequence[Strength], n_classes: int
) -> list[LinearProbe]:
    """Probes of (inputs, labels), each along the path that its strength was found on, and as closely.

    Where classes can be told apart a weak penalty has its minimum far away, and what was chosen is what
    a fit finds on its way there: one that went on would be another.
    """
    paths = [(*strength.path, strength.value) for strength in strengths]
    probes: list[LinearProbe | None] = [None] * len(problems)
    for step in range(max(map(len, paths))):
        going = [i for i, path in enumerate(paths) if step < len(path)]
        found = fit_side_by_side(
            [problems[i] for i in going],
            n_classes,
            [paths[i][step] for i in going],
            [probes[i] for i in going],
            TOLERANCE,
            ITERATIONS,
        )
        for i, probe in zip(going, found, strict=True):
            probes[i] = probe
    return [probe for probe in probes if probe is not None]


def is_clearly_better(ahead: NDArray[np.float64], n_errors: float = CLEARLY) -> bool:
    """Whether a mean (n,) of log-likelihoods is more than so many standard errors above nil, and more
    than what is called equal."""
    error = ahead.std() / np.sqrt(len(ahead))
    return bool(ahead.mean() > max(n_errors * error, SAME))


def settle(parts: Sequence[Part], near: Strength, n_classes: int) -> Strength:
    """The strength for more images than `near` was found with, to half a decade.

    With more images a stronger penalty may be the best, so it is tried from a decade below; then as far
    as the best is not inside.
    """
    search = _Search(parts)
    middle = math.log10(near.value)
    on_the_way = [float(exponent) for exponent in COARSE if exponent < middle - 1]
    wanted = [*on_the_way, middle - 1, middle - 0.5, middle, middle + 0.5]
    while wanted:
        for exponent in wanted:
            _fit([(search, exponent)], n_classes)
        search.go_to_best_seen()
        wanted = [
            search.exponent + step
            for step in (-0.5, 0.5)
            if search.exponent + step not in search.seen and abs(search.exponent) < WIDEST
        ]
    return search.strength()


def choose_strength(parts: Sequence[Part], n_classes: int) -> Strength:
    """The strength alone, in the scaling that the parts have."""
    return choose([{"": parts}], n_classes)[0][1]


class _Search:
    """Mean held-out log-likelihood as a function of the exponent of C; each is fitted once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        # A class that no image is fitted on is as unlikely at any strength: it tells nothing.
        self.parts = [part.of_fitted_classes() for part in parts]
        self.held_labels = torch.cat([part.held_labels for part in self.parts])
        self.probes: dict[float, list[LinearProbe]] = {}
        self.before: dict[float, float | None] = {}
        self.seen: dict[float, Foretold] = {}
        self.exponent = 0.0

    @property
    def best(self) -> Foretold:
        return self.seen[self.exponent]

    def widen(self) -> Generator[list["_Wanted"], None, None]:
        """A coarse grid is tried as a whole, since the likelihood may be flat or fall before it
        rises: it is flat where the penalty leaves nothing, and falls where directions without
        signal have the largest spread. Then it is widened until the best lies inside."""
        step = COARSE[1] - COARSE[0]
        self.go_to_best_seen()
        while abs(self.exponent) < WIDEST:
            if self.exponent == max(self.seen):
                beyond = self.exponent + step
            elif self.exponent == min(self.seen):
                beyond = self.exponent - step
            else:
                return
            yield [(self, beyond)]
            self.go_to_best_seen()

    def refine(self) -> Generator[list["_Wanted"], None, Strength]:
        """The best to half a decade."""
        for fine in FINE_STEPS if self._is_bracketed else ():
            around = (self.exponent - fine, self.exponent + fine)
            unseen = [(self, exponent) for exponent in around if exponent not in self.seen]
            if unseen:
                yield unseen
            self.go_to_best_seen()
        return self.strength()

    @property
    def _is_bracketed(self) -> bool:
        return abs(self.exponent) < WIDEST

    def strength(self) -> Strength:
        """The best that was seen, and how it was come to."""
        path: list[float] = []
        before = self.before[self.exponent]
        while before is not None:
            path.insert(0, 10.0**before)
            before = self.before[before]
        return Strength(10.0**self.exponent, self._is_bracketed, self.best.temperature, tuple(path))

    def go_to_best_seen(self) -> None:
        self.exponent = best_of({e: float(h.per_image.mean()) for e, h in self.seen.items()})

    def start_of(self, exponent: float) -> Sequence[LinearProbe | None]:
        """The fits at the nearest stronger penalty, whose weights are smaller; or at the nearest."""
        near = min(self.probes, key=lambda e: (e > exponent, abs(e - exponent)), default=None)
        self.before[exponent] = near
        return [None] * len(self.parts) if near is None else self.probes[near]

    def keep(self, exponent: float, probes: list[LinearProbe]) -> None:
        self.probes[exponent] = probes
        logits = [
            probe.logits(part.held_inputs) for part, probe in zip(self.parts, probes, strict=True)
        ]
        self.seen[exponent] = at_best_temperature(torch.cat(logits), self.held_labels)


_Wanted = tuple[_Search, float]
"""A search, and the exponent of C that all of its parts are to be fitted at."""


def _fit(wanted: Sequence[_Wanted], n_classes: int) -> None:
    """Fit what several searches want, side by side."""
    problems: list[tuple[Inputs, Tensor]] = []
    strengths: list[float] = []
    starts: list[LinearProbe | None] = []
    for search, exponent in wanted:
        problems += [(part.fit_inputs, part.fit_labels) for part in search.parts]
        strengths += [10.0**exponent] * len(search.parts)
        starts += search.start_of(exponent)
    probes = fit_side_by_side(problems, n_classes, strengths, starts, TOLERANCE, ITERATIONS)
    for search, exponent in wanted:
        n = len(search.parts)
        search.keep(exponent, probes[:n])
        probes = probes[n:]
