"""Intervals, tie sets and what is expected of the best, against independent forms and made samples."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

from ckptsel.gating.gate import FAIL, PASS
from ckptsel.ranking.intervals import accuracy_ends, least_difference, mean_ends
from ckptsel.ranking.judgement import (
    Readings,
    compare_groups,
    estimate_each,
    judge,
    resample_means,
)
from tools.simulate_intervals import COVERAGES, Cell, draw, outcomes
from tools.simulate_verdicts import verdicts


def made_right(accuracies, n_images: int, seed: int = 0, shared: float = 0.5) -> np.ndarray:
    """Which images are right: (n_candidates, n_images); difficulty is partly shared."""
    random = np.random.default_rng(seed)
    own = np.sqrt(1 - shared) * random.standard_normal((len(accuracies), n_images))
    difficulty = np.sqrt(shared) * random.standard_normal(n_images) + own
    return (difficulty < stats.norm.ppf(accuracies)[:, None]).astype(float)


def readings_of(right: np.ndarray, **more) -> Readings:
    return Readings(right[:, None], **more)


# ------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(("n_right", "n"), [(0, 10), (3, 10), (10, 10), (97, 100)])
def test_an_accuracy_has_the_exact_interval(n_right: int, n: int) -> None:
    values = (np.arange(n) < n_right).astype(float)
    expected = stats.binomtest(n_right, n).proportion_ci(0.95, method="exact")
    assert accuracy_ends(values, 0.025) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_mean_without_bounds_has_students_interval() -> None:
    values = np.random.default_rng(0).standard_normal(12) - 3
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_ends(values, 0.025) == pytest.approx((expected.low, expected.high))


def score_statistic(b: int, c: int, n: int, delta: float) -> float:
    """Tango's (1998), with the constrained likelihood maximised by search: b images that only the
    second has right, c that only the first has."""

    def unlikely(q: float) -> float:
        shares = np.maximum([q + delta, q, 1 - 2 * q - delta], 1e-300)
        return -float(np.dot([b, c, n - b - c], np.log(shares)))

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    q = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return float((b - c - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta))))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (9, 1, 44), (3, 0, 20), (0, 4, 30)])
def test_a_difference_has_the_score_interval(b: int, c: int, n: int) -> None:
    def beyond(delta: float) -> float:
        return score_statistic(b, c, n, delta) - 1.96

    expected = brentq(beyond, -0.999, (b - c) / n - 1e-9)
    found = least_difference(np.array(b - c), np.array(b + c), n, np.array(1.96))
    assert found == pytest.approx(expected, abs=1e-6)


def test_ten_images_without_a_difference_do_not_make_two_equal() -> None:
    """z**2 / (n + z**2) to either side (Tango 1998, for no discordant image)."""
    judged = judge(readings_of(np.ones((2, 10))))
    z = stats.norm.ppf(0.975)
    assert judged.behind_best[1].bounds == pytest.approx((0, z**2 / (10 + z**2)), abs=0.02)
    assert estimate_each(readings_of(np.ones((1, 10))))[0].low == pytest.approx(0.6915, abs=1e-4)


# ------------------------------------------------------------------------- tie set and others


def test_what_is_clearly_worse_is_not_in_the_tie_set() -> None:
    judged = judge(readings_of(made_right([0.9, 0.89, 0.6], 1000)))
    assert judged.in_tie_set.tolist() == [True, True, False]
    assert judged.p_best[2] < 0.001
    assert judged.behind_best[2].low > 0.2


def test_identical_candidates_share_their_chance_to_be_the_best() -> None:
    """Means over three repeats, whose last digits differ with the order of the sums."""
    one = np.random.default_rng(0).integers(4, size=60) / 3
    judged = judge(readings_of(np.tile(one, (5, 1))))
    assert judged.in_tie_set.all()
    assert judged.p_best == pytest.approx(np.full(5, 0.2), abs=1e-12)


def test_a_perfect_candidate_is_told_from_a_hopeless_one() -> None:
    judged = judge(readings_of(np.stack([np.ones(50), np.zeros(50)])))
    assert judged.in_tie_set.tolist() == [True, False]
    # Nobody else can be the best, so it is not behind it.
    assert judged.behind_best[0].bounds == (0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_the_parts_of_a_judgement_agree(seed: int) -> None:
    random = np.random.default_rng(seed)
    accuracies = random.uniform(0.4, 0.95, size=random.integers(1, 9))
    readings = readings_of(made_right(accuracies, int(random.integers(5, 300)), seed))
    judged = judge(readings)
    for tied, behind, value in zip(
        judged.in_tie_set, judged.behind_best, readings.means, strict=True
    ):
        assert (behind.low > 0) == (not tied)
        assert behind.low <= behind.value <= behind.high
        assert behind.value == pytest.approx(readings.means.max() - value)
    assert judged.in_tie_set[judged.chosen]
    assert judged.in_tie_set[readings.means.argmax()]
    assert judged.p_best.sum() == pytest.approx(1)
    new = judged.on_new_images
    assert new.low <= new.value <= new.high


def test_another_score_decides_inside_the_tie_set_only() -> None:
    right = made_right([0.9, 0.89, 0.6], 1000)
    tie_break = np.tile([[1.0], [2.0], [3.0]], (1, 1000))
    judged = judge(readings_of(right, tie_break=tie_break))
    assert judged.chosen == 1
    # What it reaches is read by the score that counts, not by what broke the tie.
    assert judged.on_new_images.value == pytest.approx(right[1].mean(), abs=0.005)


def test_resamples_are_seeded() -> None:
    readings = readings_of(made_right([0.8, 0.79, 0.7], 60))
    first, again, other = (judge(readings, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.p_best, again.p_best)
    assert not np.array_equal(first.p_best, other.p_best)


def test_scores_without_bounds_are_judged_too() -> None:
    random = np.random.default_rng(0)
    easy = 3 * random.standard_normal(80)
    values = np.stack([easy, easy - 1 + 0.5 * random.standard_normal(80), easy])
    judged = judge(readings_of(values, is_accuracy=False))
    assert judged.in_tie_set.tolist() == [True, False, True]
    assert judged.behind_best[1].low < 1 < judged.behind_best[1].high


# -------------------------------------------------------------------------- runs that scatter


def nested(accuracy: np.ndarray, n_images: int = 500) -> np.ndarray:
    """(n_candidates, n_seeds, n_images) with these accuracies (n_candidates, n_seeds)."""
    return (np.arange(n_images) < n_images * accuracy[:, :, None]).astype(float)


def test_a_seed_that_is_good_for_all_widens_every_interval_but_no_difference() -> None:
    by_seed = np.array([0.7, 0.8, 0.9])
    calm, moved = (
        Readings(nested(accuracy, 200))
        for accuracy in (np.full((4, 3), 0.8), np.tile(by_seed, (4, 1)))
    )
    # Student's t with 2 degrees of freedom reaches 4.30 standard errors of a mean of three.
    seeds = 4.303 * by_seed.std(ddof=1) / np.sqrt(3)
    of_images = [0.8 - estimate.low for estimate in estimate_each(calm)]
    for estimate, half in zip(estimate_each(moved), of_images, strict=True):
        assert 0.8 - estimate.low == pytest.approx(np.hypot(half, seeds), rel=0.1)
        assert estimate.random == "images and seeds"
    for calm_one, one in zip(judge(calm).behind_best, judge(moved).behind_best, strict=True):
        assert one.high == pytest.approx(calm_one.high, rel=0.1)


def test_seeds_that_are_good_for_one_candidate_widen_the_differences() -> None:
    """Each candidate's own part sums to zero over candidates and over seeds: none is shared."""
    own = 0.05 * np.array([[1, -1, 0], [-1, 1, 0], [1, 0, -1], [-1, 0, 1]])
    judged = judge(Readings(nested(0.8 + own)))
    error = np.sqrt((own**2).sum() / 6 / 3) * np.sqrt(2)
    # The largest of three differences that share one side: Dunnett's t with 6 degrees of freedom
    # reaches 3.10 (Dunnett 1955, table 2a).
    assert judged.behind_best[1].high == pytest.approx(3.10 * error, rel=0.2)


