"""Correlation of scores with accuracy, against forms written out here."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from ckptsel.confirmation.agreement import correlation_interval, measure_agreement
from ckptsel.ranking.correlation import _components, _effective_n, effective_n
from ckptsel.report.confirmation_tables import agreement_cells
from tools.simulate_correlation import KINDS, related, share_without_zero, simulate, unrelated


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
    assert 2 <= s.n_effective <= 12
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


def test_the_components_are_orthonormal_and_begin_with_the_powers_of_time() -> None:
    components = _components(12)
    assert np.allclose(components @ components.T, np.eye(11))
    assert np.allclose(components.sum(axis=1), 0)
    time = np.arange(12.0)
    for degree in (1, 2, 3):
        in_components = components @ time**degree
        assert abs(in_components[degree - 1]) > 1e-3
        assert np.allclose(in_components[degree:], 0)


def test_the_effective_number_is_that_of_random_signs() -> None:
    """1 / (n_eff - 1) is the variance of r over all signs of one series' coefficients."""
    random = np.random.default_rng(0)
    components = _components(8)
    x, y = (curve - curve.mean() for curve in random.standard_normal((2, 8)).cumsum(axis=1))
    signs = np.array(list(itertools.product((-1, 1), repeat=7)))
    flipped = (signs * (components @ x)) @ components
    r = flipped @ y / np.sqrt((x @ x) * (y @ y))
    assert np.isclose(_effective_n(x, y, components), 1 + 1 / r.var())
    assert _effective_n(x, y, components) < 8


def test_curves_are_worth_what_they_vary() -> None:
    time = np.arange(20.0)
    random = np.random.default_rng(3)
    noises, walks = random.standard_normal((2, 40, 2, 20))
    assert np.isclose(effective_n(time, 3 - time), 2)
    assert np.median([effective_n(*pair) for pair in noises]) > 15
    assert np.median([effective_n(*pair.cumsum(axis=1)) for pair in walks]) < 8
    # The ranks of a curve with one wild value are smooth still.
    wild = np.where(time == 9, 1e6, time)
    assert effective_n(wild, time) < 3


def test_two_trends_say_nothing_of_each_other() -> None:
    agreement = measure_agreement({"epoch": np.arange(9.0)}, np.arange(9.0) ** 2)["epoch"]
    assert agreement.kendall_tau.value == 1
    for estimate in (agreement.kendall_tau, agreement.weighted_tau, agreement.pearson_r):
        assert estimate.bounds == (-1, 1)


@pytest.mark.parametrize("kind", ["random walk", "rise and fall, noise 0.1", "white noise"])
def test_unrelated_curves_seldom_seem_related_and_related_ones_are_found(kind: str) -> None:
    false, power = (
        share_without_zero(simulate(pair, KINDS[kind], 15, n_pairs=150), "pearson_r")
        for pair in (unrelated, related)
    )
    assert false <= 0.07
    assert power > 2 * false
    assert power > 0.9 or kind != "white noise"


def test_the_interval_of_independent_pairs_is_fishers_and_fiellers() -> None:
    r = correlation_interval("pearson_r", 0.6, n=20, n_effective=20)
    assert np.allclose(
        r.bounds, np.tanh(np.arctanh(0.6) + np.array([-1, 1]) * 1.96 / 17**0.5), 1e-3
    )
    tau = correlation_interval("kendall_tau", 0.0, n=20, n_effective=20)
    drawn = np.random.default_rng(4).standard_normal((2000, 2, 20))
    assert np.mean([abs(tau_b(*pair)) < tau.high for pair in drawn]) == pytest.approx(
        0.95, abs=0.015
    )
    # A perfect order of few is no proof of one of all.
    assert correlation_interval("kendall_tau", 1.0, n=20, n_effective=20).low < 0.95


def test_the_table_shows_the_effective_number_where_it_is_known() -> None:
    random = np.random.default_rng(5)
    accuracy = random.random(9)
    agreement = measure_agreement({"s": accuracy + random.random(9)}, accuracy)
    agreement["old"] = dataclasses.replace(agreement["s"], n_effective=None)
    header, rows = agreement_cells(SimpleNamespace(agreement=agreement))
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["s"]["effective n"] == f"{agreement['s'].n_effective:.1f}"
    assert cells["old"]["effective n"] == ""
