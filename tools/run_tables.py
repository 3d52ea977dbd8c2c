"""The tables of the documentation that follow from `reference_runs/` and from `docs/forecasts.jsonl`.

    python -m tools.run_tables            # write each between its marks
    python -m tools.run_tables --check    # exit 1 where one is not current

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. Those of what scores are worth have for each
score the mean over pre-training seeds, and the 95 % interval of Student's t over them: seeds are
independent, the checkpoints of one are not.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.common.files import write_text
from ckptsel.common.streams import say
from ckptsel.confirmation.agreement import pearson_r
from ckptsel.ranking.correlation import kendall_tau
from ckptsel.reproduce.claims import mean_of_seeds
from ckptsel.reproduce.results import Results, load_results, prediction_key
from tools.json_lines import read_lines

Values = NDArray[np.float64]

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "reference_runs"
FORECASTS = ROOT / "docs/forecasts.jsonl"
"""What `python -m tools.forecast` measured, a line for each trajectory and target."""

BY_WIDTH_AND_DECAY = ("small-wide", "small", "small-decay", "small-full", "small-collapse")


def main() -> None:
    """Write the tables, or check that they are current."""
    stale = {p: text for p, text in pages().items() if p.read_text(encoding="utf-8") != text}
    if "--check" in sys.argv[1:]:
        for path in stale:
            say(f"{path} is not current. Run: python -m tools.run_tables")
        sys.exit(1 if stale else 0)
    for path, text in stale.items():
        write_text(path, text)


def pages() -> dict[Path, str]:
    """Each page with its tables as they are to be."""
    forecasts = read_lines(FORECASTS)
    tables = {
        "docs/layers.md": {"worth-layers": layers_table(forecasts)},
        "docs/reproduce.md": {"why": why_table()},
        "docs/scores.md": {
            "worth-fe": worth_tables(frozen_lines(), ("tau", "behind")),
            "worth-ft": worth_tables(forecasts, ("tau", "r", "behind")),
            "cost-ft": cost_table(forecasts),
        },
    }
    return {ROOT / page: with_tables(ROOT / page, its) for page, its in tables.items()}


def with_tables(page: Path, tables: Mapping[str, Iterator[str]]) -> str:
    """The text of a page with other tables between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, rows in tables.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not mark or not end:
            raise ValueError(f"{page} has no marks <!-- {name} --> and <!-- /{name} -->")
        text = before + mark + "\n".join(rows) + "\n" + end + after
    return text


def why_table() -> Iterator[str]:
    """Components at epoch 5 and at the last, by the weight decay of the run."""
    heads = (
        "run",
        "decay",
        "k",
        "F",
        "F_m",
        *(f"F_r, {r} basis" for r in ("training", "own", "batch")),
    )
    yield from header(heads)
    for preset in BY_WIDTH_AND_DECAY:
        results = load_results(RUNS / f"cifar10-mnist-{preset}")
        manifest = json.loads((RUNS / f"cifar10-mnist-{preset}/manifest.json").read_text())
        for seed in manifest["seeds"]:
            yield row((f"`{preset}`, seed {seed}", *why_cells(results, manifest["recipe"], seed)))
    yield row(("Table 1", "", "", "", "88.2 → 58.7", "55.5 → 71.3", "", ""))


def why_cells(results: Results, recipe: Mapping[str, Any], seed: int) -> Iterator[str]:
    rows = results.rows("components", seed=seed, stage="before", probe="paper")
    last = max(row["epoch"] for row in rows)

    def change(component: str, reading: str, column: str = "accuracy") -> list[float]:
        chosen = {
            r["epoch"]: r for r in rows if (r["component"], r["reading"]) == (component, reading)
        }
        return [chosen[epoch][column] for epoch in (5, last)]

    yield f"{summed_decay(recipe['pretraining']):.2g}"
    yield "{:.0f} → {:.0f}".format(*change("main", "train", "n_main"))
    for place in (
        ("all", ""),
        ("main", "train"),
        *(("residual", r) for r in ("train", "own", "batch")),
    ):
        yield "{:.1f} → {:.1f}".format(*(100 * value for value in change(*place)))


def summed_decay(pretraining: Mapping[str, Any]) -> float:
    """Learning rate times weight decay, over all steps of a schedule that falls in steps."""
    n_steps = math.ceil((pretraining["n_images"] or 50_000) / pretraining["batch_size"])
    falls = [sum(e >= m for m in pretraining["milestones"]) for e in range(pretraining["epochs"])]
    rates = [pretraining["lr"] * pretraining["gamma"] ** n for n in falls]
    return n_steps * sum(rates) * float(pretraining["weight_decay"])


def frozen_lines() -> Iterator[dict[str, Any]]:
    """For each trajectory and target of two runs: scores, and accuracy of trained classifiers (FE)."""
    for preset in ("small", "small-collapse"):
        results = load_results(RUNS / f"cifar10-mnist-{preset}")
        for target in results.values("scores", "target"):
            for seed in results.values("scores", "seed"):
                series = score_series(results, target, seed)
                keys = [prediction_key(target, seed, "fe", int(epoch)) for epoch in series["epoch"]]
                reached = [float(results.correct(key).mean()) for key in keys]
                yield {
                    "name": f"{preset} seed{seed} {target}",
                    "reached": reached,
                    "series": series,
                }


