"""Correlation of scores with accuracy, against forms written out here."""

import numpy as np

from ckptsel.confirmation.agreement import measure_agreement


def tau_b(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall 1945: concordant minus discordant pairs, over those not tied in each."""
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_measures_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(0)
    accuracy = random.random(12)
    score = np.round(accuracy + 0.3 * random.random(12), 1)  # with ties
    agreement = measure_agreement({"s": score, "opposite": -score}, accuracy)
    s = agreement["s"]
    assert s.n == 12
    assert np.isclose(s.kendall_tau.value, tau_b(score, accuracy))
    assert np.isclose(s.pearson_r.value, np.corrcoef(score, accuracy)[0, 1])
    assert np.isclose(agreement["opposite"].kendall_tau.value, -s.kendall_tau.value)
    for bounds in (s.kendall_tau, s.weighted_tau, s.pearson_r):
        assert -1 <= bounds.low <= bounds.value <= bounds.high <= 1
        assert bounds.low < bounds.high


def test_the_weighted_tau_counts_the_top_most() -> None:
    accuracy = np.arange(10.0)
    top, bottom = accuracy.copy(), accuracy.copy()
    top[[8, 9]], bottom[[0, 1]] = [9, 8], [1, 0]
    agreement = measure_agreement({"top": top, "bottom": bottom}, accuracy)
    assert agreement["top"].kendall_tau.value == agreement["bottom"].kendall_tau.value
    assert agreement["top"].weighted_tau.value < agreement["bottom"].weighted_tau.value


def test_a_constant_score_has_no_correlation_and_few_checkpoints_say_nothing() -> None:
    constant = measure_agreement({"s": np.ones(5)}, np.arange(5.0))["s"]
    assert (constant.kendall_tau, constant.weighted_tau, constant.pearson_r) == (None, None, None)
    assert measure_agreement({"s": np.arange(4.0)}, np.arange(4.0)) == {}


def test_the_interval_narrows_with_more_checkpoints() -> None:
    random = np.random.default_rng(1)
    widths = []
    for n in (8, 80):
        accuracy = random.random(n)
        tau = measure_agreement({"s": accuracy + random.random(n)}, accuracy)["s"].kendall_tau
        widths.append(tau.high - tau.low)
    assert widths[1] < 0.5 * widths[0]
