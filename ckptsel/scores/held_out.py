"""The probe on every fold of the evaluation: its output on images that it was not fitted on.

Scaling and strength are chosen by cross-validation inside each fitting part. A component has a basis
of its own in each inner part: in a basis that the inner held-out images had a share in, their
residuals would be smaller than those of new images, and most of the signal in them gone. The features
as a whole are the same in any basis.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.scores.probe import Part, fit_paper_probe
from ckptsel.scores.rows import Mapped, Rows
from ckptsel.scores.scalings import SCALINGS, Scaling, find_scalings
from ckptsel.scores.spectrum import Spectra, Spectrum
from ckptsel.scores.strength import Strength, choose, fit_as_chosen, settle
from ckptsel.target.splits import stratified_folds

N_INNER_FOLDS = 5
"""Folds inside a fitting part that choose scaling and strength."""

ENOUGH_HELD = 480
"""Images that choose: of the inner folds only as many are used as hold out so many, or all."""

LEAST_CHOOSING, MOST_CHOOSING = 2500, 10_000
"""About so many images of a fitting part are enough to choose scaling and strength with."""

FOR_A_FEATURE, FOR_A_CLASS = 5, 25
"""More than LEAST_CHOOSING where there are many features or classes: so many for each."""

TOGETHER_VALUES = 2**25
"""Values of the inner parts of the folds that are searched side by side (256 MiB)."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out output of a probe, for each repeat and evaluated image: (n_repeats, n_eval).

    predictions: class numbers.
    log_likelihoods: log probability of the true class, nats.
    """

    predictions: NDArray[np.int64]
    log_likelihoods: NDArray[np.float64]
    flags: tuple[str, ...]
    details: dict[str, Any]


@dataclass(frozen=True)
class Fold:
    """A part that is fitted on, and the images that are read with what was fitted.

    number: among all. repeat: of the evaluation. fit_rows (n,), held_rows (m,): rows of the features.
    columns: (m,), the places of the held-out images among the evaluated ones.
    """

    number: int
    repeat: int
    fit_rows: Tensor
    held_rows: Tensor
    columns: NDArray[np.int64]


@dataclass(frozen=True)
class Probing:
    """What probes are fitted on: features (N, D), labels (N,), the folds, their spectra.

    shape: (n_repeats, n_eval). probe: `logistic` or `paper`.
    """

    features: Tensor
    labels: Tensor
    n_classes: int
    folds: Sequence[Fold]
    shape: tuple[int, int]
    spectra: Spectra
    probe: str
    seed: int

    def held_out(self, view: str) -> HeldOut:
        """Output of the probe on one view of the features, for every evaluated image."""
        predictions = np.zeros(self.shape, dtype=np.int64)
        log_likelihoods = np.zeros(self.shape)
        choices: list[tuple[str, Strength]] = []
        n_unconverged = 0
        for fold, log_p, choice, converged in self.fits(view):
            place = (fold.repeat, fold.columns)
            predictions[place] = log_p.argmax(1).cpu().numpy()
            truth = self.labels[fold.held_rows]
            log_likelihoods[place] = log_p.gather(1, truth[:, None])[:, 0].cpu().numpy()
            choices += [choice] if choice is not None else []
            n_unconverged += not converged
        flags = _flags([strength for _, strength in choices], len(self.folds))
        first, last = self._spectrum(self.folds[0]).columns(view)
        details: dict[str, Any] = {"n_features": last - first}
        if choices:
            details["C"] = sorted({strength.value for _, strength in choices})
            details["scaling"] = sorted({scaling for scaling, _ in choices})
        if n_unconverged:
            details["n_unconverged"] = n_unconverged
        return HeldOut(predictions, log_likelihoods, flags, details)

    def fits(self, view: str) -> Iterator["Fitted"]:
        """The probe of each fold on one view, and what it says of the images that are held out."""
        return self._paper(view) if self.probe == "paper" else self._logistic(view)

    def _paper(self, view: str) -> Iterator["Fitted"]:
        for fold in self.folds:
            spectrum, labels = self._spectrum(fold), self.labels[fold.fit_rows]
            fitted, held_out = self.features[fold.fit_rows], self.features[fold.held_rows]
            inputs = spectrum.component(fitted, view).float()
            held = spectrum.component(held_out, view).float().double()
            probe = fit_paper_probe(inputs, labels, self.n_classes, self.seed)
            yield fold, probe.log_probabilities(held), None, True

    def _logistic(self, view: str) -> Iterator["Fitted"]:
        """For folds that are small, many at once: their fits are too short to be made one by one."""
        n, d = len(self.folds[0].fit_rows), self.features.shape[1]
        n_together = n_searched_together(n, d)
        for first in range(0, len(self.folds), n_together):
            folds = self.folds[first : first + n_together]
            scalings = [self._scalings(fold, view) for fold in folds]
            choices = self._choices(folds, scalings, view)
            parts = [
                self._part(some[name], self._rows(fold), fold.held_rows)
                for fold, some, (name, _) in zip(folds, scalings, choices, strict=True)
            ]
            probes = fit_as_chosen(
                [(part.fit_inputs, part.fit_labels) for part in parts],
                [strength for _, strength in choices],
                self.n_classes,
            )
            for fold, part, choice, probe in zip(folds, parts, choices, probes, strict=True):
                log_p = probe.log_probabilities(part.held_inputs, choice[1].temperature)
                yield fold, log_p, choice, probe.converged

    def _scalings(self, fold: Fold, view: str) -> Mapping[str, Scaling]:
        return find_scalings(self._rows(fold), self._spectrum(fold), view)

    def _choices(
        self, folds: Sequence[Fold], scalings: Sequence[Mapping[str, Scaling]], view: str
    ) -> list[tuple[str, Strength]]:
        """Scaling and strength of each fold: by a part of its images, where they are many, and the
        strength then by all of them."""
        n_fitted, n_features = len(folds[0].fit_rows), self.features.shape[1]
        n_parts = n_choosing_parts(n_fitted, n_features, self.n_classes)
        each = list(zip(folds, scalings, strict=True))
        parts = [self.inner_parts(fold, some, view, n_parts) for fold, some in each]
        choices = choose(parts, self.n_classes)
        if n_parts == 1:
            return choices
        return [
            (name, self._settled(fold, name, some[name], view, near))
            for (fold, some), (name, near) in zip(each, choices, strict=True)
        ]

    def _settled(
        self, fold: Fold, name: str, scaling: Scaling, view: str, near: Strength
    ) -> Strength:
        """The strength in one scaling, by all fitted images."""
        parts = self.inner_parts(fold, {name: scaling}, view, 1).get(name)
        # A component of one direction has no other scaling than the plain one.
        return settle(parts, near, self.n_classes) if parts and near.bracketed else near

    def inner_parts(
        self, fold: Fold, scalings: Mapping[str, Scaling], view: str, n_parts: int = 1
    ) -> dict[str, list[Part]]:
        """The parts of one of `n_parts` of a fold's fitting part that choose scaling and strength, by
        scaling.

        scalings: of the fold as a whole; others are not tried.
        """
        labels = self.labels[fold.fit_rows].cpu().numpy()
        parts: dict[str, list[Part]] = {name: [] for name in scalings}
        folds = choosing_folds(labels, n_parts, (self.seed, fold.number, 1))
        for i, pair in enumerate(folds):
            fitted, held = (fold.fit_rows[torch.from_numpy(places)] for places in pair)
            part = (fold.number, n_parts, i)
            rows, found = self.spectra.rows(part, fitted), scalings
            if view != "all":
                found = find_scalings(rows, self.spectra.of(part, fitted), view)
            for name in parts.keys() & found.keys():
                parts[name].append(self._part(found[name], rows, held))
        return {name: some for name, some in parts.items() if len(some) == len(folds)}

    def _part(self, scaling: Scaling, rows: Rows, held: Tensor) -> Part:
        """Images of `rows`, and those held out, in a scaling, less the mean of the fitted ones, and
        divided by one number, the root mean square of their (n, n_columns) matrix then."""
        mean = rows.columns.mean
        fitted = Mapped(rows, mean, scaling.matrix).held_if_small()
        squares = fitted.square().mean(0) if isinstance(fitted, Tensor) else fitted.squares()
        scale = (squares.sum() / scaling.n_columns).sqrt().clamp(min=1e-30)
        held_rows = Rows.at(self.features, held)
        held_out = Mapped(held_rows, mean, scaling.matrix / scale).held_if_small()
        return Part(fitted / scale, self.labels[rows.places], held_out, self.labels[held])

    def _rows(self, fold: Fold) -> Rows:
        return self.spectra.rows(fold.number, fold.fit_rows)

    def _spectrum(self, fold: Fold) -> Spectrum:
        return self.spectra.of(fold.number, fold.fit_rows)


Fitted = tuple[Fold, Tensor, tuple[str, Strength] | None, bool]
"""A fold, log probabilities (m, C) of what it holds out, scaling and strength, whether it converged."""


def choosing_folds(
    labels: NDArray[np.int64], n_parts: int, seed: tuple[int, ...]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(fitted, held out) places among the images of `labels` (n,) that scaling and strength are chosen
    with.

    One of `n_parts` stratified parts counts, and of its five folds as many as hold out ENOUGH_HELD
    images: beyond that a choice gets slower and no better.
    """
    used = stratified_folds(labels, n_parts, seed)[0][1] if n_parts > 1 else np.arange(len(labels))
    folds = stratified_folds(labels[used], N_INNER_FOLDS, seed)
    return [(used[fitted], used[held]) for fitted, held in folds[: n_choosing_folds(len(used))]]


def n_choosing_parts(n_fitted: int, n_features: int, n_classes: int) -> int:
    """Parts of a fitting part of which one is enough to choose scaling and strength."""
    enough = max(LEAST_CHOOSING, FOR_A_FEATURE * n_features, FOR_A_CLASS * n_classes)
    return max(1, round(n_fitted / min(MOST_CHOOSING, enough)))


def n_choosing_folds(n_used: int) -> int:
    """Inner folds of so many images that are used."""
    return min(N_INNER_FOLDS, -(-ENOUGH_HELD * N_INNER_FOLDS // n_used))


def n_searched_together(n_fitted: int, n_features: int) -> int:
    """Folds of the evaluation whose searches go side by side."""
    width = min(n_fitted, n_features)
    return max(1, TOGETHER_VALUES // (len(SCALINGS) * N_INNER_FOLDS * n_fitted * width))


def _flags(strengths: list[Strength], n_folds: int) -> tuple[str, ...]:
    n_open = sum(not strength.bracketed for strength in strengths)
    return (f"no best strength found ({n_open} of {n_folds} fits)",) if n_open else ()