def test_one_seed_leaves_the_images_alone() -> None:
    right = made_right([0.7, 0.7, 0.6], 200)
    assert judge(readings_of(right)).behind_best[0].random == "images"
    assert readings_of(right).scatter.half_width(0.95) == 0


# --------------------------------------------------------------------------- how often right


@pytest.mark.parametrize(
    "cell",
    [
        Cell("hold-out", 1, 20, 0.99, 0.0, "equal"),
        Cell("hold-out", 2, 10, 0.9, 0.5, "equal"),
        Cell("hold-out", 8, 100, 0.5, 0.9, "one better"),
        Cell("hold-out", 30, 50, 0.9, 0.5, "equal"),
        Cell("repeated", 8, 50, 0.9, 0.5, "smooth"),
        Cell("confirmed", 8, 400, 0.9, 0.5, "equal", 3),
        Cell("confirmed", 2, 400, 0.9, 0.5, "one better", 2),
    ],
    ids=lambda cell: cell.name,
)
def test_what_is_said_is_right_in_95_percent_of_samples(cell: Cell) -> None:
    n_samples = 150
    total = dict.fromkeys(COVERAGES, 0.0)
    for sample in range(n_samples):
        readings, true = draw(cell, np.random.default_rng(sample))
        judged = judge(readings, n_resamples=500, seed=sample)
        found = outcomes(readings, judged, true, sample % cell.n_candidates)
        total = {name: total[name] + found[name] for name in COVERAGES}
    # Three standard errors below 95 % of so many samples.
    assert {name: n for name, n in total.items() if n / n_samples < 0.897} == {}


