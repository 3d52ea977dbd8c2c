"""Protocols: budgets, schedules, and the paper's presets."""

import itertools
from typing import get_args

import pytest

from ckptsel.confirmation.protocols import DEFAULTS, TrainingPlan, make_protocol
from ckptsel.errors import UsageError
from ckptsel.settings.confirm import Augmentation
from ckptsel.training.loop import AUGMENTATIONS


def rates(protocol: TrainingPlan) -> list[float]:
    return [protocol.rate_factor(step) for step in range(protocol.n_steps)]


def test_a_cosine_starts_anew_at_each_rung() -> None:
    protocol = TrainingPlan("ft", n_steps=90, lrs=(0.1,))
    assert protocol.rungs == (10, 30, 90)
    factors = rates(protocol)
    assert [step for step, factor in enumerate(factors) if factor == 1] == [0, 10, 30]
    assert all(factors[rung - 1] < 0.03 for rung in protocol.rungs)
    assert [factors[5], factors[20], factors[60]] == pytest.approx([0.5] * 3)


def test_steps_divide_by_ten_after_each_third() -> None:
    protocol = TrainingPlan("ft", n_steps=90, lrs=(0.1,), schedule="step")
    assert protocol.rungs == (30, 60, 90)
    expected = [1] * 30 + [0.1] * 30 + [0.01] * 30
    assert rates(protocol) == pytest.approx(expected)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 480])
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_every_budget_ends_at_its_last_rung(n_steps: int, schedule: str) -> None:
    protocol = TrainingPlan("fe", n_steps=n_steps, lrs=(0.1,), schedule=schedule)
    assert protocol.rungs[-1] == n_steps and protocol.rungs[0] >= 1
    assert set(protocol.rungs) <= set(protocol.curve_steps(100))
    assert len(protocol.curve_steps(100)) <= 13
    assert all(0 < factor <= 1 for factor in rates(protocol))


def test_the_papers_settings() -> None:
    """Deng et al., section 3.3."""
    for goal in ("fe", "ft"):
        cifar = make_protocol(
            goal, n_fitted=1000, image_size=32, preset="paper-cifar", batch_size=100
        )
        assert (cifar.n_steps, cifar.optimizer, cifar.lrs) == (150 * 10, "adam", (0.1,))
        assert cifar.rungs == (50 * 10, 100 * 10, 150 * 10)
    for preset, goal, n_steps, lr in (
        ("paper-natural", "fe", 6000, 0.01),
        ("paper-natural", "ft", 9000, 0.1),
        ("paper-cxr", "fe", 1000, 0.001),
        ("paper-cxr", "ft", 1000, 0.01),
    ):
        protocol = make_protocol(goal, n_fitted=5000, image_size=224, preset=preset)
        assert (protocol.n_steps, protocol.lrs) == (n_steps, (lr,))
        assert not protocol.scale_features


def test_what_is_asked_for_comes_before_defaults_and_presets() -> None:
    protocol = make_protocol("ft", 640, 224, "paper-natural", epochs=3, lrs=(0.5,), optimizer="sgd")
    assert (protocol.n_steps, protocol.lrs, protocol.optimizer) == (30, (0.5,), "sgd")
    assert protocol.augment == ("resized_crop", "flip")
    assert make_protocol("ft", 640, 28, augment=("none",)).augment == ()
    # Mirrored digits are other digits.
    assert make_protocol("ft", 640, 28).augment == ("crop",)
    assert make_protocol("ft", 20, 28).batch_size == 20


def test_the_default_grid_has_values_a_decade_apart() -> None:
    for goal in ("fe", "ft"):
        lrs = make_protocol(goal, 1000, 32).lrs
        assert len(lrs) >= 3
        assert [b / a for a, b in itertools.pairwise(lrs)] == pytest.approx([10] * 3)


def test_the_settings_know_the_augmentations() -> None:
    assert set(get_args(Augmentation)) == {*AUGMENTATIONS, "none"}


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UsageError, match="unknown preset 'cifar'. Known: paper-cifar"):
        make_protocol("ft", 100, 32, preset="cifar")


@pytest.mark.parametrize("n_held", [100, 2000, 4000, 10_000, 10**6])
def test_a_curve_costs_a_quarter_of_the_steps(n_held: int) -> None:
    """Its points, without the ends of rungs, which the race needs. A frozen layer reads for nothing."""
    tuned, frozen = DEFAULTS["ft"], DEFAULTS["fe"]
    between = set(tuned.curve_steps(n_held)) - set(tuned.rungs)
    assert len(between) * n_held <= 3 / 4 * tuned.n_steps * tuned.batch_size
    assert set(tuned.rungs) <= set(tuned.curve_steps(n_held))
    assert len(between) > 0 or n_held > 10_000
    assert frozen.curve_steps(n_held) == frozen.curve_steps(1)
