"""Scores: LogME against stored values, held-out plans, flags, the registry."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptsel.errors import UsageError
from ckptsel.results.scores import ScoreResult
from ckptsel.scores import ScoreInputs, find_scores, known_scores
from ckptsel.scores.held_out import N_INNER_FOLDS
from ckptsel.scores.scalings import SCALINGS
from ckptsel.scores.strength import Strength
from ckptsel.target.splits import plan_cross_validation, plan_validation, stratified_folds

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
    assert loglik.details["C"] == accuracy.details["C"]
    assert np.exp(loglik.per_image[accuracy.per_image == 1]).min() > 1 / 3


@pytest.mark.parametrize(
    ("strength", "flags"),
    [
        (Strength(1e12, bracketed=False), ("no best strength found (1 of 1 fits)",)),
        (Strength(1.0, bracketed=True), ()),
    ],
)
def test_a_strength_that_was_not_bracketed_is_flagged(separable, monkeypatch, strength, flags):
    monkeypatch.setattr("ckptsel.scores.held_out.choose", lambda *_: [("plain", strength)])
    inputs = ScoreInputs(*separable, plan_validation(60, 30))
    assert known_scores()["linear_probe"].compute(inputs).flags == flags


def test_a_probe_no_better_than_the_largest_class_is_flagged() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 2])[np.arange(400) % 4]
    features = random.standard_normal((400, 5)).astype(np.float32)
    result = known_scores()["linear_probe"].compute(
        ScoreInputs(features, labels, plan_validation(200, 200))
    )
    assert result.details["largest_class"] == 0.5
    assert result.details["at_chance"]
    assert "no better than the largest class (50.0 %)" in result.flags
    features[:, 0] += 2 * labels
    better = known_scores()["linear_probe"].compute(
        ScoreInputs(features, labels, plan_validation(200, 200))
    )
    assert not better.details["at_chance"]
    assert not better.flags


def test_shift_and_scale_of_the_features_change_no_probe(separable) -> None:
    features, labels = separable
    features = features + 2 * np.random.default_rng(5).standard_normal(features.shape)
    moved = 1e4 * (features + 300 * features.std())
    plain, shifted = (
        ScoreInputs(f.astype(np.float64), labels, plan_validation(60, 30)).held_out("all")
        for f in (features, moved)
    )
    assert plain.details == shifted.details
    assert np.allclose(plain.log_likelihoods, shifted.log_likelihoods, atol=1e-4)


def test_a_fit_that_has_not_converged_is_a_detail_and_no_doubt(separable, monkeypatch) -> None:
    """More steps change its strength, and its accuracy hardly."""
    monkeypatch.setattr("ckptsel.scores.strength.ITERATIONS", 2)
    inputs = ScoreInputs(*separable, plan_validation(60, 30))
    result = known_scores()["linear_probe"].compute(inputs)
    assert result.details["n_unconverged"] == 1
    assert not any("converged" in flag for flag in result.flags)


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


def test_a_plug_in_that_does_not_load_is_left_out_with_a_word(monkeypatch, capsys) -> None:
    from ckptsel import scores

    broken = EntryPoint("broken_one", "no_such_package:SCORE", "ckptsel.scores")
    number = EntryPoint("a_number", "math:pi", "ckptsel.scores")
    monkeypatch.setattr(scores, "entry_points", lambda group: [broken, number])
    assert tuple(scores.known_scores()) == scores.BUILT_IN == tuple(scores.known_scores())
    said = capsys.readouterr().err
    assert said.count("score 'broken_one' (no_such_package:SCORE) is left out: ModuleNotFound") == 1
    assert "score 'a_number' (math:pi) is left out: TypeError" in said
    with pytest.raises(UsageError, match="unknown score 'broken_one'"):
        find_scores(["broken_one"])


def test_a_components_strength_is_chosen_in_bases_that_never_saw_what_they_hold_out() -> None:
    """Garbage in the inner held-out images changes nothing of what is fitted beside them."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = random.standard_normal((120, 10)).astype(np.float32)
    plan = plan_validation(100, 20)
    honest = ScoreInputs(features, labels, plan)
    inner, held = stratified_folds(labels[:100], N_INNER_FOLDS, (0, 0, 1))[0]
    spoilt = features.copy()
    spoilt[held] = 1e3 * random.standard_normal((len(held), 10))
    spoilt = ScoreInputs(spoilt, labels, plan)
    for view in ("main", "residual"):
        before, after = (
            inputs._probing.inner_parts(next(inputs.folds()), dict.fromkeys(SCALINGS), view)
            for inputs in (honest, spoilt)
        )
        assert set(before) == set(after) == set(SCALINGS)
        for scaling in SCALINGS:
            one, other = before[scaling][0], after[scaling][0]
            assert len(one.fit_inputs) == len(inner)
            assert torch.equal(one.fit_inputs, other.fit_inputs)
            assert not torch.equal(one.held_inputs, other.held_inputs)


def test_held_out_images_change_nothing_that_is_fitted() -> None:
    """Neither the basis, the mean, the strength nor the weights: predictions of the others stay."""
    random = np.random.default_rng(0)
    labels = np.arange(150) % 3
    features = random.standard_normal((150, 10)).astype(np.float32)
    features[:, 0] += labels
    plan = plan_validation(100, 50)
    spoilt = features.copy()
    spoilt[120:] = 1e3 * random.standard_normal((30, 10))
    for view in ("all", "main", "residual"):
        before, after = (ScoreInputs(f, labels, plan).held_out(view) for f in (features, spoilt))
        assert before.details["C"] == after.details["C"]
        assert np.array_equal(before.log_likelihoods[:, :20], after.log_likelihoods[:, :20])


@pytest.mark.parametrize("kind", ["a residual of nothing", "one direction", "zeros"])
def test_where_there_is_nothing_to_fit_the_largest_class_is_said(kind: str) -> None:
    random = np.random.default_rng(0)
    labels = np.r_[np.arange(60) % 3, np.repeat([0, 1, 2], [15, 10, 5])]
    labels[:5] = 0
    features = random.standard_normal((90, 4)).astype(np.float32)
    if kind == "one direction":
        features = np.outer(features[:, 0], np.ones(4, np.float32))
    if kind == "zeros":
        features = np.zeros_like(features)
    inputs = ScoreInputs(features, labels, plan_validation(60, 30), energy=1.0)
    assert known_scores()["residual_component"].compute(inputs).value == 0.5
