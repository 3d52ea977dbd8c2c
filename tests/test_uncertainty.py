"""Intervals and tie sets, measured by simulation."""

import numpy as np
import pytest

from ckptsel.ranking.uncertainty import (
    bootstrap_means,
    find_tie_set,
    interval,
    probability_best,
    seed_and_image_means,
)

N_TRIALS = 1000


def simulate(random, accuracies, n_images: int) -> np.ndarray:
    """Correctness of checkpoints on shared images; about half of the errors are common."""
    hard = random.random(n_images)
    own = random.random((len(accuracies), n_images))
    mixed = np.where(random.random((len(accuracies), n_images)) < 0.5, hard, own)
    return (mixed < np.array(accuracies)[:, None]).astype(float)


def test_intervals_cover_the_truth_in_93_to_97_percent_of_samples() -> None:
    random = np.random.default_rng(0)
    covered = np.zeros(2)
    for trial in range(N_TRIALS):
        correct = simulate(random, (0.88, 0.82), 400)
        resampled = bootstrap_means(correct, 400, seed=trial)
        means = correct.mean(1)
        one = interval(means[0], resampled[0])
        both = interval(means[0] - means[1], resampled[0] - resampled[1])
        covered += [one.low <= 0.88 <= one.high, both.low <= 0.06 <= both.high]
    assert np.all((covered / N_TRIALS >= 0.93) & (covered / N_TRIALS <= 0.97)), covered / N_TRIALS


@pytest.mark.parametrize("accuracies", [(0.8, 0.8, 0.8, 0.8, 0.8, 0.8), (0.84, 0.83, 0.8, 0.7)])
def test_the_tie_set_holds_the_true_best(accuracies) -> None:
    random = np.random.default_rng(1)
    n_trials = 400
    held = 0
    for trial in range(n_trials):
        correct = simulate(random, accuracies, 400)
        resampled = bootstrap_means(correct, 300, seed=trial)
        held += find_tie_set(correct.mean(1), resampled)[0]
    assert held / n_trials >= 0.93


def test_the_tie_set_leaves_out_what_is_clearly_worse() -> None:
    correct = simulate(np.random.default_rng(2), (0.9, 0.89, 0.6), 1000)
    resampled = bootstrap_means(correct, 500)
    assert find_tie_set(correct.mean(1), resampled).tolist() == [True, True, False]


def test_equal_predictions_are_tied() -> None:
    correct = np.tile(simulate(np.random.default_rng(3), (0.8,), 100), (2, 1))
    resampled = bootstrap_means(correct, 200)
    assert find_tie_set(correct.mean(1), resampled).tolist() == [True, True]
    assert probability_best(resampled).tolist() == [0.5, 0.5]


def test_a_perfect_checkpoint_beats_a_hopeless_one() -> None:
    correct = np.stack([np.ones(50), np.zeros(50)])
    resampled = bootstrap_means(correct, 200)
    assert find_tie_set(correct.mean(1), resampled).tolist() == [True, False]


def test_resamples_are_seeded_and_do_not_depend_on_chunks(monkeypatch) -> None:
    values = np.random.default_rng(4).random((3, 40))
    whole = bootstrap_means(values, 100, seed=5)
    monkeypatch.setattr("ckptsel.ranking.uncertainty.CHUNK_VALUES", 40 * 7)
    assert np.allclose(whole, bootstrap_means(values, 100, seed=5), rtol=1e-12)
    assert not np.array_equal(whole, bootstrap_means(values, 100, seed=6))


def test_intervals_over_seeds_and_images_cover() -> None:
    """Of an accuracy and of a difference, where runs of one candidate differ by more than chance."""
    random = np.random.default_rng(3)
    truth, n_seeds, n_images = np.array([0.8, 0.8, 0.77, 0.75, 0.7]), 3, 500
    n_samples, single, paired = 300, 0, 0
    for sample in range(n_samples):
        ease = random.random(n_images)
        shared = 0.01 * random.standard_normal(n_seeds)
        runs = truth[:, None] + shared + 0.01 * random.standard_normal((5, n_seeds))
        draws = random.random((5, n_seeds, n_images))
        correct = ((ease + draws) / 2 < _threshold(runs)[:, :, None]).astype(float)
        resampled = seed_and_image_means(correct, 400, seed=sample)
        values = correct.mean((1, 2))
        low, high = np.quantile(resampled[0], [0.025, 0.975])
        single += bool(low <= truth[0] <= high)
        low, high = np.quantile(resampled[0] - resampled[4], [0.025, 0.975])
        paired += bool(low <= truth[0] - truth[4] <= high)
        assert np.allclose(resampled.mean(1), values, atol=0.02)
    assert 0.92 <= single / n_samples <= 1
    assert 0.92 <= paired / n_samples <= 1


def _threshold(accuracy: np.ndarray) -> np.ndarray:
    """t with P((u + v) / 2 < t) = accuracy for u, v uniform (a triangular distribution)."""
    return 1 - np.sqrt((1 - accuracy) / 2)


def test_one_seed_leaves_the_images_alone() -> None:
    correct = np.random.default_rng(0).random((3, 1, 200)) < 0.7
    assert np.array_equal(
        seed_and_image_means(correct.astype(float), 200, seed=1),
        bootstrap_means(correct[:, 0].astype(float), 200, seed=1),
    )
