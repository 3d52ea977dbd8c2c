"""What a score is computed from: features, labels, the evaluation plan, and what scores share.

The spectrum of each fitting part is computed once, and so is each probe: `linear_probe` and
`linear_probe_loglik` read the same fits.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.common.devices import few_threads
from ckptsel.scores.held_out import Fold, HeldOut, Probing
from ckptsel.scores.rows import Rows
from ckptsel.scores.spectrum import Spectra, Spectrum
from ckptsel.target.splits import Evaluation

T = TypeVar("T")

VIEWS = ("all", "main", "residual")
"""The features F themselves, their main component F_m, their residual component F_r."""

SMALL = 2**23
"""Images times features times classes below which fits are made on the CPU: each call to a GPU then
costs more than what it computes. A probe of ten million took a third of the time on an H100 that it took
beside it on the cores."""


class ScoreInputs:
    """Features (N, D) and labels (N,) of the target as one sequence, and what is derived of them.

    energy: what the main component keeps of the sum of singular values. probe: `logistic` or
    `paper`. Features stay as they are, on `device`, or on the CPU where there is little to compute; what
    is computed of them is float64, and computed once, when a score asks for it.
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
        self.n_classes = int(labels.max()) + 1
        device = device_for(features.size * self.n_classes, device)
        self.features = torch.from_numpy(features).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.evaluation = evaluation
        self.energy, self.seed = energy, seed
        self._held_out: dict[str, HeldOut] = {}
        self._kept: dict[Callable[[ScoreInputs], Any], Any] = {}
        self.spectra = Spectra(self.features, energy)
        self._probing = Probing(
            self.features,
            self.labels,
            self.n_classes,
            list(self.folds()),
            (evaluation.n_repeats, len(evaluation.evaluated)),
            self.spectra,
            probe,
            seed,
        )

    @property
    def fit_features(self) -> Tensor:
        """Features of the whole training part, (n_train, D) float64; a copy."""
        return self.fit_rows().whole()

    @property
    def fit_labels(self) -> Tensor:
        return self.labels[torch.from_numpy(self.evaluation.fit_part)]

    def fit_rows(self) -> Rows:
        """The rows of the whole training part."""
        return self.spectra.rows(*self._whole())

    def spectrum(self) -> Spectrum:
        """The spectrum of the whole training part."""
        return self.spectra.of(*self._whole())

    def _whole(self) -> tuple[Hashable, Tensor]:
        """The name among `spectra` of the training part, which a fold may be, and its places."""
        whole = self.evaluation.fit_part
        for i, (fitted, _) in enumerate(self.evaluation.folds):
            if np.array_equal(fitted, whole):
                return i, torch.from_numpy(whole)
        return "whole", torch.from_numpy(whole)

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
        spectrum = self.spectra.of(fold.number, fold.fit_rows)
        return (
            spectrum.project(self.features[fold.fit_rows]),
            spectrum.project(self.features[fold.held_rows]),
        )

    def once(self, compute: Callable[["ScoreInputs"], T]) -> T:
        """compute(self), which several scores may ask for."""
        if compute not in self._kept:
            self._kept[compute] = compute(self)
        kept: T = self._kept[compute]
        return kept

    def no_predictions(self) -> NDArray[np.int64]:
        """Room for the class of every evaluated image in every repeat: (n_repeats, n_eval) zeros."""
        return np.zeros((self.evaluation.n_repeats, len(self.evaluation.evaluated)), dtype=np.int64)

    def log_probabilities(self, view: str) -> Iterator[tuple[Fold, Tensor]]:
        """Of each fold, those of the images that it holds out: (m, C), nats."""
        with few_threads(self.features.numel()):
            for fold, log_p, _, _ in self._probing.fits(view):
                yield fold, log_p

    def held_out(self, view: str) -> HeldOut:
        """Output of the probe on one view of the features, for every evaluated image."""
        if view not in self._held_out:
            with few_threads(self.features.numel()):
                self._held_out[view] = self._probing.held_out(view)
        return self._held_out[view]


def device_for(size: int, device: str) -> str:
    """Where scores are computed: on `device`, but for small problems, and where there is no float64.
    size: as of SMALL."""
    return device if device.startswith("cuda") and size >= SMALL else "cpu"
