"""Scores besides the probes and LogME, each against an independent form."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neighbors import NearestCentroid as Centroids

from ckptsel.results.scores import ScoreResult
from ckptsel.scores import ScoreInputs, find_scores, knn, known_scores
from ckptsel.scores.disco import N_GROUPS
from ckptsel.scores.ridge import fit_ridge
from ckptsel.scores.rows import Rows
from ckptsel.target.splits import Evaluation, plan_cross_validation, plan_validation

SHAPES = [(240, 12, 4), (90, 150, 3), (60, 7, 2)]
"""(images, dimensions, classes): more images than dimensions, fewer, and an even vote of two."""


def made(n: int, d: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of unequal spread and of a mean of their own, labels in unequal numbers."""
    random = np.random.default_rng((n, d))
    labels = random.choice(c, n, p=np.arange(2, c + 2) / np.arange(2, c + 2).sum())
    labels[: 2 * c] = np.arange(2 * c) % c
    centres = 0.7 * random.standard_normal((c, d))
    features = (random.standard_normal((n, d)) + centres[labels]) * np.linspace(0.3, 2, d) + 0.1
    return features.astype(np.float32), labels


def plans(labels: np.ndarray) -> list[Evaluation]:
    n = len(labels)
    return [plan_cross_validation(labels, seed=0), plan_validation(n - n // 3, n // 3)]


@pytest.fixture(params=[(shape, i) for shape in SHAPES for i in (0, 1)], ids=str)
def case(request) -> tuple[np.ndarray, np.ndarray, Evaluation]:
    shape, which = request.param
    features, labels = made(*shape)
    return features.astype(np.float64), labels, plans(labels)[which]


def compute(name: str, features: np.ndarray, labels: np.ndarray, plan: Evaluation) -> ScoreResult:
    return known_scores()[name].compute(ScoreInputs(features.astype(np.float32), labels, plan))


def predicted(plan: Evaluation, predict) -> np.ndarray:
    """Classes (n_repeats, n_eval) from a function of the fitted and the held-out rows."""
    found = np.zeros((plan.n_repeats, len(plan.evaluated)), dtype=np.int64)
    for i, (fitted, held) in enumerate(plan.folds):
        repeat = i // (len(plan.folds) // plan.n_repeats)
        found[repeat, np.searchsorted(plan.evaluated, held)] = predict(fitted, held)
    return found


def test_lda_is_that_of_scikit_learn_with_the_pooled_shrinkage(case) -> None:
    features, labels, plan = case

    def predict(fitted: np.ndarray, held: np.ndarray) -> np.ndarray:
        x, y = features[fitted], labels[fitted]
        within = x - np.stack([x[y == c].mean(0) for c in range(labels.max() + 1)])[y]
        a = LedoitWolf(assume_centered=True).fit(within).shrinkage_
        return (
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a).fit(x, y).predict(features[held])
        )

    result = compute("lda", features, labels, plan)
    assert np.array_equal(result.predictions, predicted(plan, predict))
    assert result.value == pytest.approx(result.per_image.mean())


def test_ridge_probe_is_that_of_scikit_learn(case) -> None:
    features, labels, plan = case
    one_hot, strengths = np.eye(labels.max() + 1)[labels], []

    def predict(fitted: np.ndarray, held: np.ndarray) -> np.ndarray:
        mean, scale = features[fitted].mean(0), features[fitted].std(0)
        x = (features - mean) / np.sqrt((scale**2).mean())
        rows = Rows.at(torch.from_numpy(features), torch.from_numpy(fitted))
        fit = fit_ridge(rows, torch.tensor(labels[fitted]), one_hot.shape[1])
        strengths.append(fit.strength)
        peer = Ridge(one_hot.shape[1] / fit.strength).fit(x[fitted], one_hot[fitted])
        return peer.predict(x[held]).argmax(1)

    result = compute("ridge_probe", features, labels, plan)
    assert np.array_equal(result.predictions, predicted(plan, predict))
    assert result.details["C"] == sorted(set(strengths))


@pytest.mark.parametrize("shape", [(30, 20, 3), (30, 50, 4)])
def test_ridge_is_as_strong_as_fits_without_each_image_want(shape: tuple[int, int, int]) -> None:
    features, labels = made(*shape)
    x, n_classes = (features - features.mean(0)).astype(np.float64), shape[2]
    scale = np.sqrt((x**2).mean())
    x /= scale
    targets = np.eye(n_classes)[labels]

    def left_out(exponent: float) -> float:
        error = 0.0
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            peer = Ridge(n_classes / 10**exponent).fit(x[others], targets[others])
            error += ((peer.predict(x[i : i + 1])[0] - targets[i]) ** 2).sum()
        return error

    found = fit_ridge(Rows.all_of(torch.tensor(features)), torch.tensor(labels), n_classes)
    best = np.log10(found.strength)
    tried = {e: left_out(e) for e in np.arange(-4, 4.5, 0.5)}
    decade = min((e for e in tried if e % 1 == 0), key=lambda e: tried[e])
    assert best == min((decade - 0.5, decade, decade + 0.5), key=lambda e: tried[e])
    peer = Ridge(n_classes / found.strength).fit(x, targets)
    np.testing.assert_allclose(scale * found.weights.numpy(), peer.coef_.T, atol=1e-8)
    np.testing.assert_allclose(found.bias.numpy(), peer.intercept_, atol=1e-8)


def test_one_wide_column_does_not_hide_the_others() -> None:
    features, labels = made(200, 20, 3)
    plan = plan_validation(120, 80)
    before = compute("ridge_probe", features, labels, plan).value
    features[:, 0] *= 1000
    assert compute("ridge_probe", features, labels, plan).value > before - 0.05


def test_knn_of_one_neighbour_is_that_of_scikit_learn(case, monkeypatch) -> None:
    features, labels, plan = case
    monkeypatch.setattr(knn, "NEIGHBOURS", (1,))

    def predict(fitted: np.ndarray, held: np.ndarray) -> np.ndarray:
        peer = KNeighborsClassifier(1, metric="cosine").fit(features[fitted], labels[fitted])
        return peer.predict(features[held])

    result = compute("knn", features, labels, plan)
    assert np.array_equal(result.predictions, predicted(plan, predict))
    assert result.details["k"] == [1]


@pytest.mark.parametrize("chunk", [2**24, 100])
def test_knn_is_what_loops_give(case, monkeypatch, chunk: int) -> None:
    features, labels, plan = case
    monkeypatch.setattr(knn, "CHUNK_VALUES", chunk)
    lengths = np.linalg.norm(features, axis=1)
    similarity = features @ features.T / np.outer(lengths, lengths)

    def vote(image: int, among: np.ndarray, k: int) -> int:
        nearest = sorted((j for j in among if j != image), key=lambda j: -similarity[image, j])[:k]
        classes = [labels[j] for j in nearest]
        return max(dict.fromkeys(classes), key=classes.count)

    def predict(fitted: np.ndarray, held: np.ndarray) -> list[int]:
        ks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200) if k < len(fitted)]
        right = {k: sum(vote(i, fitted, k) == labels[i] for i in fitted) for k in ks}
        best = max(k for k in ks if right[k] == max(right.values()))
        return [vote(i, fitted, best) for i in held]

    assert np.array_equal(
        compute("knn", features, labels, plan).predictions, predicted(plan, predict)
    )


