"""What foretells fine-tuned accuracy along a trajectory, as rows of a table of docs/scores.md.

    python -m tools.forecast RUN... --out forecasts.jsonl
    python -m tools.forecast --out forecasts.jsonl

RUN: a folder of `ckptsel reproduce`, whose seeds were raced with every checkpoint to the end. For each
seed and target, and each checkpoint, in the order of training:

    epoch, source accuracy      of the files
    linear_probe, logme, ...    of the ranking, at the last layer
    ridge at last, at all       held-out accuracy of `ridge_probe` there
    best of all layers          the highest `ridge_probe` of any layer
    first rung                  fine-tuned accuracy after a ninth of the steps, the race's first rung
    gradients                   `gradient_alignment`

and how each goes with fine-tuned accuracy (mean of the training seeds): tau, Pearson's r, and how far
the checkpoint that it picks is behind the best. A trajectory that stands in the file is not measured
again. Without RUN the table of the file is printed: mean over trajectories, and the 95 % interval of
Student's t, for seeds are independent and the checkpoints of one are not.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import stats
from torch import Tensor, nn

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.common.streams import put
from ckptsel.confirmation.agreement import pearson_r
from ckptsel.ranking.correlation import kendall_tau
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.files import read_ranking
from ckptsel.settings.rank import make_settings
from tools.json_lines import add_line, read_lines

Values = NDArray[np.float64]

N_SKETCH, SEED = 8192, 0


def main() -> None:
    """Measure the runs that are named, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = read_lines(options.out)
    if not options.runs:
        put("".join(f"{row}\n" for row in table(lines)))
        return
    known = {line["name"] for line in lines}
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
    series |= {f"ridge at {layer}": [ridge[n, layer] for n in names] for layer in ("last", "all")}
    series["best of all layers"] = [max(ridge[n, layer] for layer in layers) for n in names]
    fine_tuned = trained(raced)
    steps = sorted(fine_tuned[names[0]])
    series["first rung"] = [fine_tuned[n][steps[0]] for n in names]
    series["gradients"] = list(alignments(seed / "checkpoints", data, names))
    return {"fine_tuned": [fine_tuned[n][steps[-1]] for n in names], "series": series}


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


def table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: for each preset and target a row for each forecast, the best tau first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        preset, _, target = line["name"].split()
        groups.setdefault((preset, target), []).append(line)
    yield "| trajectories, target | n | forecast | tau | r | behind the best, points |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for (preset, target), some in groups.items():
        worth = {name: [_worth(line, name) for line in some] for name in some[0]["series"]}
        for name in sorted(worth, key=lambda name: -np.mean([tau for tau, _, _ in worth[name]])):
            columns = zip(*worth[name], strict=True)
            cells = [_mean(each, *bounds) for each, bounds in zip(columns, BOUNDS, strict=True)]
            yield f"| {preset}, {target} | {len(some)} | {name} | " + " | ".join(cells) + " |"


def _worth(line: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """(tau, r, points behind) of one forecast on one trajectory."""
    x, y = np.array(line["series"][name]), np.array(line["fine_tuned"])
    return kendall_tau(x, y), pearson_r(x, y), 100 * float(y.max() - y[x.argmax()])


BOUNDS = ((-1, 1), (-1, 1), (0, 100))
"""Of tau, of r, and of points."""


def _mean(values: Sequence[float], lowest: float, highest: float) -> str:
    """With the interval of Student's t, of two values or more, as far as there can be values."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return f"{mean:.2f}"
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5
    return f"{mean:.2f} [{max(mean - half, lowest):.2f}, {min(mean + half, highest):.2f}]"


if __name__ == "__main__":
    main()
