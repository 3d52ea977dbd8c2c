"""Scores: LogME against stored values, held-out plans, flags, the registry."""

import json
from pathlib import Path

import numpy as np
import pytest

from ckptsel.errors import UsageError
from ckptsel.scores import ScoreInputs, find_scores, known_scores
from ckptsel.scores.inputs import ScoreResult
from ckptsel.splits import plan_cross_validation, plan_validation

CASES = json.loads((Path(__file__).parent / "data" / "logme_cases.json").read_text())["cases"]
LABELS = [f"{case['kind']}-{case['n']}x{case['d']}" for case in CASES]


def features_of(case: dict) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(case["seed"])
    n, d, c = case["n"], case["d"], case["c"]
    labels = random.integers(0, c, n)
    labels[:c] = np.arange(c)
    features = random.standard_normal((n, d))
    if case["kind"] == "signal":
        features += random.standard_normal((c, d))[labels]
    if case["kind"] == "relu":
        features = np.maximum(features + random.standard_normal((c, d))[labels], 0)
    if case["kind"] == "lowrank":
        features = features[:, : d // 4] @ random.standard_normal((d // 4, d))
    if case["kind"] == "f32scale":
        features = np.float64(np.float32(features * np.logspace(0, -3, d)))
    assert features.sum() == pytest.approx(case["x_sum"], abs=1e-6)
    return features, labels


def compute(name: str, features: np.ndarray, labels: np.ndarray) -> ScoreResult:
    inputs = ScoreInputs(features, labels, plan_validation(len(labels), 0))
    return known_scores()[name].compute(inputs)


@pytest.mark.parametrize("case", CASES, ids=LABELS)
def test_logme_thuml_equals_the_values_of_its_authors_code(case: dict) -> None:
    value = compute("logme_thuml", *features_of(case)).value
    assert value == pytest.approx(case["logme_fixed_point"], abs=1e-9)


# Where features fit the labels exactly, the stored value carries the rounding of a general
# optimiser at its bound (2.7e-6); the closed form of the limit below is the independent check.
EXACT_FIT = 4


@pytest.mark.parametrize(
    "case", [c for i, c in enumerate(CASES) if i != EXACT_FIT], ids=lambda c: f"seed{c['seed']}"
)
def test_logme_equals_the_evidence_maximised_by_a_general_optimiser(case: dict) -> None:
    assert compute("logme", *features_of(case)).value == pytest.approx(
        case["log_evidence_exact"], abs=1e-6
    )


def test_logme_of_an_exact_fit_reaches_the_closed_form_of_its_limit() -> None:
    """With N <= D of full rank, beta goes to infinity and the evidence to that of y ~ N(0, FF^T/a)."""
    features, labels = features_of(CASES[EXACT_FIT])
    n = len(labels)
    gram = features @ features.T
    log_det = np.linalg.slogdet(gram)[1]
    limits = []
    for label in range(CASES[EXACT_FIT]["c"]):
        y = (labels == label).astype(float)
        alpha = n / (y @ np.linalg.solve(gram, y))
        limits.append((n * np.log(alpha / (2 * np.pi)) - log_det - n) / (2 * n))
    value = compute("logme", features, labels).value
    assert value == pytest.approx(np.mean(limits), abs=1e-8)
    assert value == pytest.approx(CASES[EXACT_FIT]["log_evidence_exact"], abs=5e-6)


def test_logme_ignores_classes_that_are_not_there() -> None:
    features, labels = features_of(CASES[1])
    spread = np.array([0, 3, 4, 6, 7, 9, 12, 13, 20, 31])[labels]
    assert compute("logme", features, spread).value == pytest.approx(
        compute("logme", features, labels).value
    )


def test_logme_thuml_says_where_it_is_too_large() -> None:
    assert compute("logme_thuml", *features_of(CASES[3])).flags == (
        "too large: fewer images than feature dimensions",
    )
    assert compute("logme_thuml", *features_of(CASES[1])).flags == ()


@pytest.fixture
def separable() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    return 4 * np.eye(3)[labels] + random.standard_normal((90, 3)), labels


def test_cross_validation_reads_every_image_once_a_repeat(separable) -> None:
    features, labels = separable
    plan = plan_cross_validation(labels, seed=0)
    inputs = ScoreInputs(features, labels, plan)
    result = known_scores()["linear_probe"].compute(inputs)
    assert plan.n_repeats == 3
    assert result.predictions.shape == (3, 90)
    assert result.value == pytest.approx(result.per_image.mean())
    assert 0.85 < result.value <= 1


def test_shuffled_labels_score_at_chance(separable) -> None:
    """A probe that saw what it is evaluated on would do better."""
    features, labels = separable
    wide = np.hstack([features, np.random.default_rng(1).standard_normal((90, 60))])
    shuffled = np.random.default_rng(2).permutation(labels)
    inputs = ScoreInputs(wide, shuffled, plan_cross_validation(shuffled, seed=0))
    assert abs(known_scores()["linear_probe"].compute(inputs).value - 1 / 3) < 0.15


def test_loglik_and_accuracy_come_from_the_same_fits(separable) -> None:
    features, labels = separable
    inputs = ScoreInputs(features, labels, plan_validation(60, 30))
    accuracy = known_scores()["linear_probe"].compute(inputs)
    loglik = known_scores()["linear_probe_loglik"].compute(inputs)
    assert loglik.details == accuracy.details
    assert np.exp(loglik.per_image[accuracy.per_image == 1]).min() > 1 / 3


@pytest.mark.parametrize(
    ("strength", "flag"),
    [
        (1e-6, ("C at the lower edge of its grid (1e-06)",)),
        (1e3, ("C at the upper edge of its grid (1000)",)),
        (1.0, ()),
    ],
)
def test_a_strength_at_the_edge_is_flagged(separable, monkeypatch, strength, flag) -> None:
    monkeypatch.setattr("ckptsel.scores.inputs.choose_strength", lambda *_: strength)
    inputs = ScoreInputs(*separable, plan_validation(60, 30))
    assert known_scores()["linear_probe"].compute(inputs).flags == flag


def test_an_unconverged_fit_is_flagged(separable, monkeypatch) -> None:
    monkeypatch.setattr("ckptsel.probe.MAX_ITERATIONS", 2)
    inputs = ScoreInputs(*separable, plan_validation(60, 30))
    flags = known_scores()["linear_probe"].compute(inputs).flags
    assert "not converged (1 of 1 fits)" in flags


def test_an_unknown_score_gets_near_names() -> None:
    with pytest.raises(UsageError, match=r"unknown score 'logne'.*Did you mean logme"):
        find_scores(["logne"])


def test_a_plug_in_adds_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptsel import scores

    mine = scores.Score("mine", "constant", "nats", lambda inputs: ScoreResult(1.0))

    class Entry:
        name = "mine"

        def load(self):
            return mine

    monkeypatch.setattr(scores, "entry_points", lambda group: [Entry()])
    assert find_scores(["mine"]) == [mine]
