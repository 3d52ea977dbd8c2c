"""The probe against scikit-learn, and what must not change it."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from ckptsel.scores import ScoreInputs, find_scores
from ckptsel.scores.lbfgs import MEMORY, _Curvature
from ckptsel.scores.probe import Part, fit_logistic, fit_paper_probe, fit_side_by_side
from ckptsel.scores.scalings import PLAIN, WHITENED
from ckptsel.scores.strength import choose_strength
from ckptsel.target.splits import plan_validation, stratified_folds


def make_features(n: int = 240, d: int = 20, c: int = 4, seed: int = 0, signal: float = 1.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, c, n)
    labels[:c] = np.arange(c)
    mixing = random.standard_normal((d, d)) * np.logspace(0, -2, d)
    features = random.standard_normal((n, d)) @ mixing
    features += signal * random.standard_normal((c, d))[labels] + random.standard_normal((n, d))
    return np.maximum(features, 0), labels


def centred(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(0)) / np.sqrt((features**2).mean())


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("n", "d"), [(240, 20), (40, 80)])
def test_objective_and_accuracy_equal_those_of_scikit_learn(n: int, d: int, strength: float):
    features, labels = make_features(n, d)
    inputs = centred(features)
    held, held_labels = make_features(2000, d, seed=0)
    held = (held - features.mean(0)) / np.sqrt((features**2).mean())
    ours = fit_logistic(torch.from_numpy(inputs), torch.from_numpy(labels), 4, strength)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(inputs, labels)
    log_p = theirs.predict_log_proba(inputs)[np.arange(n), labels]
    objective = 0.5 * (theirs.coef_**2).sum() - strength * log_p.sum()
    assert ours.converged
    assert ours.objective == pytest.approx(objective, rel=1e-5)
    predicted = ours.log_probabilities(torch.from_numpy(held)).argmax(1).numpy()
    difference = (predicted == held_labels).mean() - theirs.score(held, held_labels)
    assert abs(difference) <= 0.002


def evaluate(features, labels, n_train: int = 160) -> dict[str, float]:
    inputs = ScoreInputs(features, labels, plan_validation(n_train, len(labels) - n_train))
    return {score.name: score.compute(inputs).value for score in find_scores(None)}


def test_rotation_changes_no_score_where_columns_are_not_standardised(monkeypatch) -> None:
    features, labels = make_features()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((20, 20)))
    monkeypatch.setattr("ckptsel.scores.scalings.SCALINGS", (PLAIN, WHITENED))
    assert evaluate(features @ rotation, labels) == pytest.approx(
        evaluate(features, labels), rel=1e-4
    )


def test_scores_do_not_change_under_a_permutation_of_the_labels() -> None:
    features, labels = make_features()
    renamed = np.array([2, 0, 3, 1])[labels]
    assert evaluate(features, renamed) == pytest.approx(evaluate(features, labels), rel=1e-4)


def test_a_fit_does_not_change_under_a_permutation_of_the_samples() -> None:
    features, labels = make_features()
    inputs, targets = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(labels)))
    first = fit_logistic(inputs, targets, 4, 1.0)
    second = fit_logistic(inputs[order], targets[order], 4, 1.0)
    assert torch.allclose(first.weights, second.weights, atol=1e-5)


def test_a_warm_start_ends_at_the_same_minimum() -> None:
    features, labels = make_features()
    inputs, targets = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    start = fit_logistic(inputs, targets, 4, 0.01)
    warm = fit_logistic(inputs, targets, 4, 10.0, start)
    cold = fit_logistic(inputs, targets, 4, 10.0)
    assert warm.objective == pytest.approx(cold.objective, rel=1e-8)


@pytest.mark.parametrize("strength", [1e-4, 1.0, 1e3])
def test_fits_side_by_side_are_those_of_each_alone(strength: float) -> None:
    """Of different sizes, so that there is padding, and of different difficulty."""
    problems = []
    for n, d, signal in ((60, 5, 3.0), (47, 12, 0.0), (33, 9, 0.5)):
        features, labels = make_features(n, d, 3, signal=signal)
        problems.append((torch.from_numpy(centred(features)), torch.from_numpy(labels)))
    together = fit_side_by_side(problems, 3, [strength] * 3, None, 1e-8, 3000)
    for problem, probe in zip(problems, together, strict=True):
        alone = fit_logistic(*problem, 3, strength, tolerance=1e-8)
        assert probe.converged and alone.converged
        assert probe.objective == pytest.approx(alone.objective, rel=1e-6)
        assert torch.allclose(probe.weights, alone.weights, rtol=1e-2, atol=1e-3)


def test_problems_too_large_to_be_fitted_together_are_fitted_one_by_one(monkeypatch) -> None:
    features, labels = make_features(60, 5, 3)
    problem = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    together = fit_side_by_side([problem] * 3, 3, [1.0] * 3, None, 1e-6, 300)
    monkeypatch.setattr("ckptsel.scores.probe.TOGETHER", 1)
    apart = fit_side_by_side([problem] * 3, 3, [1.0] * 3, together, 1e-6, 300)
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one.weights, other.weights, atol=1e-4)


def split(inputs, targets, folds) -> list[Part]:
    return [Part(inputs[f], targets[f], inputs[h], targets[h]) for f, h in folds]


def held_out_likelihood(inputs, targets, n_classes, folds, strength) -> float:
    """Mean held-out log-likelihood at the best of many temperatures, nats, of fits that share
    nothing with the search."""
    fits = [
        (fit_logistic(inputs[fitted], targets[fitted], n_classes, strength), held)
        for fitted, held in folds
    ]
    return max(
        float(
            torch.cat(
                [
                    probe.log_probabilities(inputs[held], temperature).gather(
                        1, targets[held, None]
                    )
                    for probe, held in fits
                ]
            ).mean()
        )
        for temperature in np.logspace(0, 2, 101)
    )


@pytest.mark.parametrize("signal", [0.0, 0.4, 3.0])
def test_the_chosen_strength_is_the_best_of_a_wide_grid(signal: float) -> None:
    features, labels = make_features(signal=signal)
    inputs, targets = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    folds = stratified_folds(labels, 5, 0)
    chosen = choose_strength(split(inputs, targets, folds), 4)
    grid = 10.0 ** np.arange(-8, 9)
    best = max(held_out_likelihood(inputs, targets, 4, folds, strength) for strength in grid)
    assert held_out_likelihood(inputs, targets, 4, folds, chosen.value) >= best - 2e-3


def test_a_likelihood_that_falls_before_it_rises_does_not_end_the_search() -> None:
    """Ten wide columns without signal, one narrow column that has it all."""
    random = np.random.default_rng(0)
    labels = np.arange(100) % 2
    features = 30 * random.standard_normal((100, 11))
    features[:, -1] = 2 * labels - 1 + 0.7 * random.standard_normal(100)
    inputs, targets = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    folds = stratified_folds(labels, 5, 0)
    likelihood = [held_out_likelihood(inputs, targets, 2, folds, 10.0**e) for e in (-8, -2, 4)]
    assert likelihood[1] < likelihood[0] < likelihood[2], "the case is not what it should be"
    chosen = choose_strength(split(inputs, targets, folds), 2)
    assert chosen.bracketed
    assert chosen.value > 100


def test_features_without_signal_have_no_best_strength() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 4
    inputs = torch.from_numpy(random.standard_normal((200, 30)))
    parts = split(inputs, torch.from_numpy(labels), stratified_folds(labels, 5, 0))
    chosen = choose_strength(parts, 4)
    assert not chosen.bracketed or chosen.value < 1e-2


def test_one_image_a_class_leaves_nothing_to_choose_by() -> None:
    labels = np.arange(6)
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3)))
    parts = split(inputs, torch.from_numpy(labels), stratified_folds(labels, 5, 0))
    chosen = choose_strength(parts, 6)
    assert (chosen.value, chosen.bracketed) == (1.0, False)


def make_case(n: int, c: int, d: int, shift: float, scale: float, seed: int, n_held: int = 500):
    """Features whose signal and spread lie in many directions, with a mean of `shift` spreads."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.resize(np.arange(c), n), random.integers(0, c, n_held)])
    mixing = random.standard_normal((d, d)) * np.logspace(0, -1.5, d)[:, None]
    features = 3 / np.sqrt(d) * random.standard_normal((n + n_held, d)) @ mixing
    features += (0.5 * random.standard_normal((c, d)) * np.logspace(0, -1, d))[labels]
    features += shift * features.std() * np.sign(random.standard_normal(d))
    return (scale * features).astype(np.float32), labels


