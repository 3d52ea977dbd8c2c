"""`layers.md` of a run: at which layers F, F_m and F_r fall or rise with over-training.

A layer's trend is judged as the claims are: Kendall's tau of accuracy with the epoch from the early
epoch on, with its 95 % interval over held-out images, of several pre-training seeds over the seeds too
(`ckptsel.reproduce.claims.trend`). It falls where the interval lies below zero, rises where it lies
above. A fall or rise begins at the first layer from which on every deeper one shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckptsel.reproduce.claims import FAILS, HOLDS, Seeds, early_and_last, trend
from ckptsel.reproduce.results import Record, Results, layer_kind
from ckptsel.results.estimate import Estimate

LAYERS_NAME = "layers.md"

NAMES = {"all": "F", "main": "F_m", "residual": "F_r"}

FALLS, RISES, UNDECIDED = "falls", "rises", "undecided"

DIRECTIONS = {HOLDS: RISES, FAILS: FALLS}
"""Of a claim that it rises."""


@dataclass(frozen=True)
class LayerTrend:
    """What over-training does to one component of one layer.

    early, last: mean accuracies at the epochs that stand for the paper's 5 and 200.
    tau: with the epoch.
    direction: falls, rises, undecided.
    """

    early: float
    last: float
    tau: Estimate
    direction: str


Trends = Mapping[str, LayerTrend]
"""By layer, in the order of the network."""


def describe_layers(results: Results) -> str:
    """Markdown: for each target a sentence a component, and a table of all layers."""
    parts = [_describe_target(results, target) for target in results.values("layers", "target")]
    return "\n".join(parts)


def layer_trends(results: Results, target: str, component: str) -> Trends:
    """The trend of each layer; without those of fewer than three epochs."""
    seeds = _seeds(results, target)
    found = {
        layer: _trend(results, target, layer, component, seeds)
        for layer in results.values("layers", "layer")
    }
    return {layer: known for layer, known in found.items() if known is not None}


def where_it_begins(trends: Trends, direction: str) -> str | None:
    """The first layer from which on every deeper one goes that way; None where the last does not."""
    first = None
    for layer in reversed(list(trends)):
        if trends[layer].direction != direction:
            break
        first = layer
    return first


def sentence(component: str, trends: Trends) -> str:
    """Where along the network the effect of over-training on a component begins."""
    if not trends:
        return f"{NAMES[component]}: fewer than three epochs from the early one on, so no trend."
    said = []
    for direction in (FALLS, RISES, UNDECIDED):
        there = [layer for layer, found in trends.items() if found.direction == direction]
        first = where_it_begins(trends, direction)
        if first is not None:
            said.append(f"{direction} from {first} on")
            there = there[: there.index(first)]
        if there:
            said.append(f"{direction} at {', '.join(there)}")
    return f"{NAMES[component]} with over-training: {'; '.join(said)}."


def _describe_target(results: Results, target: str) -> str:
    seeds = _seeds(results, target)
    early, last = early_and_last(results, target, seeds)
    by_component = {component: layer_trends(results, target, component) for component in NAMES}
    which = ("seed " if len(seeds) == 1 else "mean of seeds ") + ", ".join(map(str, seeds))
    lines = [
        f"## {target}, {which}",
        "",
        *(f"- {sentence(component, trends)}" for component, trends in by_component.items()),
        "",
        f"Accuracy in %, epoch {early} → {last}; tau with the epoch from {early} on, with its 95 % "
        "interval; k: directions that are main.",
        "",
        "| layer | k | " + " | ".join(NAMES.values()) + " |",
        "| --- | --- | --- | --- | --- |",
    ]
    for layer in results.values("layers", "layer"):
        rows = results.rows("layers", target=target, layer=layer, component="main")
        cells = [_cell(trends.get(layer)) for trends in by_component.values()]
        k = " → ".join(f"{_mean(rows, epoch, 'n_main'):.0f}" for epoch in (early, last))
        lines.append(f"| `{layer}` | {k} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _trend(
    results: Results, target: str, layer: str, component: str, seeds: Seeds
) -> LayerTrend | None:
    finding = trend(layer_kind(layer, component), sign=1)(results, target, seeds)
    if finding is None or finding.interval is None:
        return None
    rows = results.rows("layers", target=target, layer=layer, component=component)
    early, last = early_and_last(results, target, seeds)
    return LayerTrend(
        _mean(rows, early, "accuracy"),
        _mean(rows, last, "accuracy"),
        finding.interval,
        DIRECTIONS.get(finding.verdict, UNDECIDED),
    )


def _cell(found: LayerTrend | None) -> str:
    if found is None:
        return ""
    low, high = found.tau.bounds
    change = f"{100 * found.early:.1f} → {100 * found.last:.1f}"
    return f"{change}, {found.tau.value:.2f} [{low:.2f}, {high:.2f}] {found.direction}"


def _mean(rows: Sequence[Record], epoch: int, column: str) -> float:
    """Over the seeds."""
    values = [float(row[column]) for row in rows if row["epoch"] == epoch]
    return sum(values) / len(values)


def _seeds(results: Results, target: str) -> Seeds:
    """Of the layers that were read."""
    return tuple(dict.fromkeys(row["seed"] for row in results.rows("layers", target=target)))