def test_hscore_is_the_trace_with_scikit_learns_covariance(case) -> None:
    features, labels, plan = case
    x, y = features[plan.fit_part], labels[plan.fit_part]
    x = x - x.mean(0)
    peer = LedoitWolf(assume_centered=True).fit(x)
    by_image = np.stack([x[y == c].mean(0) for c in range(labels.max() + 1)])[y]
    between = by_image.T @ by_image / len(x)
    expected = (1 - peer.shrinkage_) * np.trace(np.linalg.solve(peer.covariance_, between))
    assert compute("hscore", features, labels, plan).value == pytest.approx(expected, rel=1e-9)


def test_disco_is_the_sum_over_groups_of_share_and_accuracy(case) -> None:
    features, labels, plan = case
    x, y = features[plan.fit_part], labels[plan.fit_part]
    _, values, right = np.linalg.svd(x, full_matrices=False)
    expected = 0.0
    for columns in np.array_split(np.arange(len(values)), N_GROUPS):
        if len(columns):
            part = x @ right[columns].T
            accuracy = (Centroids().fit(part, y).predict(part) == y).mean()
            expected += values[columns].sum() / values.sum() * accuracy
    assert compute("disco", features, labels, plan).value == pytest.approx(expected, rel=1e-9)


def test_rankme_is_the_exponential_of_the_entropy(case) -> None:
    features, labels, plan = case
    values = np.linalg.svd(features[plan.fit_part], compute_uv=False)
    shares = values / values.sum() + 1e-7
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert compute("rankme", features, labels, plan).value == pytest.approx(expected, rel=1e-9)


