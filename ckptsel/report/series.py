"""The numbers that the report draws, as rows: one a series and checkpoint, one a singular value, ...

Nothing here knows a charting library. Accuracies are in percent, since people read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.ranking.correlation import kendall_tau
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import ACCURACY, Ranking, Row
from ckptsel.results.scores import SINGULAR_VALUES, count_main

Record = dict[str, Any]

MIN_FOR_TAU = 3
"""Fewer checkpoints have no order to agree on."""


MAX_INDICES = 200
"""Points of one spectrum that are drawn."""


@dataclass(frozen=True)
class Axis:
    """What is across: `epoch`, else `step`, else the `order` of training. is_log: the first epochs
    lie denser than the last ones. is_named: some are from the names of files, which may count else."""

    name: str
    is_log: bool
    is_named: bool = False

    @property
    def title(self) -> str:
        title = {"epoch": "pre-training epoch", "step": "pre-training step"}
        source = " (from the names of files)" if self.is_named else ""
        return title.get(self.name, "order of training") + source


def scored_rows(ranking: Ranking) -> list[Row]:
    """Checkpoints that were scored, each once, in the order of training, at the layer that the best
    is read at. Averages are no moments of the run: see `average_rows`."""
    return [row for row in _at_best_layer(ranking) if not row.average_of]


def average_rows(ranking: Ranking) -> list[Row]:
    """Averages that were scored, in the order of training, at the same layer."""
    return [row for row in _at_best_layer(ranking) if row.average_of]


def _at_best_layer(ranking: Ranking) -> list[Row]:
    layer = ranking[ranking.best].layer
    rows = [r for r in ranking if r.status == "ok" and r.copy_of is None and r.layer == layer]
    return sorted(rows, key=lambda row: row.order)


def choose_axis(ranking: Ranking) -> Axis:
    """The first of epoch, step and order that all checkpoints have, each a value of its own."""
    rows = scored_rows(ranking)
    for name in ("epoch", "step"):
        values = [getattr(row, name) for row in rows]
        if None not in values and len(set(values)) == len(values):
            break
    else:
        name, values = "order", [row.order for row in rows]
    is_named = name != "order" and any(row.epoch_from == "name" for row in rows)
    return Axis(name, min(values) > 0 and max(values) >= 20 * min(values), is_named)


def trajectory_records(ranking: Ranking, axis: Axis) -> list[Record]:
    """One record a series and checkpoint: series, unit, checkpoint, x, value, low, high (null where
    there is no interval).

    Series are the scores, `confirmed_<goal>` at the last step that its race came to, and
    `source_accuracy`.
    """
    return _records_of(scored_rows(ranking), ranking, axis)


def average_records(ranking: Ranking, axis: Axis) -> list[Record]:
    """The same of averages, each where its last checkpoint lies."""
    return _records_of(average_rows(ranking), ranking, axis)


def _records_of(rows: Sequence[Row], ranking: Ranking, axis: Axis) -> list[Record]:
    records = []
    steps = [
        (goal, standing.step) for row in rows for goal, standing in (row.confirmed or {}).items()
    ]
    ends = {goal: max(step for other, step in steps if other == goal) for goal, _ in steps}
    for row in rows:
        about = {"checkpoint": row.name, "x": getattr(row, axis.name)}
        for name, score in row.scores.items():
            records.append(_record(name, ranking.units.get(name, ""), about, score))
        for goal, standing in (row.confirmed or {}).items():
            if standing.accuracy is not None and standing.step == ends[goal]:
                records.append(_record(f"confirmed_{goal}", ACCURACY, about, standing.accuracy))
        if row.source_accuracy is not None:
            recorded = Estimate(row.source_accuracy)
            records.append(_record("source_accuracy", ACCURACY, about, recorded))
    return records


def _record(series: str, unit: str, about: Record, of: Estimate) -> Record:
    factor = 100 if unit == ACCURACY else 1
    numbers = {"value": of.value, "low": of.low, "high": of.high}
    shown = {k: None if x is None else _short(factor * x) for k, x in numbers.items()}
    return {"series": series, "unit": unit, **about, **shown}


def landmark_records(ranking: Ranking, axis: Axis) -> list[Record]:
    """Where the best, the last and the best by source accuracy lie, from left to right: x, label,
    checkpoint. What falls together has one record."""
    names = {"best": ranking.best, "last": ranking.references["last"].name}
    if "source_accuracy" in ranking.references:
        names["best source"] = ranking.references["source_accuracy"].name
    labels: dict[str, list[str]] = {}
    for label, name in names.items():
        labels.setdefault(name, []).append(label)
    records = [
        {"x": getattr(ranking[name], axis.name), "label": " = ".join(parts), "checkpoint": name}
        for name, parts in labels.items()
    ]
    return sorted(records, key=lambda record: record["x"])


def tie_records(ranking: Ranking, axis: Axis) -> list[Record]:
    """Where the tie set lies: x, checkpoint. Empty where the epoch decided, which ties all."""
    rows = scored_rows(ranking)
    tied = [row for row in rows if row.in_tie_set]
    if len(tied) == len(rows):
        return []
    return [{"x": getattr(row, axis.name), "checkpoint": row.name} for row in tied]


def layer_records(ranking: Ranking, axis: Axis) -> list[Record]:
    """The deciding score of every checkpoint at every layer: candidate, layer, x, value, text,
    is_tied. Empty where one layer was read; without averages."""
    if len(ranking.layers) < 2:
        return []
    factor = 100 if ranking.is_accuracy(ranking.score) else 1
    return [
        {
            "candidate": row.name,
            "layer": row.layer,
            "x": getattr(row, axis.name),
            "value": _short(factor * row.scores[ranking.score].value),
            # Rounded here, as in every table: a browser rounds halves the other way.
            "text": f"{factor * row.scores[ranking.score].value:.1f}",
            "is_tied": row.in_tie_set,
        }
        for row in sorted(ranking, key=lambda row: row.order)
        if row.copy_of is None and not row.average_of and ranking.score in row.scores
    ]


def spectrum_records(ranking: Ranking, arrays: Mapping[str, NDArray[Any]]) -> list[Record]:
    """Singular values of the first checkpoint and of the landmarks: checkpoint, index (from 1),
    share (of the sum, percent), cumulative (percent), is_cut (the last main one).

    Empty where a ranking was made without the main component, or its arrays are not there.
    """
    first = scored_rows(ranking)[0].name
    landmarks = [record["checkpoint"] for record in landmark_records(ranking, choose_axis(ranking))]
    records = []
    for name in dict.fromkeys([*landmarks, first]):
        values = arrays.get(f"{name}/main_component/{SINGULAR_VALUES}")
        if values is None:
            continue
        shares = 100 * values / values.sum()
        cumulative = shares.cumsum()
        # They are kept as float32, which has seven digits.
        n_main = count_main(values, ranking.settings["energy"], rounding=1e-6)
        for i in _thinned(len(values), n_main):
            records.append(
                {
                    "checkpoint": name,
                    "index": i,
                    "share": _short(shares[i - 1]),
                    "cumulative": _short(cumulative[i - 1]),
                    "is_cut": i == n_main,
                }
            )
    return records


def _thinned(n: int, keep: int) -> list[int]:
    """Indices 1 to n, past MAX_INDICES ever wider apart, with `keep` among them."""
    indices = np.arange(1, n + 1)
    if n > MAX_INDICES:
        indices = np.unique(np.geomspace(1, n, MAX_INDICES).round().astype(int))
    return sorted({*indices.tolist(), keep})


def _short(value: float) -> float:
    """Six digits are more than a chart shows."""
    return float(f"{value:.6g}")


def agreement_records(ranking: Ranking) -> list[Record]:
    """Kendall's tau-b of the orders that every pair of series gives the checkpoints that have both:
    a, b, tau, n. Of a score whose lowest value is the best, that one comes first.

    The epoch (the order of training) is a series of its own.
    """
    axis = choose_axis(ranking)
    by_series: dict[str, dict[str, float]] = {}
    for record in trajectory_records(ranking, axis):
        name = record["series"]
        value = ranking.higher_when_better(name, record["value"])
        by_series.setdefault(name, {})[record["checkpoint"]] = value
    by_series["epoch"] = {row.name: row.order for row in scored_rows(ranking)}
    records = []
    for a, of_a in by_series.items():
        for b, of_b in by_series.items():
            both = [name for name in of_a if name in of_b]
            x, y = np.array([of_a[n] for n in both]), np.array([of_b[n] for n in both])
            if len(both) < MIN_FOR_TAU or np.ptp(x) == 0 or np.ptp(y) == 0:
                continue
            tau = kendall_tau(x, y)
            records.append({"a": a, "b": b, "tau": tau, "n": len(both)})
    return records


def confirmed_records(ranking: Ranking, goal: str) -> list[Record]:
    """Scores beside accuracy after training: series, checkpoint, x, value, accuracy, low, high."""
    axis = choose_axis(ranking)
    records = trajectory_records(ranking, axis)
    trained = {r["checkpoint"]: r for r in records if r["series"] == f"confirmed_{goal}"}
    merged = []
    for record in records:
        after = trained.get(record["checkpoint"])
        if after is not None and not record["series"].startswith("confirmed_"):
            result = {"accuracy": after["value"], "low": after["low"], "high": after["high"]}
            merged.append({**record, **result})
    return merged
