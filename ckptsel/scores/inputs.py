"""What a score is computed from: features, labels, the evaluation plan, and what scores share.

The spectrum of each fitting part is computed once, and so is each probe: `linear_probe` and
`linear_probe_loglik` read the same fits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.common.devices import few_threads
from ckptsel.scores.probe import Part, fit_logistic, fit_paper_probe
from ckptsel.scores.scalings import (
    PLAIN,
    SCALINGS,
    STANDARDISED,
    principal,
    rounding_of,
    standardise,
    whiten,
)
from ckptsel.scores.spectrum import Spectrum, compute_spectrum
from ckptsel.scores.strength import Strength, choose
from ckptsel.target.splits import Evaluation, stratified_folds

VIEWS = ("all", "main", "residual")
"""The features F themselves, their main component F_m, their residual component F_r."""

N_INNER_FOLDS = 5
"""Folds inside a fitting part that choose the strength of regularisation."""


KEPT_BYTES = 2**30
"""Projections that are kept for the next view."""


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


class ScoreInputs:
    """Features (N, D) and labels (N,) of the target as one sequence, and what is derived of them.

    energy: what the main component keeps of the sum of singular values. probe: `logistic` or
    `paper`. Everything is computed in float64 on `device`, once, when a score asks for it.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        evaluation: Evaluation,
        energy: float = 0.8,
        probe: str = "logistic",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.features = torch.from_numpy(features).to(device, torch.float64)
        self.labels = torch.from_numpy(labels).to(device)
        self.evaluation = evaluation
        self.n_classes = int(labels.max()) + 1
        self.energy, self.probe, self.seed = energy, probe, seed
        self._held_out: dict[str, HeldOut] = {}
        self._spectra: dict[int, Spectrum] = {}
        self._inner_spectra: dict[tuple[int, int], Spectrum] = {}
        self._projections: dict[tuple[int, int], Tensor] = {}
        self._projected_bytes = 0

    @property
    def fit_features(self) -> Tensor:
        """Features of the whole training part, (n_train, D)."""
        return self.features[torch.from_numpy(self.evaluation.fit_part)]

    @property
    def fit_labels(self) -> Tensor:
        return self.labels[torch.from_numpy(self.evaluation.fit_part)]

    def spectrum(self) -> Spectrum:
        """The spectrum of the whole training part."""
        for i, (fitted, _) in enumerate(self.evaluation.folds):
            if np.array_equal(fitted, self.evaluation.fit_part):
                return self._fold_spectrum(i)
        if -1 not in self._spectra:
            self._spectra[-1] = compute_spectrum(self.fit_features, self.energy)
        return self._spectra[-1]

    def folds(self) -> Iterator[Fold]:
        """What is fitted and read, as the evaluation plans it; one fold where a split is held out."""
        plan = self.evaluation
        for i, (fitted, held) in enumerate(plan.folds):
            yield Fold(
                i,
                i * plan.n_repeats // len(plan.folds),
                torch.from_numpy(fitted),
                torch.from_numpy(held),
                np.searchsorted(plan.evaluated, held),
            )

    def coordinates(self, fold: Fold) -> tuple[Tensor, Tensor]:
        """The images of a fold in the basis of its fitting part: (n, r) fitted, (m, r) held out.

        r is at most min(n, D). What a method that fits nothing but directions of the fitted images sees
        of any image is all there.
        """
        rows = torch.cat([fold.fit_rows, fold.held_rows]).numpy()
        projected = self._projected((fold.number, -1), self._fold_spectrum(fold.number), rows)
        n = len(fold.fit_rows)
        return projected[:n], projected[n:]

    def no_predictions(self) -> NDArray[np.int64]:
        """Room for the class of every evaluated image in every repeat: (n_repeats, n_eval) zeros."""
        return np.zeros((self.evaluation.n_repeats, len(self.evaluation.evaluated)), dtype=np.int64)

    def held_out(self, view: str) -> HeldOut:
        """Output of the probe on one view of the features, for every evaluated image."""
        if view not in self._held_out:
            with few_threads(self.features.numel()):
                self._held_out[view] = self._probe_view(view)
        return self._held_out[view]

    def _fold_spectrum(self, fold: int) -> Spectrum:
        if fold not in self._spectra:
            fitted = torch.from_numpy(self.evaluation.folds[fold][0])
            self._spectra[fold] = compute_spectrum(self.features[fitted], self.energy)
        return self._spectra[fold]

    def _probe_view(self, view: str) -> HeldOut:
        predictions = self.no_predictions()
        log_likelihoods = np.zeros(predictions.shape)
        chosen: list[tuple[str, Strength]] = []
        n_unconverged = 0
        for fold in self.folds():
            place = (fold.repeat, fold.columns)
            log_p, choice, converged = self._probe_fold(fold, view)
            predictions[place] = log_p.argmax(1).cpu().numpy()
            truth = self.labels[fold.held_rows]
            log_likelihoods[place] = log_p.gather(1, truth[:, None])[:, 0].cpu().numpy()
            chosen += [choice] if choice is not None else []
            n_unconverged += not converged
        n_folds = len(self.evaluation.folds)
        flags = _flags([strength for _, strength in chosen], n_unconverged, n_folds)
        details: dict[str, Any] = {"n_features": self._n_features(view)}
        if self.probe == "logistic":
            details["C"] = sorted({strength.value for _, strength in chosen})
            details["scaling"] = sorted({scaling for scaling, _ in chosen})
        return HeldOut(predictions, log_likelihoods, flags, details)

    def _probe_fold(
        self, fold: Fold, view: str
    ) -> tuple[Tensor, tuple[str, Strength] | None, bool]:
        """(log probabilities of the held-out images, scaling and strength, whether it converged)."""
        labels = self.labels[fold.fit_rows]
        if self.probe == "paper":
            inputs = self._component(fold.number, view).float()
            paper = fit_paper_probe(inputs[fold.fit_rows], labels, self.n_classes, self.seed)
            return paper.log_probabilities(inputs[fold.held_rows].double()), None, True
        fitted, held = fold.fit_rows.numpy(), fold.held_rows.numpy()
        whole = self._whole(fold.number, fitted, held, view)
        inner = self._inner_parts(fold.number, fitted, view, whole)
        scaling, strength = choose(inner, self.n_classes)
        n, n_all = len(fitted), len(fitted) + len(held)
        part = whole[scaling].split(np.arange(n), np.arange(n, n_all))
        probe = fit_logistic(part.fit_inputs, labels, self.n_classes, strength.value)
        log_p = probe.log_probabilities(part.held_inputs, strength.temperature)
        return log_p, (scaling, strength), probe.converged

    def _whole(
        self, fold: int, fitted: NDArray[np.int64], held: NDArray[np.int64], view: str
    ) -> dict[str, "_Coordinates"]:
        """A view of a fold's images, fitting part first, in each scaling of its fitting part."""
        rows = np.concatenate([fitted, held])
        return self._scaled(
            (fold, -1), self._fold_spectrum(fold), rows, np.arange(len(fitted)), view
        )

    def _inner_parts(
        self, fold: int, fitted: NDArray[np.int64], view: str, whole: dict[str, "_Coordinates"]
    ) -> dict[str, list[Part]]:
        """The parts of a fold's fitting part that choose scaling and strength, by scaling.

        A component is that of each inner fitting part: in a basis that the inner held-out images
        had a share in, their residuals would be smaller than those of new images, and most of the
        signal in them gone. The features as a whole are the same in any basis.
        """
        labels = self.labels[torch.from_numpy(fitted)].cpu().numpy()
        folds = stratified_folds(labels, N_INNER_FOLDS, (self.seed, fold, 1))
        if view == "all":
            return {name: [one.split(*pair) for pair in folds] for name, one in whole.items()}
        parts: dict[str, list[Part]] = {}
        for i, pair in enumerate(folds):
            spectrum = self._inner_spectrum(fold, i, fitted[pair[0]])
            scaled = self._scaled((fold, i), spectrum, fitted, pair[0], view)
            for name, one in scaled.items():
                parts.setdefault(name, []).append(one.split(*pair))
        return {name: some for name, some in parts.items() if len(some) == len(folds)}

    def _inner_spectrum(self, fold: int, inner: int, rows: NDArray[np.int64]) -> Spectrum:
        key = (fold, inner)
        if key not in self._inner_spectra:
            features = self.features[torch.from_numpy(rows)]
            self._inner_spectra[key] = compute_spectrum(features, self.energy)
        return self._inner_spectra[key]

    def _projected(
        self, key: tuple[int, int], spectrum: Spectrum, rows: NDArray[np.int64]
    ) -> Tensor:
        """Coordinates of rows of the features in the basis of a spectrum: one projection serves all
        views, as far as they fit into KEPT_BYTES."""
        if key in self._projections:
            return self._projections[key]
        found = spectrum.project(self.features[torch.from_numpy(rows)])
        self._projected_bytes += found.nbytes
        if self._projected_bytes <= KEPT_BYTES:
            self._projections[key] = found
        return found

    def _scaled(
        self,
        key: tuple[int, int],
        spectrum: Spectrum,
        rows: NDArray[np.int64],
        fitted: NDArray[np.int64],
        view: str,
    ) -> dict[str, "_Coordinates"]:
        """A view of the images `rows` in each scaling, made with those at the places `fitted`."""
        first, last = _view_columns(view, spectrum)
        labels = self.labels[torch.from_numpy(rows)]
        inputs = self._projected(key, spectrum, rows)[:, first:last]
        if last - first < 2:  # all scalings of one direction are the same
            return {PLAIN: _Coordinates(inputs, labels, spectrum.shape[1])}
        features, places = self.features[torch.from_numpy(rows)], torch.from_numpy(fitted)
        rounding = rounding_of(features[places])
        directions = principal(inputs[places])
        inputs = directions.project(inputs)
        found = {PLAIN: _Coordinates(inputs, labels, spectrum.shape[1])}
        for scaling in SCALINGS[1:]:
            if scaling == STANDARDISED:
                matrix = _component_of(spectrum, features, view)
                scaled = standardise(matrix[places], matrix, rounding)
            else:
                basis = spectrum.right_vectors[:, first:last]
                scaled = whiten(inputs, directions, basis, rounding)
            if scaled.shape[1]:
                found[scaling] = _Coordinates(scaled, labels, scaled.shape[1])
        return found

    def _component(self, fold: int, view: str) -> Tensor:
        """A view as the full matrix (N, D), as the paper's probe takes it."""
        return _component_of(self._fold_spectrum(fold), self.features, view)

    def _n_features(self, view: str) -> int:
        first, last = _view_columns(view, self._fold_spectrum(0))
        return last - first


