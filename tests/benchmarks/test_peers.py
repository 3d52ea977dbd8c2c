"""The probe beside scikit-learn's `LogisticRegressionCV`, in turn in one process: `make benchmarks`.

Three questions. What does our search cost beside theirs (three scalings, and strengths as far as they
help, beside one and ten)? What does theirs cost, and say, where its fits end later? And what does it
cost with our solver: the same ten strengths, folds and standardised features? The lines that it prints
belong into docs/performance.md.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from ckptsel.scores import ScoreInputs
from ckptsel.scores.held_out import Fold
from ckptsel.scores.probe import LinearProbe, fit_side_by_side
from ckptsel.scores.strength import ITERATIONS, TOLERANCE
from ckptsel.target.splits import plan_cross_validation, plan_validation

STRENGTHS = [float(strength) for strength in np.logspace(-4, 4, 10)]
"""As `LogisticRegressionCV` has them by itself."""

SIZES = {
    "10,000 x 512, 10 classes": (10_000, 2000, 512, 10, 0.3),
    "1,000 x 1,408, 100 classes": (1_000, 2000, 1_408, 100, 0.22),
    "80 x 512, 10 classes, 15 folds": (80, 0, 512, 10, 0.3),
    "20,000 x 2,048, 100 classes": (20_000, 2000, 2_048, 100, 0.2),
}
"""Images that are fitted, and held out, features, classes, and how far apart these are."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """features (n, D), labels (n,): a search for each of the folds, read on what it holds out."""

    features: Tensor
    labels: Tensor
    folds: list[Fold]


@pytest.mark.parametrize("size", SIZES)
def test_the_probe_beside_scikit_learns_search(size: str) -> None:
    n, n_held, d, n_classes, apart = SIZES[size]
    features, labels = make_features(n + n_held, d, n_classes, apart)
    plan = plan_validation(n, n_held) if n_held else plan_cross_validation(labels, 0)
    inputs = ScoreInputs(features, labels, plan)
    problem = Problem(inputs.features, inputs.labels, list(inputs.folds()))
    works = {
        "LogisticRegressionCV": lambda: [theirs(problem, fold) for fold in problem.folds],
        "the same, ended later": lambda: [theirs(problem, fold, 1e-6) for fold in problem.folds],
        "its search, our solver": lambda: [same_search(problem, fold) for fold in problem.folds],
        "our search": lambda: [inputs.held_out("all").log_likelihoods],
    }
    print()
    first_s = 0.0
    for name, work in works.items():
        took, told = seconds(work)
        first_s = first_s or took
        print(f"{size}, {name}: {took:.2f} s, {first_s / took:.1f} times faster, {told:.4f} nats")


def seconds(work: Callable[[], list[Floats]]) -> tuple[float, float]:
    """Of the processor, and the mean log-likelihood of what is held out."""
    start = time.process_time()
    with threadpool_limits(1):
        told = work()
    return time.process_time() - start, float(np.mean([each.mean() for each in told]))


def inner_folds(labels: Tensor) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    return list(splitter.split(np.zeros((len(labels), 1)), labels))


def theirs(problem: Problem, fold: Fold, tol: float = 1e-4) -> Floats:
    """Log-likelihoods of the held-out images. tol: the gradient at which a fit ends; theirs is 1e-4."""
    fitted, held = (problem.features[rows].numpy() for rows in (fold.fit_rows, fold.held_rows))
    labels, truth = problem.labels[fold.fit_rows], problem.labels[fold.held_rows]
    scaler = StandardScaler().fit(fitted.astype(np.float64))
    model = LogisticRegressionCV(
        Cs=STRENGTHS, cv=inner_folds(labels), scoring="neg_log_loss", max_iter=1000, tol=tol
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(scaler.transform(fitted), labels.numpy())
        log_p = model.predict_log_proba(scaler.transform(held))
    return np.asarray(log_p)[np.arange(len(truth)), truth.numpy()]


def same_search(problem: Problem, fold: Fold) -> Floats:
    """Ten strengths, each the start of the next, with the inner folds side by side."""
    z, held = standardised(problem.features[fold.fit_rows], problem.features[fold.held_rows])
    labels, truth = problem.labels[fold.fit_rows], problem.labels[fold.held_rows]
    parts = [tuple(map(torch.from_numpy, pair)) for pair in inner_folds(labels)]
    fitted = [(z[rows], labels[rows]) for rows, _ in parts]
    told = [held_out(probes, z, labels, parts) for probes in path(fitted, STRENGTHS)]
    way = STRENGTHS[: int(np.argmax(told)) + 1]
    return told_of(path([(z, labels)], way)[-1][0], held, truth)


def held_out(
    probes: list[LinearProbe], z: Tensor, labels: Tensor, parts: list[tuple[Tensor, ...]]
) -> float:
    each = zip(probes, parts, strict=True)
    return float(np.mean([told_of(probe, z[out], labels[out]).mean() for probe, (_, out) in each]))


def path(problems: list[tuple[Tensor, Tensor]], strengths: list[float]) -> list[list[LinearProbe]]:
    """Probes of each problem at each strength."""
    n_classes = 1 + max(int(labels.max()) for _, labels in problems)
    found: list[list[LinearProbe]] = []
    for strength in strengths:
        same, start = [strength] * len(problems), found[-1] if found else None
        found.append(fit_side_by_side(problems, n_classes, same, start, TOLERANCE, ITERATIONS))
    return found


def told_of(probe: LinearProbe, inputs: Tensor, labels: Tensor) -> Floats:
    return probe.log_probabilities(inputs).gather(1, labels[:, None])[:, 0].numpy()


def standardised(fitted: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Along directions in which fitted images are uncorrelated: a rotation, which the penalty does not
    feel."""
    z, others = fitted.double(), held.double()
    mean, spread = z.mean(0), z.std(0, unbiased=False)
    spread = torch.where(spread > 0, spread, 1)
    z, others = (z - mean) / spread, (others - mean) / spread
    wide = len(z) < z.shape[1]
    basis = torch.linalg.svd(z, full_matrices=False)[2].T if wide else torch.linalg.eigh(z.T @ z)[1]
    return z @ basis, others @ basis


def make_features(
    n: int, d: int, n_classes: int, apart: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """ReLU of a mixture whose directions are of uneven widths."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    widths = np.logspace(0, -1.5, d)
    basis = np.linalg.qr(random.standard_normal((d, d)))[0]
    centres = apart * random.standard_normal((n_classes, d))
    along = (random.standard_normal((n, d)) + centres[labels]) * widths
    return np.maximum(along @ basis, 0).astype(np.float32), labels
