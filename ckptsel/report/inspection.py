"""What `inspect` found of a folder of checkpoints, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.trajectory import grouped
from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, markdown, shown
from ckptsel.errors import subject
from ckptsel.report.tables import markdown_rows, progress_cell
from ckptsel.report.terminal import NARROW, console_of, listed_text, plain_table, table_text


def checkpoints_text(checkpoints: Sequence[Checkpoint], form: str, width: int | None = None) -> str:
    """What `inspect` found, in one of TEXT_FORMATS."""
    rows = [
        {
            "name": c.name,
            "format": c.format,
            "epoch": c.epoch,
            "step": c.step,
            "epoch_from": c.epoch_from,
            "source_accuracy": c.source_accuracy,
            "arch": c.arch,
            "weights_key": c.weights_key,
            "n_parameters": c.n_parameters,
            "digest": c.digest,
            "copy_of": c.copy_of,
            "problem": c.problem,
            "recorded_accuracy": None if c.accuracy is None else c.accuracy.value,
            "accuracy_key": None if c.accuracy is None else c.accuracy.key,
            "learning_rate": c.learning_rate,
            "notes": list(c.notes),
            "path": str(c.path),
        }
        for c in checkpoints
    ]
    if form == "json":
        return json_text(rows)
    if form == "csv":
        return csv_text(rows)
    header = ["checkpoint", "format", "epoch", "source", "weights", "parameters", "digest", "notes"]
    shared = {text: names for text, names in _problems(checkpoints).items() if len(names) > 1}
    cells = [_inspect_cells(c, shared) for c in checkpoints]
    below = [f"{subject(names)}: {text}" for text, names in shared.items()]
    if form == "md":
        return markdown_rows(header, cells) + "".join(f"\n{markdown(line)}\n" for line in below)
    console = console_of(width)
    said = "".join(f"{shown(line)}\n" for line in below)
    if console.width < NARROW:
        return listed_text(header, cells) + said
    return table_text(plain_table(header, cells, ("epoch", "source", "parameters")), console) + said


def layers_text(layers: Sequence[Mapping[str, Any]], form: str, width: int | None = None) -> str:
    """Layers of a network, in one of TEXT_FORMATS: name, shape of its output for one image, features."""
    if form == "json":
        return json_text(list(layers))
    if form == "csv":
        return csv_text([{**row, "output": _dimensions(row["output"])} for row in layers])
    header = ["layer", "output", "features"]
    cells = [
        [row["layer"], _dimensions(row["output"]), str(row["features"] or "")] for row in layers
    ]
    if form == "md":
        return markdown_rows(header, cells)
    return table_text(plain_table(header, cells, ("features",)), console_of(width))


def _dimensions(shape: Sequence[int] | None) -> str:
    return "" if shape is None else "x".join(map(str, shape))


def _problems(checkpoints: Sequence[Checkpoint]) -> dict[str, list[str]]:
    """Names by the problem that they have."""
    return grouped(checkpoints, lambda c: () if c.problem is None else (c.problem,))


def _inspect_cells(c: Checkpoint, shared: Mapping[str, Sequence[str]]) -> list[str]:
    """shared: problems that are said once, below the table."""
    problem = "see below" if c.problem in shared else (c.problem or "")
    notes = f"copy of {c.copy_of}" if c.copy_of else problem
    parameters = "" if c.n_parameters is None else f"{c.n_parameters / 1e6:.2f} M"
    key = "" if c.weights_key is None else (c.weights_key or "whole file")
    accuracy = "" if c.accuracy is None else f"{c.accuracy.value:g}, unknown"
    accuracy = accuracy if c.source_accuracy is None else f"{100 * c.source_accuracy:.1f} %"
    return [
        c.name,
        c.format,
        progress_cell(c.epoch, c.step, c.epoch_from),
        accuracy,
        key,
        parameters,
        (c.digest or "")[:12],
        notes,
    ]
