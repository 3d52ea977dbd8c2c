"""Whether the best lies behind: a measured lead, and a chance by a rule of thumb."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import ndtri

from ckptsel.ranking.judgement import Readings
from ckptsel.ranking.order import order_rows
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.scores import ScoreResult
from ckptsel.watching.peak import N_LAST, UNLIKELY, Peak, chance_of_passing, find_peak
from tests.conftest import ABOUT

N_IMAGES = 1500


def answers(accuracies: Sequence[float], seed: int = 0) -> np.ndarray:
    """(checkpoint, image): right or not. What makes an image hard is shared."""
    random = np.random.default_rng(seed)
    shared, own = (
        random.standard_normal(N_IMAGES),
        random.standard_normal((len(accuracies), N_IMAGES)),
    )
    level = ndtri(np.asarray(accuracies))[:, None]
    return (np.sqrt(0.7) * shared + np.sqrt(0.3) * own < level).astype(float)


def row(i: int, layer: str = "last") -> Row:
    name = f"c{i}" if layer == "last" else f"c{i}@{layer}"
    return Row(name, name, str(i), i, i + 1, None, "file", None, "ckptsel", "ok", layer=layer)


def ranked(values: np.ndarray, score: str = "linear_probe", lower: bool = False):
    """A ranking by a score, and its arrays."""
    rows = [row(i) for i in range(len(values))]
    unit = "accuracy" if score == "linear_probe" else "nats"
    results = {
        r.name: {score: ScoreResult(float(v.mean()), per_image=v)}
        for r, v in zip(rows, values, strict=True)
    }
    lowest = (score,) if lower else ()
    ordered = order_rows(rows, results, {score: unit}, score, 500, 0, lowest)
    ranking = Ranking(
        goal="fe",
        score=score,
        checkpoints=tuple(ordered.rows),
        best=ordered.rows[0].name,
        tie_set=(),
        references={},
        notes=(),
        environment={},
        time_s={},
        created="",
        version=None,
        units={score: unit},
        lower_is_better=lowest,
        **ABOUT,
    )
    arrays = {f"{r.name}/{score}/per_image": v for r, v in zip(rows, values, strict=True)}
    return ranking, arrays


FALLING = [0.70, 0.80, 0.90, 0.84, 0.83, 0.83, 0.82, 0.82, 0.81, 0.80]
RISING = list(np.linspace(0.7, 0.9, 10))


def test_a_peak_that_is_past() -> None:
    peak = find_peak(*ranked(answers(FALLING)))
    assert peak is not None and peak.is_past and (peak.best, peak.label) == ("c2", "epoch 3")
    assert peak.lead.value == pytest.approx(0.08, abs=0.02)
    assert 0 < peak.lead.low < peak.lead.value < peak.lead.high
    assert peak.text.startswith("epoch 3 is ahead of the last 5 by ")
    assert "below 1 %, so the peak is past (the chance is a rule of thumb)" in peak.text


def test_nothing_is_said_before_five_came_after_the_best() -> None:
    assert find_peak(*ranked(answers(RISING))) is None
    assert find_peak(*ranked(answers(FALLING[: 2 + N_LAST]))) is None
    assert find_peak(*ranked(answers(FALLING[: 3 + N_LAST]))) is not None


def test_a_lead_of_nothing_is_no_peak() -> None:
    """The best of equals is the luckiest."""
    past = 0
    for seed in range(20):
        peak = find_peak(*ranked(answers([0.8] * 12, seed)))
        past += peak is not None and peak.is_past
    assert past <= 1


def test_both_the_lead_and_the_chance_must_speak_for_it() -> None:
    def is_past(low: float, chance: float) -> bool:
        return Peak("c", "c", Estimate(0.02, low, 0.04), chance, True, "accuracy").is_past

    assert is_past(0.01, 0.04)
    assert not is_past(0.01, 0.06) and not is_past(-0.01, 0.04)


def test_what_rises_again_after_the_best_may_pass_it() -> None:
    values = [0.86, 0.70, 0.74, 0.77, 0.79, 0.81, 0.82]
    peak = find_peak(*ranked(answers(values)))
    assert peak is not None and peak.lead.low > 0
    assert peak.chance > 0.5 and not peak.is_past and "so the peak" not in peak.text


def test_the_chance_falls_with_the_lead_and_with_the_slope() -> None:
    def chance(best: float, slope: float) -> float:
        later = [0.8 + slope * np.log1p(i) for i in range(1, 9)]
        readings = Readings(answers([best, *later])[:, None])
        return chance_of_passing(readings, 0, list(range(1, 10)))

    assert chance(0.80, 0) > 0.5 > chance(0.88, 0) > chance(0.95, 0)
    assert chance(0.90, 0.03) > chance(0.90, 0) >= chance(0.90, -0.01)
    assert chance(0.95, 0) < UNLIKELY


def test_losses_and_other_layers() -> None:
    random = np.random.default_rng(0)
    losses = np.array([2, 1, 1.6, 1.6, 1.7, 1.7, 1.7, 1.8])[:, None]
    peak = find_peak(*ranked(losses + 0.3 * random.standard_normal((8, 400)), "loss", lower=True))
    assert peak is not None and peak.best == "c1" and peak.is_past
    assert peak.lead.value == pytest.approx(0.6, abs=0.05) and " nats [" in peak.text
    ranking, arrays = ranked(answers(FALLING))
    elsewhere = [dataclasses.replace(row(i, "all"), rank=11 + i) for i in range(10)]
    both = dataclasses.replace(ranking, checkpoints=(*ranking.checkpoints, *elsewhere))
    assert find_peak(both, arrays) == find_peak(ranking, arrays)


def test_an_order_that_nothing_measured_has_no_peak() -> None:
    ranking, arrays = ranked(answers(FALLING))
    rows = tuple(dataclasses.replace(r, p_best=None) for r in ranking)
    assert find_peak(dataclasses.replace(ranking, checkpoints=rows), arrays) is None


def test_steps_that_tell_nothing_give_no_certainty() -> None:
    readings = Readings(answers(FALLING)[:, None])
    assert chance_of_passing(readings, 2, [7] * 10) == 1
    assert chance_of_passing(readings, 7, list(range(10))) == 1
