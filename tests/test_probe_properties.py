"""What holds for a probe on any features: drawn by Hypothesis, the same draws every time.

Features differ in number, dimensions, classes, the width of each column over three decades, how far
their mean lies from zero, and how much of the labels is in them. The accuracy itself, beside
scikit-learn's, is chance: tests/slow has it, over several hundred cases.
"""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ckptsel.scores import ScoreInputs
from ckptsel.scores.foretelling import SAME, Foretold, at_best_temperature
from ckptsel.scores.held_out import (
    ENOUGH_HELD,
    FOR_A_CLASS,
    FOR_A_FEATURE,
    LEAST_CHOOSING,
    MOST_CHOOSING,
    N_INNER_FOLDS,
    choosing_folds,
    n_choosing_parts,
)
from ckptsel.scores.logistic import SideBySide
from ckptsel.scores.probe import Part, fit_logistic
from ckptsel.scores.ridge import look
from ckptsel.scores.rows import Mapped, Rows
from ckptsel.scores.scalings import STANDARDISED, WHITENED, find_scalings
from ckptsel.scores.spectrum import compute_spectrum
from ckptsel.scores.strength import (
    Strength,
    _choice,
    _fit,
    _Search,
    choose,
    choose_strength,
    fit_as_chosen,
    is_clearly_better,
    settle,
)
from ckptsel.target.splits import plan_validation, stratified_folds
from tools.probe_cases import Case, make
from tools.probe_peers import STRENGTHS, compare, peer_of

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
many = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@st.composite
def some_features(draw, least: int = 6, most: int = 60, dimensions: int = 16, decades=(0, 1, 3)):
    """Features (n, d) float64, uncorrelated columns of very different widths, and labels (n,)."""
    c = draw(st.integers(2, 5))
    n, d = draw(st.integers(max(3 * c, least), most)), draw(st.integers(2, dimensions))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    labels = random.permutation(np.resize(np.arange(c), n))
    features = random.standard_normal((n, d))
    features += draw(st.sampled_from([0.0, 0.5, 3.0])) * random.standard_normal((c, d))[labels]
    features *= 10 ** random.uniform(-draw(st.sampled_from(decades)), 0, d)
    features += draw(st.sampled_from([0, 1, 1000])) * features.std(0)
    return features, labels


def centred(features: np.ndarray) -> torch.Tensor:
    """In the principal directions, as the fits get them."""
    features = features - features.mean(0)
    left, values, _ = np.linalg.svd(features, full_matrices=False)
    return torch.from_numpy(left * values / np.sqrt((features**2).mean()))


def fold_parts(inputs: torch.Tensor, labels: np.ndarray) -> list[Part]:
    targets = torch.from_numpy(labels)
    folds = stratified_folds(labels, 5, 0)
    return [Part(inputs[f], targets[f], inputs[h], targets[h]) for f, h in folds]