@dataclass(frozen=True)
class _Coordinates:
    """A view (n, r) of images with their labels (n,); n_columns of the matrix that it stands for."""

    values: Tensor
    labels: Tensor
    n_columns: int

    def split(self, fitted: NDArray[np.int64], held: NDArray[np.int64]) -> Part:
        """Images at the places `fitted` and `held`, centred by the mean of the fitted ones and
        divided by one number, the root mean square of their centred (n, n_columns) matrix."""
        fit_rows, held_rows = torch.from_numpy(fitted), torch.from_numpy(held)
        inputs = self.values[fit_rows]
        mean = inputs.mean(0)
        inputs = inputs - mean
        mean_square = inputs.square().sum() / (len(fitted) * self.n_columns)
        scale = mean_square.sqrt().clamp(min=1e-30)
        return Part(
            inputs / scale,
            self.labels[fit_rows],
            (self.values[held_rows] - mean) / scale,
            self.labels[held_rows],
        )


def _component_of(spectrum: Spectrum, features: Tensor, view: str) -> Tensor:
    """A view of features (n, D) as a matrix of that shape."""
    if view == "all":
        return features
    if view == "main":
        return spectrum.main_component(features)
    return spectrum.residual_component(features)


def _view_columns(view: str, spectrum: Spectrum) -> tuple[int, int]:
    rank = len(spectrum.singular_values)
    columns = {"all": (0, rank), "main": (0, spectrum.n_main), "residual": (spectrum.n_main, rank)}
    return columns[view]


def _flags(strengths: list[Strength], n_unconverged: int, n_folds: int) -> tuple[str, ...]:
    flags = []
    if n_unconverged:
        flags.append(f"not converged ({n_unconverged} of {n_folds} fits)")
    n_open = sum(not strength.bracketed for strength in strengths)
    if n_open:
        flags.append(f"no best strength found ({n_open} of {n_folds} fits)")
    return tuple(flags)
