"""What foretells fine-tuned accuracy along a trajectory, for the tables of docs/scores.md.

    python -m tools.forecast RUN... [--out docs/forecasts.jsonl]

RUN: a folder of `ckptsel reproduce`, whose seeds were raced with every checkpoint to the end. For each
seed and target, and each checkpoint, in the order of training:

    epoch, source accuracy      of the files
    linear_probe, logme, ...    of the ranking, at the last layer
    ridge_probe at last, ...    held-out accuracy there, at all layers, and at the best one of each
    first rung                  fine-tuned accuracy after a ninth of the steps, the race's first rung
    gradients                   `gradient_alignment`

beside the accuracy that each reached (mean of the training seeds), and CPU seconds a checkpoint. A
trajectory that stands in the file is not measured again. `python -m tools.run_tables` writes the tables.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.confirmation.confirm import confirm_ranking
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.files import read_ranking
from ckptsel.results.ranking import Ranking
from ckptsel.settings.confirm import make_confirm_settings
from ckptsel.settings.rank import make_settings
from tools.json_lines import add_line, read_lines
from tools.run_tables import FORECASTS

N_SKETCH, SEED = 8192, 0


def main() -> None:
    """Measure the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=FORECASTS)
    options = parser.parse_args()
    known = {line["name"] for line in read_lines(options.out)}
    for run in options.runs:
        for raced in sorted(run.glob("seed*/*/confirm.json")):
            seed, target = raced.parent.parent, raced.parent.name
            name = f"{run.name} {seed.name} {target}"
            if name not in known:
                measured = measure(seed, run / "targets" / target, raced.parent)
                add_line(options.out, {"name": name, **measured})


def measure(seed: Path, data: Path, raced: Path) -> dict[str, Any]:
    """Every series of one trajectory and target, each in the order of training."""
    rows = sorted(read_ranking(raced)[0], key=lambda row: row.order)
    series: dict[str, Sequence[float]] = {
        "epoch": [float(row.epoch or 0) for row in rows],
        "source accuracy": [float(row.source_accuracy or 0) for row in rows],
    }
    series |= {score: [row.scores[score].value for row in rows] for score in rows[0].scores}
    names = [row.name for row in rows]
    every = ckptsel.rank(seed / "checkpoints", data, layers="auto", by="ridge_probe", quiet=True)
    ridge = {(row.checkpoint, row.layer): row.scores["ridge_probe"].value for row in every}
    layers = {layer for _, layer in ridge}
    for layer in ("last", "all"):
        series[f"ridge_probe at {layer}"] = [ridge[n, layer] for n in names]
    series["ridge_probe at the best layer"] = [max(ridge[n, at] for at in layers) for n in names]
    fine_tuned = trained(raced)
    steps = sorted(fine_tuned[names[0]])
    series["first rung"] = [fine_tuned[n][steps[0]] for n in names]
    series["gradients"] = list(alignments(seed / "checkpoints", data, names))
    return {
        "reached": [fine_tuned[n][steps[-1]] for n in names],
        "series": series,
        "cpu_s": costs(seed / "checkpoints", data, names, steps[0]),
    }


def costs(checkpoints: Path, data: Path, names: Sequence[str], n_steps: int) -> dict[str, float]:
    """CPU seconds a checkpoint, nothing read from a cache; of one training seed for the first rung."""
    ranked: list[Ranking] = []

    def rank(**options: Any) -> None:
        ranked.append(ckptsel.rank(checkpoints, data, cache=False, quiet=True, **options))

    def first_rung() -> None:
        options = {"goal": "ft", "n_candidates": 2, "n_seeds": 1, "steps": n_steps, "cache": False}
        confirm_ranking(ranked[0], make_confirm_settings({**options, "lr": (0.01,), "full": True}))

    return {
        "scores of the last layer": _cpu_s(rank) / len(names),
        "ridge_probe at all": _cpu_s(
            lambda: rank(layers="all", by="ridge_probe", scores="ridge_probe")
        )
        / len(names),
        "gradients": _cpu_s(lambda: list(alignments(checkpoints, data, names[:2]))) / 2,
        "first rung": _cpu_s(first_rung) / 2,
    }


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def trained(raced: Path) -> dict[str, dict[int, float]]:
    """Fine-tuned accuracy of each checkpoint after the steps of each rung, mean of the seeds."""
    arrays = load_file(raced / "confirm.safetensors")
    found: dict[str, dict[int, float]] = {}
    for key, predictions in arrays.items():
        goal, *place = key.split("/")
        if goal == "ft" and len(place) == 2:
            accuracy = float((predictions == arrays["ft/labels"]).mean())
            found.setdefault(place[0], {})[int(place[1])] = accuracy
    return found


def alignments(checkpoints: Path, data: Path, names: Sequence[str]) -> Iterator[float]:
    """`gradient_alignment` of each checkpoint on the fitted images of the target."""
    found = {c.name: c for c in scan_checkpoints(checkpoints) if c.problem is None}
    settings = make_settings({"device": "cpu"})
    workspace = open_workspace(settings, list(found.values()), str(data), quiet=True)
    images, labels = _fitted(workspace)
    for name in names:
        workspace.load(found[name])
        yield gradient_alignment(workspace.encoder, images, labels)


def _fitted(workspace: Workspace) -> tuple[Tensor, Tensor]:
    plan = workspace.target.evaluation
    samples = np.concatenate(workspace.prepared())[plan.fit_part]
    return torch.from_numpy(samples), torch.from_numpy(workspace.target.labels[plan.fit_part])


def gradient_alignment(encoder: Any, images: Tensor, labels: Tensor) -> float:
    """Cosine between the centred Gram matrices (n, n) of the images' gradients and of one-hot labels.

    A gradient is that of one random linear read-out of the features for all weights of the network,
    folded by random signs into N_SKETCH numbers, which keeps inner products on average (Charikar, Chen
    & Farach-Colton 2002).
    """
    encoder.to("cpu")
    weights = [weight for weight in encoder.module.parameters() if weight.requires_grad]
    random = torch.Generator().manual_seed(SEED)
    n = sum(weight.numel() for weight in weights)
    places = torch.randint(N_SKETCH, (n,), generator=random)
    signs = 2.0 * torch.randint(2, (n,), generator=random) - 1
    sketches = []
    read_out: Tensor | None = None
    for image in images.split(1):
        features = encoder.features(image, ("last",))["last"]
        if read_out is None:
            read_out = torch.randn(features.shape[1], generator=random)
        gradients = torch.autograd.grad((features @ read_out).sum(), weights, allow_unused=True)
        flat = torch.cat(
            [
                torch.zeros(w.numel()) if g is None else g.flatten()
                for w, g in zip(weights, gradients, strict=True)
            ]
        )
        sketches.append(torch.zeros(N_SKETCH).index_add_(0, places, flat * signs))
    return _alignment(torch.stack(sketches).double(), nn.functional.one_hot(labels).double())


def _alignment(one: Tensor, other: Tensor) -> float:
    one, other = one - one.mean(0), other - other.mean(0)
    a, b = one @ one.T, other @ other.T
    return float((a * b).sum() / (a.norm() * b.norm()))


if __name__ == "__main__":
    main()
