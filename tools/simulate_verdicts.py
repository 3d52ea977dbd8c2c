"""How often the gate passes, fails and cannot tell, by how far the truth is from the limit.

    python -m tools.simulate_verdicts        # prints the table of docs/coverage.md

Made candidates as in `tools.simulate_intervals`: eight, of which one is better than the others by two
standard errors, an accuracy of 90 %, half of an image's difficulty shared. The truth is on the good side
of the limit by so many standard errors of one accuracy, or, below zero, on its bad side. The regret is
that of one of the others.
"""

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ckptsel.gating.gate import CANNOT_TELL, FAIL, PASS
from ckptsel.ranking.judgement import judge
from ckptsel.results.estimate import Estimate
from tools.simulate_intervals import Cell, draw

N_IMAGES = (100, 400, 2000)
DISTANCES = (-4, -2, -1, 0, 1, 2, 4)
N_SAMPLES = 500


def verdict(low: float, high: float) -> str:
    """Of a margin that must not lie below zero."""
    return PASS if low >= 0 else FAIL if high < 0 else CANNOT_TELL


def verdicts(cell: Cell, n_samples: int) -> Iterator[tuple[str, int, str]]:
    """(policy, distance, verdict) of each sample."""
    error = float(np.sqrt(cell.accuracy * (1 - cell.accuracy) / cell.n_images))
    for n in range(n_samples):
        generator = np.random.default_rng((cell.n_images, n))
        readings, true = draw(cell, generator)
        judged = judge(readings, seed=n)
        new, behind, regret = judged.on_new_images, judged.behind_best[-1], true.max() - true[-1]
        assert new is not None
        for distance in DISTANCES:
            least = float(true[judged.chosen]) - distance * error
            most = float(regret) + distance * error
            if least <= 1:
                yield "min-accuracy", distance, _of_least(new, least)
            if most >= 0:
                yield "max-regret", distance, _of_most(behind, most)


def _of_least(estimate: Estimate, limit: float) -> str:
    low, high = estimate.bounds
    return verdict(low - limit, high - limit)


def _of_most(estimate: Estimate, limit: float) -> str:
    low, high = estimate.bounds
    return verdict(limit - high, limit - low)


def table(n_samples: int = N_SAMPLES) -> Iterator[str]:
    """Markdown: pass / cannot tell / fail, in % of samples."""
    heads = ["policy", "images", *(f"{d:+d} errors" if d else "at the limit" for d in DISTANCES)]
    yield f"| {' | '.join(heads)} |"
    yield "|" + " --- |" * len(heads)
    counts = {
        n: Counter(verdicts(Cell("hold-out", 8, n, 0.9, 0.5, "one better"), n_samples))
        for n in N_IMAGES
    }
    for policy in ("min-accuracy", "max-regret"):
        for n in N_IMAGES:
            rates = [_rates(counts[n], policy, distance) for distance in DISTANCES]
            yield f"| {policy} | {n} | {' | '.join(rates)} |"


def _rates(counts: Counter[tuple[str, int, str]], policy: str, distance: int) -> str:
    found = [counts[policy, distance, decision] for decision in (PASS, CANNOT_TELL, FAIL)]
    return " / ".join(f"{100 * n / sum(found):.0f}" for n in found) if any(found) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=N_SAMPLES)
    for line in table(parser.parse_args().samples):
        print(line)


if __name__ == "__main__":
    main()
