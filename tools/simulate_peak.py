"""How often the rule of `ckptsel watch` says that the peak is past, on made runs: `docs/watch.md`.

    python -m tools.simulate_peak

A run has 40 checkpoints, whose true accuracies follow a curve over the logarithm of the epoch, give or
take 0.8 points. After each it is asked whether the peak is past, as a watch does. A run counts once, at
the first time that it is said; it is wrong where a later checkpoint is truly better.
"""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ckptsel.ranking.judgement import Readings, compare_groups
from ckptsel.watching.peak import N_LAST, UNLIKELY, chance_of_passing

Values = NDArray[np.float64]

N_CHECKPOINTS, N_RUNS, WIGGLE, SHARED = 40, 100, 0.008, 0.7
"""SHARED: part of what makes an image hard that is the same for all checkpoints."""

CURVES: dict[str, Callable[[Values], Values]] = {
    "rises to the end": lambda x: 0.70 + 0.15 * x,
    "rises, then stays": lambda x: 0.70 + 0.15 * np.minimum(2 * x, 1),
    "rises, then falls": lambda x: 0.70 + 0.30 * np.minimum(x, 0.5) - 0.16 * np.maximum(x - 0.5, 0),
    "falls, then rises": lambda x: (
        0.80 - 0.05 * np.sin(np.pi * np.minimum(x / 0.7, 1)) + np.maximum(x - 0.7, 0) / 3
    ),
}
"""True accuracy, by how far the run has come, from 0 to 1."""


def first_said(truth: Values, right: Values) -> tuple[int, bool] | None:
    """(number of checkpoints, whether a later one is truly better) when the peak is first said to be
    past. truth: (n,). right: (n, n_images)."""
    for n in range(N_LAST + 1, len(truth) + 1):
        readings = Readings(right[:n, None])
        best, n_first = int(readings.means.argmax()), n - N_LAST
        if best >= n_first:
            continue
        last = n_first + int(readings.means[n_first:].argmax())
        if (compare_groups(readings, n_first, best, last).low or 0) <= 0:
            continue
        if chance_of_passing(readings, best, list(range(1, n + 1))) < UNLIKELY:
            return n, bool((truth[n:] > truth[best]).any())
    return None


def simulate(curve: Callable[[Values], Values], n_images: int) -> list[tuple[int, bool] | None]:
    """What `first_said` gives for each run."""
    random = np.random.default_rng(1)
    x = np.log(np.arange(1, N_CHECKPOINTS + 1)) / np.log(N_CHECKPOINTS)
    said = []
    for _ in range(N_RUNS):
        truth = curve(x) + WIGGLE * random.standard_normal(len(x))
        hard, own = random.standard_normal(n_images), random.standard_normal((len(x), n_images))
        level = np.sqrt(SHARED) * hard + np.sqrt(1 - SHARED) * own
        said.append(first_said(truth, (level < ndtri(truth)[:, None]).astype(float)))
    return said


def main() -> None:
    for name, curve in CURVES.items():
        for n_images in (300, 2000):
            found = [each for each in simulate(curve, n_images) if each is not None]
            n_wrong = sum(is_wrong for _, is_wrong in found)
            when = f", after {np.median([n for n, _ in found]):.0f} checkpoints" if found else ""
            sys.stdout.write(
                f"{name}, {n_images} images: said in {len(found)} of {N_RUNS} runs{when}; wrong in "
                f"{n_wrong}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
