"""Do intervals cover where probes are really fitted, once, on folds, on repeated folds?

The grid of `tools.simulate_intervals` draws which images are right. Here two Gaussian classes are drawn,
a linear classifier (least squares on the labels) is fitted and read as the splits say, and what is true
is known: the accuracy of a linear classifier on such classes is a normal probability.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ckptsel.ranking.judgement import Readings, estimate_mean, judge
from ckptsel.target.splits import Evaluation, plan_cross_validation, plan_validation

N_IMAGES = (20, 50, 100, 400)
N_CANDIDATES, N_FEATURES = 8, 10
N_SAMPLES, N_TRUTH = 1000, 4000
SEPARATION = 1.3
"""Half the distance of the class means, in standard deviations: 90 % at best."""

OWN_NOISE = 0.5
"""Part of the variance of a feature that is a candidate's own."""

Values = NDArray[np.float64]


def draw(n: int, random: np.random.Generator) -> tuple[Values, NDArray[np.int64]]:
    """Features (n_candidates, n, n_features), alike in distribution, and labels (n,)."""
    labels = random.permutation(np.arange(n) % 2)
    common = np.sqrt(1 - OWN_NOISE) * random.standard_normal((n, N_FEATURES))
    own = np.sqrt(OWN_NOISE) * random.standard_normal((N_CANDIDATES, n, N_FEATURES))
    features = common + own
    features[:, :, 0] += SEPARATION * (2 * labels - 1)
    return features, labels


def fit(features: Values, labels: NDArray[np.int64]) -> Values:
    """Weights (n_features + 1,), the intercept last: ridge regression on -1 and 1."""
    inputs = np.hstack([features, np.ones((len(features), 1))])
    gram = inputs.T @ inputs + np.diag([1.0] * N_FEATURES + [0.0])
    return np.asarray(np.linalg.solve(gram, inputs.T @ (2.0 * labels - 1)))


def true_accuracy(weights: Values) -> float:
    """Of the classifier on new images of both classes, which are as frequent."""
    size = np.linalg.norm(weights[:-1])
    reach = SEPARATION * weights[0] + weights[-1] * np.array([1, -1])
    return float(norm.cdf(reach / size).mean())


def plans(n: int, labels: NDArray[np.int64], seed: int) -> Iterator[tuple[str, Evaluation]]:
    """The splits of n images; a hold-out is fitted on as many others."""
    yield "hold-out", plan_validation(n, n)
    whole = plan_cross_validation(labels[:n], seed)
    once = Evaluation(whole.method, whole.fit_part, whole.folds[:5], whole.evaluated)
    yield "cross-validation", once
    if whole.n_repeats > 1:
        yield "repeated cross-validation", whole


def read(features: Values, labels: NDArray[np.int64], plan: Evaluation) -> tuple[Values, Values]:
    """Mean over repeats of which images are right (n_candidates, n_eval), and the true accuracies of
    the classifiers, mean over folds (n_candidates,)."""
    right = np.zeros((N_CANDIDATES, len(plan.evaluated)))
    true = np.zeros(N_CANDIDATES)
    for fitted, held in plan.folds:
        columns = np.searchsorted(plan.evaluated, held)
        for k in range(N_CANDIDATES):
            weights = fit(features[k, fitted], labels[fitted])
            above = features[k, held] @ weights[:-1] + weights[-1] > 0
            right[k, columns] += (above == labels[held]) / plan.n_repeats
            true[k] += true_accuracy(weights) / len(plan.folds)
    return right, true


def expected_accuracy(n_fitted: int) -> float:
    """Mean over training sets of so many images."""
    random = np.random.default_rng((1, n_fitted))
    accuracies = []
    for _ in range(N_TRUTH // N_CANDIDATES):
        features, labels = draw(n_fitted, random)
        accuracies += [true_accuracy(fit(one, labels)) for one in features]
    return float(np.mean(accuracies))


HEADER = (
    "| images | method | true, % | score: these fits | score: any training set | width | "
    "expected: these fits | tie set holds one of 8 equal |"
)


def simulate(n: int) -> Iterator[str]:
    """One row of the table for each way to split n images."""
    found: dict[str, list[tuple[float, ...]]] = {}
    truth: dict[str, float] = {}
    for sample in range(N_SAMPLES):
        features, labels = draw(2 * n, np.random.default_rng((n, sample)))
        for name, plan in plans(n, labels, sample):
            if name not in truth:
                truth[name] = expected_accuracy(len(plan.folds[0][0]))
            outcome = judge_once(features, labels, plan, truth[name], sample)
            found.setdefault(name, []).append(outcome)
    for name, rows in found.items():
        cells = [n, name, *(f"{100 * x:.1f}" for x in (truth[name], *np.mean(rows, axis=0)))]
        yield f"| {' | '.join(map(str, cells))} |"


def judge_once(
    features: Values, labels: NDArray[np.int64], plan: Evaluation, truth: float, sample: int
) -> tuple[float, ...]:
    """Of one sample: whether the interval of a score covers these fits, and the mean over training
    sets; its width; whether what is expected of the best covers; whether the tie set holds one."""
    right, true = read(features, labels, plan)
    readings = Readings(right[:, None])
    judged = judge(readings, n_resamples=500, seed=sample)
    low, high = estimate_mean(readings, readings.per_image[0]).bounds
    new = judged.on_new_images
    assert new is not None
    return (
        low <= true[0] <= high,
        low <= truth <= high,
        high - low,
        new.bounds[0] <= true[judged.chosen] <= new.bounds[1],
        bool(judged.in_tie_set[sample % N_CANDIDATES]),
    )


def main() -> None:
    print(HEADER)
    print("|" + " --- |" * 8)
    for n in N_IMAGES:
        for row in simulate(n):
            print(row, flush=True)


if __name__ == "__main__":
    main()
