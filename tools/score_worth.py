"""What the scores that are not computed by default cost, and what they were worth on the shipped
trajectory, as rows of a table of docs/scores.md.

    python -m tools.score_worth [--data-root DATA | --times]

Worth: Kendall's tau with its interval (`ckptsel.confirmation.agreement`) between a score of the 14
shipped checkpoints and their accuracy after real training, mean of three training seeds
(`raw/transfers.csv`): on the shipped target, and where DATA holds `cifar100` on the other one too.
Cost (`--times`): seconds of each score by itself on made features, five-fold cross-validation, one
thread (CPU time); median of three.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import ckptsel
from ckptsel.common.streams import put
from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.reproduce.cifar10_mnist import CIFAR100_2000
from ckptsel.reproduce.results import load_results
from ckptsel.reproduce.run import write_target
from ckptsel.scores import ScoreInputs, known_scores
from ckptsel.target.splits import plan_cross_validation

RUN = Path("reference_runs/cifar10-mnist-small")
SHIPPED = "mnist-1000"
SIZES = ((2_000, 128, 10), (10_000, 512, 10))
"""(images, dimensions, classes)"""

N_TIMES = 3


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        targets = [RUN / "targets" / SHIPPED]
        if options.data_root is not None:
            targets.append(Path(temporary) / CIFAR100_2000.name)
            write_target(CIFAR100_2000, targets[-1], options.data_root)
        rows = cost_rows() if options.times else worth_rows(targets)
        for row in rows:
            put(f"{row}\n")


def worth_rows(targets: Sequence[Path]) -> Iterator[str]:
    """A row a score: `| score | tau with frozen features, with fine-tuning | ... |` of each target."""
    cells: dict[str, list[str]] = {}
    for target in targets:
        # The cheapest that may decide: a probe would take most of the time.
        ranking = ckptsel.rank(RUN / "seed0/checkpoints", target, by="lda", scores=names())
        for name, taus in worth(ranking, target.name).items():
            cells.setdefault(name, []).extend(taus)
    for name, taus in cells.items():
        yield f"| `{name}` | " + " | ".join(taus) + " |"


def names() -> list[str]:
    """The scores that are not computed by default."""
    return [name for name, score in known_scores().items() if not score.by_default]


def worth(ranking: ckptsel.Ranking, target: str) -> dict[str, list[str]]:
    """Tau of each score with frozen features and with fine-tuning, in words."""
    rows = sorted(ranking, key=lambda row: row.order)
    series = {name: np.array([row.scores[name].value for row in rows]) for name in rows[0].scores}
    epochs = [int(row.epoch or 0) for row in rows]
    found: dict[str, list[str]] = {name: [] for name in series}
    for goal in ("fe", "ft"):
        for name, agreement in measure_agreement(series, trained(target, goal, epochs)).items():
            tau = agreement.kendall_tau
            shown = "" if tau is None else f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
            found[name].append(shown)
    return found


def trained(target: str, goal: str, epochs: Sequence[int]) -> np.ndarray:
    """Accuracy after real training of each epoch's checkpoint, mean over training seeds."""
    found: dict[int, list[float]] = {}
    for row in load_results(RUN).rows("transfers", target=target, seed=0, goal=goal):
        found.setdefault(row["epoch"], []).append(float(row["accuracy"]))
    return np.array([np.mean(found[epoch]) for epoch in epochs])


def cost_rows() -> Iterator[str]:
    """`| score | seconds of the first size | of the second |`, that of linear_probe last."""
    torch.set_num_threads(1)
    for name in (*names(), "linear_probe"):
        taken = [
            statistics.median(seconds_of(name, *size, seed) for seed in range(N_TIMES))
            for size in SIZES
        ]
        yield f"| `{name}` | " + " | ".join(f"{seconds:.2g} s" for seconds in taken) + " |"


def seconds_of(name: str, n: int, d: int, n_classes: int, seed: int) -> float:
    """CPU seconds of a score by itself, its spectra included."""
    inputs = made_inputs(n, d, n_classes, seed)
    start = time.process_time()
    known_scores()[name].compute(inputs)
    return time.process_time() - start


def made_inputs(n: int, d: int, n_classes: int, seed: int) -> ScoreInputs:
    """Features as a rectifier leaves them, with some signal."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = 0.25 * random.standard_normal((n_classes, d))
    features = np.maximum(random.standard_normal((n, d)) + centres[labels], 0)
    return ScoreInputs(features.astype(np.float32), labels, plan_cross_validation(labels, seed=0))


if __name__ == "__main__":
    main()
