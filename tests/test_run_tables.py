"""The tables of the documentation are those that the shipped runs and forecasts hold."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tools.json_lines import read_lines
from tools.run_tables import (
    FORECASTS,
    RUNS,
    cost_table,
    layers_table,
    mean_cell,
    pages,
    with_tables,
    worth_tables,
)


def test_the_documented_tables_are_what_the_runs_hold() -> None:
    for page, text in pages().items():
        assert page.read_text(encoding="utf-8") == text, "python -m tools.run_tables writes them"


def test_forecasts_are_held_against_what_the_runs_reached() -> None:
    """`docs/forecasts.jsonl` was made from the same trainings as the shipped numbers."""
    checked = 0
    for line in read_lines(FORECASTS):
        preset, seed, target = line["name"].split()
        path = RUNS / f"cifar10-mnist-{preset}/raw/transfers.csv"
        if not path.is_file():
            continue  # of a run that is not shipped
        with path.open() as file:
            rows = [r for r in csv.DictReader(file) if (r["target"], r["goal"]) == (target, "ft")]
        reached: dict[int, list[float]] = {}
        for row in rows:
            if f"seed{row['seed']}" == seed:
                reached.setdefault(int(row["epoch"]), []).append(float(row["accuracy"]))
        if reached:
            means = [np.mean(reached[epoch]) for epoch in sorted(reached)]
            assert line["reached"] == pytest.approx(means, abs=1e-6), line["name"]
            checked += 1
    assert checked >= 15


def test_the_best_forecast_comes_first_with_its_mean_over_seeds() -> None:
    up, down = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    lines = [
        {"name": f"small seed{i} cats", "reached": reached, "series": {"a_b": down, "up": up}}
        for i, reached in enumerate(([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.4, 0.3]))
    ]
    rows = [line for line in worth_tables(lines, ("tau", "behind")) if line.startswith("|")]
    assert rows[0] == "|  | small, cats (n = 2) |"
    assert [row.split(" | ")[0] for row in rows[2:4]] == ["| up", "| `a_b`"]
    assert "0.83 [" in rows[2] and "-0.83 [" in rows[3]
    assert "5.00 [" in rows[6], "picks 0.4 and 0.3: 0 and 10 points behind"


def test_the_cheapest_forecast_comes_first_with_its_mean_over_seeds() -> None:
    costs = ({"late": 9.0, "soon": 1.0}, {"late": 9.0, "soon": 2.0})
    lines = [{"name": f"small seed{i} cats", "cpu_s": cost} for i, cost in enumerate(costs)]
    rows = [line for line in cost_table([*lines, {"name": "small seed0 dogs"}]) if line]
    assert rows[0] == "|  | small, cats (n = 2) |"
    assert rows[2:] == ["| soon | 1.5 |", "| late | 9 |"]


def test_layers_are_compared_at_the_best_epoch_of_each() -> None:
    lines = [
        {
            "name": f"small seed{i} cats",
            "reached": [0.5, 0.7 + up],
            "series": {"ridge_probe at last": [0.4, 0.2], "ridge_probe at all": [0.6, 0.6 + up]},
        }
        for i, up in enumerate((0.0, 0.02))
    ]
    rows = [line for line in layers_table(lines) if line.startswith("| small")]
    (cells,) = [row.split(" | ") for row in rows]
    assert cells[1] == "20.0 [20.0, 20.0] to 40.0 [40.0, 40.0]"
    assert cells[2].startswith("60.0 [60.0, 60.0] to 61.0 [")
    assert cells[4].startswith("21.0 [8.3, 33.7]") and cells[5].startswith("-10.0 [-10.0, -10.0]")


def test_an_interval_is_students_within_the_bounds() -> None:
    assert mean_cell([0.5, 0.7, 0.6], -1, 1) == "0.60 [0.35, 0.85]"
    assert mean_cell([0.5, 0.9], -1, 1) == "0.70 [-1.00, 1.00]"
    assert mean_cell([0.5], -1, 1) == "0.50"


def test_a_page_without_its_marks_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- a -->\nold\n<!-- /a -->\nrest\n")
    assert with_tables(page, {"a": iter(["new"])}) == "<!-- a -->\nnew\n<!-- /a -->\nrest\n"
    with pytest.raises(ValueError, match=r"page.md has no marks <!-- b -->"):
        with_tables(page, {"b": iter(["new"])})
