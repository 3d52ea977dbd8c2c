"""How differently probes order related checkpoints: `python -m tools.probe_rankings --out FILE`.

The 14 shipped checkpoints on the shipped target: fitted on 100 of its training images (three draws)
and on all 1,000 (two seeds of folds and initial weights), read on its 2,000 held-out images. Three
probes see the same features: ours, the paper's, and scikit-learn's (`tools.probe_peers`). A line of
JSON for each checkpoint goes to FILE; those that are there are not computed again.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.features.candidate import candidates_of
from ckptsel.ranking.audit import audit
from ckptsel.ranking.workspace import open_workspace
from ckptsel.scores import ScoreInputs
from ckptsel.settings.rank import make_settings
from ckptsel.target.splits import plan_validation, stratified_sample
from tools.json_lines import add_line, read_lines
from tools.probe_peers import peer_of

RUN = Path("reference_runs/cifar10-mnist-small")
SAMPLES = ((100, 0), (100, 1), (100, 2), (1000, 0), (1000, 1))
"""(images that are fitted on, seed)"""


PAIRS = (
    ("ours", "scikit-learn"),
    ("ours", "scikit-learn by accuracy"),
    ("ours", "paper"),
    ("scikit-learn", "paper"),
    ("scikit-learn", "scikit-learn by accuracy"),
)


def features_of_checkpoints() -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], int]:
    """Features (N, D) by name, training images first; labels (N,); how many are for training."""
    settings = make_settings({})
    found = scan_checkpoints(RUN / "seed0" / "checkpoints", settings.weights)
    workspace = open_workspace(settings, found, str(RUN / "targets" / "mnist-1000"), quiet=True)
    candidates = candidates_of(audit(found, workspace), workspace.encoder.layers)
    features = {one.name: workspace.features(one) for one in candidates}
    return features, workspace.target.labels, len(workspace.target.evaluation.fit_part)


def correct_of(
    features: NDArray[np.float32], labels: NDArray[np.int64], n: int, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """Which of the held-out images each probe gets right."""
    plan = plan_validation(n, len(labels) - n)
    peer = peer_of(features.astype(np.float64), labels, n, "all", seed)
    found = {
        name: ScoreInputs(features, labels, plan, probe=probe, seed=seed).held_out("all")
        for name, probe in (("ours", "logistic"), ("paper", "paper"))
    }
    return {
        **{name: one.predictions[0] == labels[n:] for name, one in found.items()},
        "scikit-learn": peer.correct[peer.chosen_by_log_likelihood()],
        "scikit-learn by accuracy": peer.correct[peer.chosen_by_accuracy()],
    }


def run(out: Path) -> None:
    features, labels, n_train = features_of_checkpoints()
    done = {(line["n"], line["seed"], line["checkpoint"]) for line in read_lines(out)}
    for (n, seed), name in itertools.product(SAMPLES, features):
        if (n, seed, name) in done:
            continue
        fitted = stratified_sample(labels[:n_train], n, seed)
        rows = np.r_[fitted, n_train : len(labels)]
        correct = correct_of(features[name][rows], labels[rows], n, seed)
        line: dict[str, Any] = {"n": n, "seed": seed, "checkpoint": name}
        line["correct"] = {key: np.packbits(bits).tobytes().hex() for key, bits in correct.items()}
        add_line(out, line)
        print(
            n,
            seed,
            name,
            *(f"{key} {100 * b.mean():.1f}" for key, b in correct.items()),
            flush=True,
        )


def _bits(text: str) -> NDArray[np.float64]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(float)


def rows(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: for each pair of probes, how their orders differ."""
    yield (
        "| images, seed | probes | accuracy | tau | discordant pairs | of those clear in both "
        "| the first's best, behind the second's best by the second |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for n, seed in SAMPLES:
        some = [line for line in lines if (line["n"], line["seed"]) == (n, seed)]
        if not some:
            continue
        for one, other in PAIRS:
            a, b = (
                np.stack([_bits(line["correct"][name]) for line in some]) for name in (one, other)
            )
            yield _row(f"{n}, {seed}", f"{one} / {other}", a, b)


def _row(sample: str, names: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    """a, b: (checkpoints, images), 1 where right."""
    discordant, both_clear, clear_discordant = 0, 0, 0
    pairs = list(itertools.combinations(range(len(a)), 2))
    for i, j in pairs:
        ways = [_way(probe[i] - probe[j]) for probe in (a, b)]
        means = [(probe[i] - probe[j]).mean() for probe in (a, b)]
        differs = means[0] * means[1] < 0
        discordant += differs
        both_clear += all(ways)
        clear_discordant += all(ways) and differs
    mean_a, mean_b = a.mean(1), b.mean(1)
    behind = 100 * (mean_b.max() - mean_b[mean_a.argmax()])
    tau = kendalltau(mean_a, mean_b).statistic
    return (
        f"| {sample} | {names} | {100 * mean_a.mean():.1f} / {100 * mean_b.mean():.1f} | {tau:.2f} "
        f"| {discordant} of {len(pairs)} | {clear_discordant} of {both_clear} | {behind:.1f} |"
    )


def _way(difference: NDArray[np.float64]) -> bool:
    """Whether a difference on the same images is more than two standard errors from nil."""
    return bool(abs(difference.mean()) > 2 * difference.std() / np.sqrt(len(difference)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.table:
        run(arguments.out)
    print("\n".join(rows(read_lines(arguments.out))))


if __name__ == "__main__":
    main()