def correct_of_scikit_learn(features, labels, n: int, penalties=17) -> np.ndarray:
    """Which held-out images scikit-learn gets right: standardised columns, its own search."""
    scaler = StandardScaler().fit(features[:n])
    inputs, held = scaler.transform(features[:n]), scaler.transform(features[n:])
    model = LogisticRegressionCV(
        Cs=np.logspace(-8, 8, penalties),
        cv=int(min(5, np.bincount(labels[:n]).min())),
        scoring="neg_log_loss",
        max_iter=1000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (model.fit(inputs, labels[:n]).predict(held) == labels[n:]).astype(float)


@pytest.mark.parametrize(
    ("n", "c", "d", "shift", "scale"),
    [
        (20, 2, 64, 0, 1),
        (50, 2, 128, 1000, 1),
        (100, 10, 512, 60, 1),
        (100, 10, 64, 0, 1e6),
        pytest.param(300, 10, 128, 60, 1e-6, marks=pytest.mark.slow),
        pytest.param(300, 100, 64, 0, 1, marks=pytest.mark.slow),
        (1000, 10, 64, 1000, 1),
        (1000, 2, 2, 0, 1),
    ],
)
def test_the_probe_is_as_good_as_scikit_learns_with_its_own_search(n, c, d, shift, scale) -> None:
    """Over three draws: not two standard errors behind, with the draws and the images as chance."""
    ahead = []
    for seed in range(3):
        features, labels = make_case(n, c, d, shift, scale, seed)
        held_out = ScoreInputs(features, labels, plan_validation(n, len(labels) - n)).held_out(
            "all"
        )
        ours = (held_out.predictions[0] == labels[n:]).astype(float)
        ahead.append(ours - correct_of_scikit_learn(features, labels, n))
    means = np.array([a.mean() for a in ahead])
    error = np.hypot(np.concatenate(ahead).std() / np.sqrt(1500), means.std(ddof=1) / np.sqrt(3))
    assert means.mean() >= -2 * error


def test_one_column_a_thousand_times_wider_hides_nothing() -> None:
    features, labels = make_case(200, 4, 30, 0, 1, seed=0)
    wide = np.random.default_rng(1).standard_normal((len(features), 1)) * 1000 * features.std()
    features = np.hstack([features, wide.astype(np.float32)])
    held_out = ScoreInputs(features, labels, plan_validation(200, 500)).held_out("all")
    accuracy = (held_out.predictions[0] == labels[200:]).mean()
    assert accuracy >= correct_of_scikit_learn(features, labels, 200).mean() - 0.02


def test_the_papers_probe_learns_and_is_seeded() -> None:
    features, labels = make_features(signal=2.0)
    inputs, targets = torch.from_numpy(features).float(), torch.from_numpy(labels)
    first = fit_paper_probe(inputs, targets, 4, seed=0)
    again = fit_paper_probe(inputs, targets, 4, seed=0)
    other = fit_paper_probe(inputs, targets, 4, seed=1)
    accuracy = (first.log_probabilities(inputs.double()).argmax(1) == targets).float().mean()
    assert accuracy > 0.9
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize("n_steps", [1, 3, MEMORY, MEMORY + 1, 2 * MEMORY + 3])
def test_a_direction_is_that_of_the_two_loops(n_steps: int) -> None:
    """Also where steps were written over, where one of them did not move, and once a problem left."""
    random = np.random.default_rng(n_steps)
    root = random.standard_normal((3, 8, 8))
    hessians = torch.from_numpy(root @ root.transpose(0, 2, 1) + np.eye(8))
    steps = torch.from_numpy(random.standard_normal((n_steps, 3, 8)))
    steps[n_steps // 2, 1] = 0
    gradient = torch.from_numpy(random.standard_normal((3, 8)))
    curvature = _Curvature(gradient)
    for step in steps:
        curvature.add(step, (hessians @ step[:, :, None])[:, :, 0])
    curvature.keep(torch.tensor([False, True, True]))
    for i, found in enumerate(curvature.direction(gradient[1:]), start=1):
        pairs = [(s[i], hessians[i] @ s[i]) for s in steps[-MEMORY:] if bool(s[i].any())]
        still = n_steps == 1 and i == 1
        expected = -gradient[i] if still else two_loops(gradient[i], pairs)
        assert torch.allclose(found, expected, rtol=1e-8)


def two_loops(gradient, pairs):
    """Nocedal and Wright, 2nd ed., Algorithm 7.4, from the last step's scale of the curvature."""
    q, taken = -gradient, []
    for s, y in reversed(pairs):
        taken.append(s @ q / (s @ y))
        q = q - taken[-1] * y
    s, y = pairs[-1]
    q = q * (s @ y) / (y @ y)
    for (s, y), a in zip(pairs, reversed(taken), strict=True):
        q = q + (a - y @ q / (s @ y)) * s
    return q