def test_rankme_counts_directions_that_are_nil_too() -> None:
    features = np.zeros((50, 20))
    features[:, 0] = 1
    shares = np.array([1 + 1e-7] + [1e-7] * 19)
    value = compute("rankme", features, np.arange(50) % 2, plan_validation(50, 0)).value
    assert value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_alpha_req_finds_the_exponent_of_a_power_law(alpha: float) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((300, 40))
    left, _ = np.linalg.qr(rows - rows.mean(0))
    features = left * np.arange(1, 41) ** (-alpha / 2) + 3
    value = compute("alpha_req", features, np.arange(300) % 2, plan_validation(300, 0)).value
    assert value == pytest.approx(alpha, abs=1e-4)


def test_alpha_req_is_a_weighted_fit(case) -> None:
    features, labels, plan = case
    eigenvalues = np.linalg.eigvalsh(np.cov(features[plan.fit_part].T, bias=True))[::-1]
    eigenvalues = eigenvalues[: min(len(plan.fit_part) - 1, features.shape[1])]
    ranks = np.arange(1, len(eigenvalues) + 1)
    slope = np.polyfit(np.log(ranks), np.log(eigenvalues), 1, w=ranks**-0.5)[0]
    assert compute("alpha_req", features, labels, plan).value == pytest.approx(-slope, rel=1e-6)


CHEAP = ("ridge_probe", "knn", "lda", "hscore", "disco")


@pytest.mark.parametrize("name", CHEAP)
def test_a_rotation_and_a_scale_change_nothing(name: str) -> None:
    features, labels = made(120, 9, 3)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((9, 9)))
    plan = plan_cross_validation(labels, seed=0)
    turned = compute(name, 50 * features @ rotation, labels, plan).value
    assert turned == pytest.approx(compute(name, features, labels, plan).value, rel=1e-4)


@pytest.mark.parametrize("name", ["ridge_probe", "knn", "lda"])
def test_held_out_images_change_no_other_prediction(name: str) -> None:
    features, labels = made(120, 9, 3)
    plan = plan_validation(80, 40)
    before = compute(name, features, labels, plan).predictions
    features[110:] = 100
    assert np.array_equal(before[:, :30], compute(name, features, labels, plan).predictions[:, :30])


@pytest.mark.parametrize("name", ["ridge_probe", "knn", "lda"])
def test_shuffled_labels_score_at_chance(name: str) -> None:
    features, labels = made(400, 60, 3)
    shuffled = np.random.default_rng(2).permutation(labels)
    result = compute(name, features, shuffled, plan_cross_validation(shuffled, seed=0))
    assert result.details["at_chance"] and "no better than the largest class" in result.flags[-1]


@pytest.mark.parametrize("name", [*CHEAP, "rankme", "alpha_req"])
@pytest.mark.parametrize("features", [np.ones((30, 5)), np.eye(5)[np.arange(30) % 5]])
def test_features_without_spread_give_a_finite_number(name: str, features: np.ndarray) -> None:
    result = compute(name, features, np.arange(30) % 5, plan_validation(20, 10))
    assert np.isfinite(result.value)


@pytest.mark.parametrize("name", CHEAP)
def test_a_class_that_is_not_fitted_on_costs_no_more_than_itself(name: str) -> None:
    features, labels = made(90, 6, 3)
    labels[:60][labels[:60] == 1] = 0
    result = compute(name, features, labels, plan_validation(60, 30))
    assert np.isfinite(result.value)
    assert result.predictions is None or 1 not in result.predictions


def test_only_the_six_are_computed_by_default() -> None:
    names = [score.name for score in find_scores(None)]
    assert names == [
        "linear_probe",
        "linear_probe_loglik",
        "main_component",
        "residual_component",
        "logme",
        "logme_thuml",
    ]
    assert [score.name for score in find_scores(["all"])] == list(known_scores())
