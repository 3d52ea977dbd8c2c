"""Features that are read a chunk at a time, against the same computed of all of them at once."""

import numpy as np
import pytest
import torch

from ckptsel.scores import ScoreInputs, find_scores, rows
from ckptsel.scores.logistic import SideBySide, Streamed
from ckptsel.scores.probe import Part
from ckptsel.scores.ridge import look
from ckptsel.scores.rows import Mapped, Rows
from ckptsel.target.splits import plan_cross_validation, plan_validation

N, D, K = 60, 7, 4


@pytest.fixture(params=[1, 64 * D, 2**19])
def chunked(monkeypatch, request) -> None:
    """A row at a time, all but at once, all at once."""
    monkeypatch.setattr(rows, "CHUNK", request.param)


@pytest.fixture
def case() -> tuple[Rows, torch.Tensor]:
    """Some rows, far from zero beside their spread, and these in float64."""
    random = np.random.default_rng(0)
    features = (random.standard_normal((N + 20, D)) + 1000).astype(np.float32)
    places = torch.from_numpy(random.permutation(N + 20)[:N])
    return Rows(torch.from_numpy(features), places), torch.from_numpy(features).double()[places]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-10, atol=1e-8)


def test_what_is_summed_up_from_chunks(chunked, case) -> None:
    some, whole = case
    centred = whole - whole.mean(0)
    basis = torch.linalg.qr(torch.randn(D, K, dtype=torch.float64)).Q
    right = torch.randn(N, K, dtype=torch.float64)
    assert torch.equal(some.whole(), whole)
    assert close(some.columns.mean, whole.mean(0))
    assert torch.equal(some.columns.least, whole.amin(0))
    assert torch.equal(some.columns.most, whole.amax(0))
    assert close(some.scatter, centred.T @ centred)
    assert close(some.gram, whole.T @ whole)
    assert close(some.gram_in(basis, whole.mean(0)), (centred @ basis).T @ (centred @ basis))
    assert close(some.times(basis), whole @ basis)
    assert close(some.times(basis, whole.mean(0)), centred @ basis)
    assert close(some.cross(right), whole.T @ right)
    labels = torch.arange(N) % 3
    sums = torch.stack([whole[labels == c].sum(0) for c in range(3)])
    assert close(some.sums_by(labels, 3), sums)


def mapped(case, random) -> tuple[Mapped, torch.Tensor]:
    some, whole = case
    matrix = torch.from_numpy(random.standard_normal((D, K)))
    inputs = Mapped(some, some.columns.mean, matrix)
    return inputs, (whole - whole.mean(0)) @ matrix


def test_rows_through_a_map(chunked, case) -> None:
    random = np.random.default_rng(1)
    inputs, held = mapped(case, random)
    weights = torch.from_numpy(random.standard_normal((K, 3)))
    right = torch.from_numpy(random.standard_normal((N, 3)))
    right = right - right.mean(0)
    assert inputs.shape == (N, K)
    assert close(inputs.held(), held)
    assert close(inputs[torch.arange(N) < 9].held(), held[:9])
    assert close(inputs @ weights, held @ weights)
    assert close(inputs.gram(), held.T @ held)
    assert close(inputs.squares(), held.square().mean(0))
    assert close(inputs.cross(right), held.T @ right)


def test_a_streamed_problem_is_the_held_one(chunked, case) -> None:
    random = np.random.default_rng(2)
    inputs, held = mapped(case, random)
    labels = torch.from_numpy(random.integers(0, 3, N))
    x = torch.from_numpy(random.standard_normal((1, 3 * (K + 1))))
    which = torch.zeros(1, dtype=torch.int64)
    one, other = Streamed(inputs, labels, 3, 10.0), SideBySide([(held, labels)], 3, [10.0])
    assert close(one.scale, other.scale)
    for streamed, at_once in zip(one.objective(x, which), other.objective(x, which), strict=True):
        assert close(streamed, at_once)


def test_a_look_at_mapped_rows(case) -> None:
    random = np.random.default_rng(3)
    inputs, held = mapped(case, random)
    labels = torch.from_numpy(random.integers(0, 3, N))
    found = [
        look([Part(some, labels, some, labels)], labels, 3).per_image for some in (inputs, held)
    ]
    assert np.allclose(*found, atol=1e-8)


@pytest.mark.parametrize("folds", ["validation", "cross-validation"])
def test_scores_are_the_same_where_nothing_is_held(monkeypatch, folds: str) -> None:
    """Of features, two classes apart, 10,000 spreads from zero."""
    random = np.random.default_rng(4)
    labels = np.arange(150) % 3
    features = (random.standard_normal((150, D)) + np.eye(3, D)[labels]).astype(np.float32)
    features += 1e4
    plan = plan_validation(100, 50) if folds == "validation" else plan_cross_validation(labels, 0)

    def scores() -> list:
        inputs = ScoreInputs(features, labels, plan)
        return [
            score.compute(inputs) for score in (*find_scores(None), *find_scores(("ridge_probe",)))
        ]

    at_once = scores()
    monkeypatch.setattr("ckptsel.scores.rows.MOST_HELD", 0)
    monkeypatch.setattr(rows, "CHUNK", 50)
    for one, other in zip(at_once, scores(), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-6)
        if one.per_image is not None:
            assert np.allclose(one.per_image, other.per_image, atol=1e-3)