def score_series(results: Results, target: str, seed: int) -> dict[str, list[float]]:
    """Of one trajectory: the epoch, source accuracy and each score, in the order of training."""
    by_epoch = {row["epoch"]: row["source_accuracy"] for row in results.rows("source", seed=seed)}
    series: dict[str, list[float]] = {"epoch": [], "source accuracy": []}
    for row in results.rows("scores", target=target, seed=seed):
        values = series.setdefault(row["score"], [])
        values.append(row["value"])
        if row["score"] == "linear_probe":
            series["epoch"].append(row["epoch"])
            series["source accuracy"].append(by_epoch[row["epoch"]])
    return series


def worth_tables(lines: Iterable[Mapping[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """A table for each measure: a row for each forecast, the best mean tau first.

    lines: `name` ("PRESET seedN TARGET"), `reached` (the accuracy of each checkpoint after training)
    and `series` (by forecast, its value for each checkpoint).
    """
    groups = grouped(lines)
    names = {name for some in groups.values() for line in some for name in line["series"]}
    taus = {
        name: [MEASURES["tau"](line, name) for some in groups.values() for line in some]
        for name in names
    }
    for measure in measures:
        yield from ("", f"{TITLES[measure]}:", "")
        yield from header(("", *titles_of(groups)))
        for name in sorted(names, key=lambda name: (-np.mean(taus[name]), name)):
            each = ([MEASURES[measure](line, name) for line in some] for some in groups.values())
            yield row((shown(name), *(mean_cell(values, *BOUNDS[measure]) for values in each)))
    yield ""


def layers_table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lowest and the highest accuracy along a trajectory, in %, frozen at the last layer and at
    all, and fine-tuned; and by how many points the highest at all layers is above the two others."""
    yield ""
    heads = ("last, frozen", "all, frozen", "fine-tuned", "all less last", "all less fine-tuned")
    yield from header(("", *heads))
    groups = grouped(lines)
    for title, some in zip(titles_of(groups), groups.values(), strict=True):
        reached = [{"fine-tuned": line["reached"], **line["series"]} for line in some]
        low, high = (
            [
                100 * np.array([pick(accuracy[name]) for accuracy in reached])
                for name in ("ridge_probe at last", "ridge_probe at all", "fine-tuned")
            ]
            for pick in (min, max)
        )
        ranges = (
            f"{mean_cell(worst, 0, 100, 1)} to {mean_cell(best, 0, 100, 1)}"
            for worst, best in zip(low, high, strict=True)
        )
        gains = (mean_cell(high[1] - high[other], -100, 100, 1) for other in (0, 2))
        yield row((title, *ranges, *gains))
    yield ""


def cost_table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CPU seconds a checkpoint of each forecast, for the lines that have them; the cheapest first."""
    groups = grouped(line for line in lines if "cpu_s" in line)
    yield ""
    yield from header(("", *titles_of(groups)))
    names = {name for some in groups.values() for line in some for name in line["cpu_s"]}
    means = {
        name: [float(np.mean([line["cpu_s"][name] for line in some])) for some in groups.values()]
        for name in names
    }
    for name in sorted(names, key=lambda name: means[name]):
        yield row((shown(name), *(f"{mean:.2g}" for mean in means[name])))
    yield ""


def grouped(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """By preset and target, the seeds of each in their order."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: line["name"]):
        preset, _, target = line["name"].split()
        groups.setdefault((preset, target), []).append(line)
    return groups


def titles_of(groups: Mapping[tuple[str, str], Sequence[object]]) -> list[str]:
    return [f"{preset}, {target} (n = {len(some)})" for (preset, target), some in groups.items()]


def _tau(line: Mapping[str, Any], name: str) -> float:
    return kendall_tau(*_pair(line, name))


def _r(line: Mapping[str, Any], name: str) -> float:
    return pearson_r(*_pair(line, name))


def _behind(line: Mapping[str, Any], name: str) -> float:
    x, y = _pair(line, name)
    return 100 * float(y.max() - y[x.argmax()])


def _pair(line: Mapping[str, Any], name: str) -> tuple[Values, Values]:
    return np.array(line["series"][name]), np.array(line["reached"])


MEASURES = {"tau": _tau, "r": _r, "behind": _behind}
TITLES = {
    "tau": "Kendall's tau",
    "r": "Pearson's r",
    "behind": "Points that the checkpoint with the highest value is behind the best",
}
BOUNDS = {"tau": (-1, 1), "r": (-1, 1), "behind": (0, 100)}


def mean_cell(values: Sequence[float], lowest: float, highest: float, n_digits: int = 2) -> str:
    """With the interval of Student's t, of two values or more, as far as there can be values."""

    def digits(value: float) -> str:
        """Without a minus before zero."""
        return f"{round(value, n_digits) + 0.0:.{n_digits}f}"

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return digits(mean)
    found = mean_of_seeds(values, lowest=lowest, highest=highest)
    return f"{digits(mean)} [{', '.join(map(digits, found.bounds))}]"


def shown(name: str) -> str:
    """Names of scores stand in code."""
    return re.sub(r"\b([a-z]+_[a-z_]+|logme|knn|lda)\b", r"`\1`", name)


def header(heads: Sequence[str]) -> Iterator[str]:
    yield row(heads)
    yield "|" + " --- |" * len(heads)


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