@many
@given(some_features(), st.integers(-5, 4))
def test_a_fit_is_no_worse_than_scikit_learns_by_its_own_objective(case, exponent: int) -> None:
    features, labels = case
    inputs, strength = centred(features), 10.0**exponent
    ours = fit_logistic(inputs, torch.from_numpy(labels), labels.max() + 1, strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps that run out
        theirs = LogisticRegression(C=strength, max_iter=300, tol=1e-8).fit(inputs, labels)
    weights, bias = theirs.coef_.T, theirs.intercept_
    if weights.shape[1] == 1:  # two classes are one vector there, two halves of it here
        weights, bias = np.hstack([-weights, weights]) / 2, np.r_[-bias, bias] / 2
    log_p = torch.log_softmax(inputs @ torch.from_numpy(weights) + torch.from_numpy(bias), 1)
    likelihood = float(log_p[torch.arange(len(labels)), torch.from_numpy(labels)].sum())
    objective = 0.5 * (weights**2).sum() - strength * likelihood
    assert ours.converged
    assert ours.objective <= objective * (1 + 1e-4) + 1e-9


@few
@given(
    st.sampled_from(["mixed", "relu", "collapsed"]),
    st.integers(2, 9),
    st.integers(0, 1000),
    st.sampled_from([1e-6, 1e3, 1e6]),
    st.sampled_from([-100, 30, 1000]),
)
def test_shift_and_scale_change_nothing(kind: str, d: int, seed: int, scale: float, shift: float):
    features, labels = make(Case("moved", kind, 45, d, 3, seed=seed, n_held=30))
    # Some labels are wrong: the strength is then a peak, and no plain that goes on for ever.
    labels[::4] = labels[::4][::-1]
    moved = scale * (features.astype(np.float64) + shift * features.std(0))
    plan = plan_validation(45, 30)
    one, other = (ScoreInputs(f, labels, plan).held_out("all") for f in (features, moved))
    assert one.details == other.details
    assert np.allclose(one.log_likelihoods, other.log_likelihoods, atol=1e-5)


@few
@given(some_features(least=40, dimensions=8, decades=(0, 1)))
def test_no_strength_of_a_wide_grid_foretells_more(case) -> None:
    features, labels = case
    labels[::4] = labels[::4][::-1]
    parts, n_classes = fold_parts(centred(features), labels), labels.max() + 1
    chosen = choose_strength(parts, n_classes)

    def likelihood(strength: float) -> float:
        logits = [
            fit_logistic(p.fit_inputs, p.fit_labels, n_classes, strength, None, 1e-4, 1000).logits(
                p.held_inputs
            )
            for p in parts
        ]
        truth = torch.cat([part.held_labels for part in parts])
        return float(at_best_temperature(torch.cat(logits), truth).per_image.mean())

    best = max(likelihood(10.0**exponent) for exponent in range(-6, 7, 2))
    assert likelihood(chosen.value) >= best - 2e-2


@many
@given(some_features(), st.floats(-2, 3))
def test_the_temperature_is_the_best_of_a_fine_grid(case, log_sharpness: float) -> None:
    features, labels = case
    logits = torch.from_numpy(features[:, :1] * 10**log_sharpness * np.arange(labels.max() + 1))
    truth = torch.from_numpy(labels)
    found = at_best_temperature(logits, truth)
    assert 1 <= found.temperature <= 1.001e4

    def at(temperature: float) -> float:
        log_p = torch.log_softmax(logits / temperature, dim=1)
        return float(log_p.gather(1, truth[:, None]).mean())

    assert found.per_image.mean() == pytest.approx(at(found.temperature), abs=1e-9)
    best = max(at(t) for t in np.logspace(0, 4, 401))
    assert found.per_image.mean() >= best - 1e-3 * max(1, -best)


def scaled(features: torch.Tensor, scaling: str, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (features, where none are given) in a scaling that is made with features (n, D)."""
    fitted = Rows.all_of(features)
    found = find_scalings(fitted, compute_spectrum(features), "all")[scaling]
    read = fitted if rows is None else Rows.all_of(rows)
    return Mapped(read, found.mean, found.matrix).held()


@many
@given(some_features())
def test_whitened_features_know_no_linear_map_and_standardised_ones_no_scales(case) -> None:
    """What a penalised fit sees of rows are their inner products, and those stay. (The rounding of
    float32 is that of the features, so columns are kept whose spread lies well above it.)"""
    features, _ = case
    n, d = features.shape
    random = np.random.default_rng(n)
    rotation, _ = np.linalg.qr(random.standard_normal((d, d)))
    mapped = (features - features.mean(0)) @ (rotation * random.uniform(0.1, 10, (d, 1)))
    rescaled = features * 10 ** random.uniform(-3, 3, d) + random.standard_normal(d)

    def products(rows: torch.Tensor) -> torch.Tensor:
        return rows @ rows.T

    one, other = (torch.from_numpy(f) for f in (features, mapped))
    if n > 2 * d:
        whitened = [products(scaled(f, WHITENED)) for f in (one, other)]
        assert torch.allclose(*whitened, atol=1e-4)
        inverse = np.linalg.pinv(np.cov(features.T, bias=True))
        beside = features - features.mean(0)
        assert np.allclose(whitened[0], beside @ inverse @ beside.T, atol=1e-4)
    one, other = (torch.from_numpy(f) for f in (features, rescaled))
    standardised = [products(scaled(f, STANDARDISED)) for f in (one, other)]
    assert torch.allclose(*standardised, atol=1e-6)
    expected = StandardScaler().fit_transform(features)
    assert np.allclose(standardised[0], expected @ expected.T, atol=1e-6)


def test_columns_and_directions_of_rounding_alone_are_left_out() -> None:
    """A unit that never wakes up, and a copy of a column that differs by the rounding of float32."""
    random = np.random.default_rng(0)
    columns = random.standard_normal((50, 3)).astype(np.float32) + 100
    copied = np.float32(columns[:, :1] / 3) * np.float32(3)
    asleep = np.full((50, 1), 7.7, np.float32)
    asleep[::7] = np.nextafter(asleep[::7], np.float32(8))
    features = torch.from_numpy(np.hstack([columns, copied, asleep])).double()
    assert scaled(features, WHITENED).shape[1] == 3
    awake = torch.cat([features[:1, :4], torch.full((1, 1), 1e6, dtype=torch.float64)], dim=1)
    assert scaled(features, STANDARDISED, awake).abs().max() < 20


def two_scalings(narrow: float, seed: int = 0) -> tuple[dict[str, list[Part]], np.ndarray]:
    """A column with the signal, `narrow` times as wide as thirty others without; as it is, and each
    column by its own width."""
    random = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    features = random.standard_normal((60, 31))
    features[:, 0] += 4 * labels
    plain = features * np.r_[narrow, np.ones(30)]
    return {
        "plain": fold_parts(torch.from_numpy(plain), labels),
        "standardised": fold_parts(torch.from_numpy(features), labels),
    }, labels


def test_another_scaling_is_taken_where_it_is_clearly_better_alone() -> None:
    assert choose([two_scalings(1e-3)[0]], 2)[0][0] == "standardised"
    assert choose([two_scalings(1.0)[0]], 2)[0][0] == "plain"


def test_a_scaling_that_is_better_by_chance_alone_is_not_taken() -> None:
    """Half a standard error is not clear; one and a half is."""
    taken = []
    for ahead in (0.5, 1.5):
        difference = np.tile([-1.0, 1.0], 50) + ahead / 10
        taken.append(is_clearly_better(difference))
    assert taken == [False, True]


def test_a_classifier_that_is_right_but_too_sure_does_not_lose_to_one_that_says_nothing() -> None:
    """A hundred classes, three images each: without a temperature C is the smallest there is."""
    features, labels = make(Case("classes", "mixed", 300, 64, 100, signal=2.0, n_held=300))
    held_out = ScoreInputs(features, labels, plan_validation(300, 300)).held_out("all")
    assert (held_out.predictions[0] == labels[300:]).mean() > 0.3
    assert held_out.log_likelihoods.mean() > -np.log(100) + 0.5


@pytest.mark.parametrize("view", ["all", "main", "residual"])
def test_each_view_is_standardised_by_its_own_columns(view: str) -> None:
    features, labels = make(Case("test", "columns", 60, 8, 3, n_held=20))
    inputs = ScoreInputs(features, labels, plan_validation(60, 20))
    probing, fold = inputs._probing, next(inputs.folds())
    scaling = find_scalings(inputs.fit_rows(), inputs.spectrum(), view)[STANDARDISED]
    part = probing._part(scaling, inputs.fit_rows(), fold.held_rows)
    spectrum, matrix = inputs.spectrum(), torch.from_numpy(features).double()
    matrix = spectrum.component(matrix, view)
    scaler = StandardScaler().fit(matrix[:60])
    rows = scaler.transform(matrix) * np.sqrt(len(part.fit_inputs[0]) / 8)
    assert np.allclose(part.fit_inputs @ part.fit_inputs.T, rows[:60] @ rows[:60].T, atol=1e-6)
    assert np.allclose(part.held_inputs @ part.fit_inputs.T, rows[60:] @ rows[:60].T, atol=1e-6)


def test_the_chosen_temperature_is_that_of_the_probabilities(monkeypatch) -> None:
    features, labels = make(Case("test", "mixed", 60, 8, 2, n_held=200))

    def held_out(temperature: float):
        chosen = "plain", Strength(1e3, bracketed=True, temperature=temperature)
        monkeypatch.setattr("ckptsel.scores.held_out.choose", lambda *_: [chosen])
        return ScoreInputs(features, labels, plan_validation(60, 200)).held_out("all")

    sure, less = held_out(1.0), held_out(10.0)
    assert np.array_equal(sure.predictions, less.predictions)
    logits = [p - np.log(-np.expm1(p)) for p in (sure.log_likelihoods, less.log_likelihoods)]
    assert np.allclose(logits[0], 10 * logits[1], atol=1e-6)


def searched(parts: list[Part], exponent: float, n_classes: int) -> Foretold:
    search = _Search(parts)
    _fit([(search, exponent)], n_classes)
    return search.seen[exponent]


def test_what_foretells_too_surely_gets_a_temperature() -> None:
    features, labels = make(Case("test", "mixed", 60, 40, 6, signal=0.3, n_held=1))
    strength = choose_strength(fold_parts(centred(features[:60]), labels[:60]), 6)
    best = searched(fold_parts(centred(features[:60]), labels[:60]), np.log10(strength.value), 6)
    assert strength.temperature > 1.5
    assert strength.temperature == pytest.approx(best.temperature, rel=0.05)


def separable_parts() -> list[Part]:
    """Columns from wide to a thousand times narrower, classes that can be told apart."""
    random = np.random.default_rng(7)
    labels = np.arange(40) % 4
    features = random.standard_normal((40, 6)) + 3 * random.standard_normal((4, 6))[labels]
    return fold_parts(centred(features * np.logspace(0, -3, 6)), labels)


def test_what_is_chosen_by_has_converged_where_the_loss_is_near_nil() -> None:
    """A gradient that is small beside 1 is not small beside a loss of 1e-4."""
    parts = separable_parts()
    loose = searched(parts, 6.0, 4).per_image
    tight = [
        fit_logistic(p.fit_inputs, p.fit_labels, 4, 1e6, None, 1e-8, 20_000).logits(p.held_inputs)
        for p in parts
    ]
    truth = torch.cat([part.held_labels for part in parts])
    assert loose.mean() == pytest.approx(
        at_best_temperature(torch.cat(tight), truth).per_image.mean(), abs=0.03
    )


def test_a_fit_whose_loss_goes_to_nil_ends(monkeypatch) -> None:
    calls = []
    real = SideBySide.objective
    monkeypatch.setattr(SideBySide, "objective", lambda *some: calls.append(1) or real(*some))
    search = _Search(separable_parts())
    for exponent in (4.0, 6.0, 8.0):
        _fit([(search, exponent)], 4)
    calls.clear()
    _fit([(search, 12.0)], 4)
    assert len(calls) < 100


def followed(parts: dict[str, list[Part]], n_classes: int):
    """A choice, and the exponents that each scaling was tried at."""
    choice, tried = _choice(parts, n_classes), {}
    while True:
        try:
            wanted = next(choice)
        except StopIteration as end:
            return end.value, list(tried.values())
        for search, exponent in wanted:
            tried.setdefault(id(search), []).append(exponent)
        _fit(wanted, n_classes)


def test_a_scaling_that_ridge_finds_clearly_behind_is_not_searched(monkeypatch) -> None:
    """Of many held-out images; of few it is."""
    parts, _ = two_scalings(1e-3)
    (name, _), tried = followed(parts, 2)
    assert name == "standardised" and len(tried) == 2
    monkeypatch.setattr("ckptsel.scores.strength.MANY", 60)
    (name, _), tried = followed(parts, 2)
    assert name == "standardised" and len(tried) == 1


@pytest.mark.parametrize("d", [5, 90])
def test_a_look_is_ridge_regression_at_its_best(d: int) -> None:
    random = np.random.default_rng(d)
    labels = random.integers(0, 3, 60)
    rows = torch.from_numpy(random.standard_normal((60, d)) + np.eye(3, d)[labels])
    (part, *_) = fold_parts(rows, labels)
    best = -np.inf
    for exponent in range(-8, 9, 2):
        targets = np.eye(3)[part.fit_labels] - np.eye(3)[part.fit_labels].mean(0)
        ridge = Ridge(alpha=3 / 10.0**exponent, fit_intercept=False)
        ridge.fit(part.fit_inputs.numpy(), targets)
        logits = ridge.predict(part.held_inputs.numpy()) + np.eye(3)[part.fit_labels].mean(0)
        for scale in np.logspace(-4, 4, 801):
            log_p = torch.log_softmax(torch.from_numpy(scale * logits), 1)
            best = max(best, float(log_p[torch.arange(len(log_p)), part.held_labels].mean()))
    found = look([part], part.held_labels, 3).per_image.mean()
    assert found == pytest.approx(best, abs=1e-3)


def test_what_was_chosen_is_fitted_along_its_path() -> None:
    """The fit on a part of the search is the fit as it was chosen, on the same part."""
    parts = separable_parts()
    (_, strength), _ = followed({"only": parts}, 4)
    search = _Search(parts)
    for value in (*strength.path, strength.value):
        _fit([(search, float(np.log10(value)))], 4)
    problems = [(part.fit_inputs, part.fit_labels) for part in parts]
    for probe, searched in zip(
        fit_as_chosen(problems, [strength] * len(parts), 4),
        search.probes[float(np.log10(strength.value))],
        strict=True,
    ):
        assert probe.objective == pytest.approx(searched.objective, rel=1e-2)
        assert strength.path and probe.strength == strength.value


def test_choices_side_by_side_are_those_of_each_alone() -> None:
    """Of other sizes, other dimensions, and with one scaling or two."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 50)
    rows = torch.from_numpy(random.standard_normal((50, 9)) + np.eye(4, 9)[labels])
    one, other = two_scalings(1e-3)[0], {"plain": fold_parts(rows, labels)}
    together = choose([one, other, one], 4)
    for (name, strength), each in zip(together, (one, other, one), strict=True):
        ((alone, expected),) = choose([each], 4)
        assert (name, strength.value) == (alone, expected.value)
        assert strength.temperature == pytest.approx(expected.temperature, rel=1e-2)


def test_many_images_choose_by_a_part_of_them() -> None:
    few, some, many = (
        np.random.default_rng(0).permutation(np.arange(n) % 7) for n in (480, 999, 39_000)
    )
    assert len(choosing_folds(few, n_choosing_parts(480, 8, 7), (0,))) == N_INNER_FOLDS
    assert len(choosing_folds(some, n_choosing_parts(999, 8, 7), (0,))) == 3
    folds = choosing_folds(many, n_choosing_parts(39_000, 8, 7), (0,))
    for fitted, held in folds:
        assert not set(fitted) & set(held)
        assert len(fitted) + len(held) == pytest.approx(LEAST_CHOOSING, abs=100)
        counts = np.bincount(many[held])
        assert counts.max() - counts.min() <= 1
    assert sum(len(held) for _, held in folds) == pytest.approx(ENOUGH_HELD, abs=20)


def test_many_features_or_classes_choose_by_more_images() -> None:
    assert n_choosing_parts(40_000, 8, 7) == 16
    assert n_choosing_parts(40_000, 8, 200) == 40_000 / (200 * FOR_A_CLASS)
    assert n_choosing_parts(40_000, 1000, 7) == 40_000 / (1000 * FOR_A_FEATURE)
    assert n_choosing_parts(40_000, 4096, 7) == 40_000 / MOST_CHOOSING
    assert n_choosing_parts(300, 4096, 200) == 1


@pytest.mark.parametrize("off", [1e-2, 0.1, 1.0, 10.0, 1e3])
def test_a_strength_that_fewer_images_chose_settles_at_the_best_of_more(off: float) -> None:
    features, labels = make(Case("test", "relu", 300, 12, 3, signal=0.4, n_held=1))
    parts = fold_parts(centred(features[:300]), labels[:300])
    best = choose_strength(parts, 3)
    found = settle(parts, Strength(best.value * off, bracketed=True), 3)
    likelihoods = [searched(parts, np.log10(s.value), 3).per_image.mean() for s in (found, best)]
    assert found.bracketed and likelihoods[0] == pytest.approx(likelihoods[1], abs=2 * SAME)


def test_a_fit_starts_from_the_nearest_stronger_penalty() -> None:
    """Weights of a weaker one are too large, and stay so where classes are told apart."""
    search = _Search(separable_parts())
    for exponent in (-4.0, -2.0, 1.0):
        _fit([(search, exponent)], 4)
    for exponent in (0.5, 2.0, -6.0):
        search.start_of(exponent)
    assert [search.before[exponent] for exponent in (0.5, 2.0, -6.0)] == [-2.0, 1.0, -4.0]


def test_a_part_chooses_and_all_settle(monkeypatch) -> None:
    """A sixth of the images alone chooses a strength that is far from the one of all."""
    features, labels = make(Case("test", "relu", 600, 40, 4, signal=1.0, seed=3, n_held=500))

    def chosen() -> tuple[float, float]:
        inputs = ScoreInputs(features, labels, plan_validation(600, 500))
        held_out = inputs.held_out("all")
        return np.log10(held_out.details["C"][0]), held_out.log_likelihoods.mean()

    by_all, best = chosen()
    monkeypatch.setattr("ckptsel.scores.held_out.LEAST_CHOOSING", 100)
    monkeypatch.setattr("ckptsel.scores.held_out.FOR_A_FEATURE", 1)
    monkeypatch.setattr("ckptsel.scores.held_out.FOR_A_CLASS", 1)
    settled, found = chosen()
    monkeypatch.setattr("ckptsel.scores.held_out.settle", lambda parts, near, n_classes: near)
    by_a_part, worse = chosen()
    assert abs(settled - by_all) <= 0.5 and found > best - 0.01
    assert abs(by_a_part - by_all) >= 1 and worse < found - 0.01


def test_a_large_problem_is_read_in_chunks(monkeypatch) -> None:
    features, labels = make(Case("test", "mixed", 70, 9, 3, n_held=1))
    problem = torch.from_numpy(features[:70]).double(), torch.from_numpy(labels[:70])
    start, which = (
        torch.ones(1, 30, dtype=torch.float64).cumsum(1) / 30,
        torch.zeros(1, dtype=torch.int64),
    )
    whole = SideBySide([problem], 3, [10.0]).objective(start, which)
    monkeypatch.setattr("ckptsel.scores.rows.CHUNK", 10 * 33)
    parts = SideBySide([problem], 3, [10.0]).objective(start, which)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(whole, parts, strict=True))


def test_the_peer_is_scikit_learns_own_search() -> None:
    features, labels = make(Case("test", "mixed", 80, 6, 3, n_held=200))
    features = features.astype(np.float64)
    peer = peer_of(features, labels, 80, "all")
    scaler = StandardScaler().fit(features[:80])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegressionCV(Cs=STRENGTHS, cv=folds, scoring="neg_log_loss", max_iter=1000)
    inputs = scaler.transform(features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what will change in its next version
        model.fit(inputs[:80], labels[:80])
    chosen = STRENGTHS[peer.chosen_by_log_likelihood()]
    assert abs(np.log10(chosen / np.ravel(model.C_)[0])) < 0.6
    predicted = model.predict(inputs[80:]) == labels[80:]
    assert abs(peer.correct[peer.chosen_by_log_likelihood()].mean() - predicted.mean()) < 0.02


@pytest.mark.parametrize("view", ["all", "main", "residual"])
def test_a_comparison_holds_what_it_says(view: str) -> None:
    features, labels = make(Case("test", "relu", 60, 8, 3, signal=2.0, n_held=200))
    (record,) = compare(features, labels, 60, [view], paper=False)
    beside = record["peer"]
    assert beside["ahead"] == pytest.approx(record["accuracy"] - beside["accuracy"])
    assert record["knowing"]["accuracy"] >= max(
        record[name]["accuracy"] for name in ("peer", "by_accuracy")
    )
