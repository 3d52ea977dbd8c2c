"""Three readings of the paper's main and residual component, and two probes to read them with.

Deng et al. (arXiv 2203.04668) take the singular value decomposition of a "batched feature matrix"
(Eqs. 1-3) and probe F_m and F_r (Table 1, Figure 4). They do not say which images make up the matrix
that a held-out image is projected with:

    train   the basis of the training images, for all images (what the scores of `rank` use)
    own     the training images in their own basis, the held-out images in theirs
    batch   every batch of 128 images in its own basis
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.scores import ScoreInputs
from ckptsel.scores.probe import PAPER_BATCH
from ckptsel.scores.spectrum import compute_spectrum
from ckptsel.target.splits import Evaluation

READINGS = ("train", "own", "batch")
PROBES = ("paper", "logistic")

CONVERGED_BELOW = 20_000
"""Training images above which only the paper's probe is fitted: the other takes minutes a view."""


def read_components(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    evaluation: Evaluation,
    device: str = "cpu",
    energy: float = 0.8,
) -> Iterator[tuple[dict[str, Any], NDArray[np.int64]]]:
    """Held-out accuracy of every component in every reading, with every probe.

    features: (N, D), labels: (N,), of all images of a target; its evaluation has one fold.
    Gives a row (reading, probe, component, n_main: mean k, accuracy) and the predicted classes of
    the held-out images, (n_held,). The whole features have no reading ("").
    """
    ((fitted, held),) = evaluation.folds
    probes = PROBES if len(fitted) <= CONVERGED_BELOW else PROBES[:1]
    everything = torch.from_numpy(features).to(device, torch.float64)

    def of_components() -> Iterator[tuple[str, str, str, float, NDArray[np.int64]]]:
        for probe in probes:
            inputs = ScoreInputs(features, labels, evaluation, energy, probe, device=device)
            n_main = inputs.spectrum().n_main
            yield "", probe, "all", float("nan"), inputs.held_out("all").predictions[0]
            for component in ("main", "residual"):
                predicted = inputs.held_out(component).predictions[0]
                yield "train", probe, component, n_main, predicted
        for reading in READINGS[1:]:
            main, mean_main = main_component(everything, _parts(reading, fitted, held), energy)
            for component, view in (("main", main), ("residual", everything - main)):
                # Its bases are what the reading says, whatever the probe holds out inside.
                matrix = view.float().cpu().numpy()
                for probe in probes:
                    inputs = ScoreInputs(matrix, labels, evaluation, probe=probe, device=device)
                    predicted = inputs.held_out("all").predictions[0]
                    yield reading, probe, component, mean_main, predicted

    for reading, probe, component, n_main, predicted in of_components():
        row = {
            "reading": reading,
            "probe": probe,
            "component": component,
            "n_main": n_main,
            "accuracy": float((predicted == labels[held]).mean()),
        }
        yield row, predicted


def main_component(
    features: Tensor, parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]], energy: float = 0.8
) -> tuple[Tensor, float]:
    """F_m (Eq. 2) of features (N, D) float64, each part in the basis of its own, and the mean k.

    parts: (rows that make the basis, rows that are projected).
    """
    main = torch.zeros_like(features)
    counts = []
    for basis_rows, rows in parts:
        spectrum = compute_spectrum(features[torch.from_numpy(basis_rows)], energy)
        main[torch.from_numpy(rows)] = spectrum.component(features[torch.from_numpy(rows)], "main")
        counts.append(spectrum.n_main)
    return main, float(np.mean(counts))


def _parts(
    reading: str, fitted: NDArray[np.int64], held: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    if reading == "own":
        return [(fitted, fitted), (held, held)]
    # A last partial batch would have a basis of few images: it joins the one before.
    return [
        (batch, batch)
        for part in (fitted, held)
        for batch in np.array_split(part, max(1, len(part) // PAPER_BATCH))
    ]
