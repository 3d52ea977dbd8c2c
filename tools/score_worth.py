"""What each score costs and what it was worth on the shipped trajectory, as the rows of a table of
docs/scores.md: `python -m tools.score_worth`.

Worth: Kendall's tau with its interval (`ckptsel.confirmation.agreement`) between a score of the 14
shipped checkpoints on the shipped target and their accuracy after real training, mean of three
training seeds (`raw/transfers.csv`). Cost (`--times`): seconds of each score by itself on made
features, five-fold cross-validation, one thread; median of three, and of one for the larger size.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import ckptsel
from ckptsel.common.streams import put
from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.reproduce.results import load_results
from ckptsel.scores import ScoreInputs, known_scores
from ckptsel.target.splits import plan_cross_validation

RUN = Path("reference_runs/cifar10-mnist-small")
TARGET = "mnist-1000"
SIZES = ((2_000, 128, 10, 3), (10_000, 512, 10, 1))
"""(images, dimensions, classes, times)"""


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", action="store_true")
    rows = cost_rows() if parser.parse_args().times else worth_rows(rank_shipped())
    put("".join(f"{row}\n" for row in rows))


def rank_shipped() -> ckptsel.Ranking:
    """All scores of the shipped checkpoints."""
    return ckptsel.rank(RUN / "seed0/checkpoints", RUN / "targets" / TARGET, scores=["all"])


def worth_rows(ranking: ckptsel.Ranking) -> Iterator[str]:
    """`| score | tau with frozen features | tau with fine-tuning |`, a row a score."""
    rows = sorted(ranking, key=lambda row: row.order)
    series = {name: np.array([row.scores[name].value for row in rows]) for name in rows[0].scores}
    epochs = [int(row.epoch or 0) for row in rows]
    agreed = {goal: measure_agreement(series, trained(goal, epochs)) for goal in ("fe", "ft")}
    for name in series:
        taus = [agreed[goal][name].kendall_tau for goal in ("fe", "ft")]
        cells = [f"{t.value:.2f} [{t.low:.2f}, {t.high:.2f}]" for t in taus if t is not None]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def trained(goal: str, epochs: list[int]) -> np.ndarray:
    """Accuracy after real training of each epoch's checkpoint, mean over training seeds."""
    found: dict[int, list[float]] = {}
    for row in load_results(RUN).rows("transfers", target=TARGET, seed=0, goal=goal):
        found.setdefault(row["epoch"], []).append(float(row["accuracy"]))
    return np.array([np.mean(found[epoch]) for epoch in epochs])


def cost_rows() -> Iterator[str]:
    """`| score | seconds of the first size | of the second |`, a row a score."""
    torch.set_num_threads(1)
    for name, score in known_scores().items():
        cells = []
        for n, d, n_classes, times in SIZES:
            taken = []
            for seed in range(times):
                inputs = made_inputs(n, d, n_classes, seed)
                start = time.perf_counter()
                score.compute(inputs)
                taken.append(time.perf_counter() - start)
            cells.append(f"{statistics.median(taken):.2g} s")
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def made_inputs(n: int, d: int, n_classes: int, seed: int) -> ScoreInputs:
    """Features as a rectifier leaves them, with some signal."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = 0.25 * random.standard_normal((n_classes, d))
    features = np.maximum(random.standard_normal((n, d)) + centres[labels], 0)
    return ScoreInputs(features.astype(np.float32), labels, plan_cross_validation(labels, seed=0))


if __name__ == "__main__":
    main()
