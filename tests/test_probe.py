"""The probe against scikit-learn, and what must not change it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ckptsel.probe import STRENGTHS, choose_strength, fit_logistic, fit_paper_probe
from ckptsel.scores import ScoreInputs, find_scores
from ckptsel.splits import plan_validation, stratified_folds


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


def test_scores_do_not_change_under_rotation() -> None:
    features, labels = make_features()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((20, 20)))
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


def test_the_chosen_strength_is_the_best_of_the_whole_grid() -> None:
    features, labels = make_features(signal=0.4)
    inputs, targets = torch.from_numpy(centred(features)), torch.from_numpy(labels)
    folds = stratified_folds(labels, 5, 0)
    chosen = choose_strength(inputs, targets, 4, folds)
    totals = {}
    for strength in STRENGTHS:
        totals[strength] = 0.0
        for fitted, held in folds:
            mean = inputs[fitted].mean(0)
            probe = fit_logistic(inputs[fitted] - mean, targets[fitted], 4, strength)
            log_p = probe.log_probabilities(inputs[held] - mean)
            totals[strength] += float(log_p.gather(1, targets[held, None]).sum())
    assert chosen == max(totals, key=lambda strength: totals[strength])


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