def test_the_mean_of_the_best_of_many_is_too_high_and_what_is_expected_of_it_is_not() -> None:
    bias = {"measured": [], "expected": []}
    for seed in range(60):
        readings = readings_of(made_right(np.full(15, 0.8), 300, seed))
        judged = judge(readings, n_resamples=200, seed=seed)
        bias["measured"].append(readings.means[judged.chosen] - 0.8)
        bias["expected"].append(judged.on_new_images.value - 0.8)
    assert np.mean(bias["measured"]) > 0.02
    assert np.mean(bias["expected"]) == pytest.approx(0, abs=0.01)


def test_the_best_of_two_groups_are_compared_for_all_their_pairs_at_once() -> None:
    right = made_right(np.full(16, 0.8), 300, seed=3)
    few, many = (
        compare_groups(readings_of(right[chosen]), half, 0, half)
        for chosen, half in (([0, 8], 1), (list(range(16)), 8))
    )
    assert few.value == many.value == pytest.approx(right[0].mean() - right[8].mean())
    assert many.high - many.low > 1.3 * (few.high - few.low)
    assert few.low < few.value < few.high


def test_a_gate_far_from_its_limit_says_the_truth() -> None:
    cell = Cell("hold-out", 8, 2000, 0.9, 0.5, "one better")
    said = Counter(verdicts(cell, 20))
    assert said["min-accuracy", -4, FAIL] >= 18 and not said["min-accuracy", -4, PASS]
    assert said["min-accuracy", 4, PASS] >= 14 and not said["max-regret", 4, FAIL]


def test_draws_do_not_depend_on_the_signs_of_eigenvectors(monkeypatch) -> None:
    """Which are the machine's choice."""
    random = np.random.default_rng(0)
    readings = Readings((random.random((4, 1, 50)) < 0.7).astype(float))
    drawn, eigh = resample_means(readings, 100), np.linalg.eigh

    def turned(matrix):
        sizes, vectors = eigh(matrix)
        return sizes, vectors * np.array([1, -1, 1, -1])

    monkeypatch.setattr(np.linalg, "eigh", turned)
    assert np.allclose(resample_means(readings, 100), drawn)
