"""The probe beside scikit-learn's best over a wide grid of C on standardised features, and on the
main and residual components of the same features, over several hundred made cases and on the
features of six networks: as they are made, and after a few steps of training.

The cases and the peer are those of `python -m tools.probe_peers`, whose results docs/probe.md has.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tools.probe_cases import (
    NETWORKS,
    SIZES,
    Case,
    made_cases,
    make,
    network_cases,
    network_features,
)
from tools.probe_peers import compare, is_level, views_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
LEVEL = 0.8
"""Share of cases that must be level: what is chosen by few images is chance besides the error of the
images that are read, on both sides alike; scikit-learn itself is level with ours in fewer."""

pytestmark = pytest.mark.slow


def compare_all(cases: list[Case], features_of) -> dict[str, list[dict]]:
    """Records by view."""
    records: dict[str, list[dict]] = {}
    for case in cases:
        features, labels = features_of(case)
        for record in compare(features, labels, case.n, views_of(case), paper=False):
            print(case.name, record["view"], record["accuracy"], record["peer"], record["C"])
            records.setdefault(record["view"], []).append(record)
    return records


def hold(records: dict[str, list[dict]]) -> None:
    """On the whole not behind, and nearly everywhere level or ahead."""
    for view, some in records.items():
        ahead = np.array([record["peer"]["ahead"] for record in some])
        within = np.hypot.reduce([record["peer"]["error"] for record in some]) / len(some)
        error = max(within, ahead.std(ddof=1) / np.sqrt(len(some))) if len(some) > 1 else within
        assert ahead.mean() >= -max(0.005, 2 * error), view
        assert np.mean([is_level(record["peer"]) for record in some]) >= LEVEL, view


@cache
def cases_of(family: str) -> list[Case]:
    return [case for case in made_cases() if case.family == family]


@pytest.mark.parametrize("family", [*SIZES, "corners"])
def test_on_made_features_the_probe_is_as_good_as_scikit_learns(family: str) -> None:
    hold(compare_all(cases_of(family), make))


@pytest.mark.skipif(not DATA.is_dir(), reason="CIFAR-10 is not there")
@pytest.mark.parametrize("network", NETWORKS)
def test_on_features_of_networks_the_probe_is_as_good_as_scikit_learns(network: str) -> None:
    cases = [case for case in network_cases() if case.kind == network]
    hold(compare_all(cases, lambda case: network_features(case, DATA)))
