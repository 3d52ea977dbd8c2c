"""What `inspect` found of a folder of checkpoints, as text."""

from collections.abc import Sequence

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text
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
            "path": str(c.path),
        }
        for c in checkpoints
    ]
    if form == "json":
        return json_text(rows)
    if form == "csv":
        return csv_text(rows)
    header = ["checkpoint", "format", "epoch", "source", "weights", "parameters", "digest", "notes"]
    cells = [_inspect_cells(c) for c in checkpoints]
    if form == "md":
        return markdown_rows(header, cells)
    console = console_of(width)
    if console.width < NARROW:
        return listed_text(header, cells)
    return table_text(plain_table(header, cells, ("epoch", "source", "parameters")), console)


def _inspect_cells(c: Checkpoint) -> list[str]:
    notes = f"copy of {c.copy_of}" if c.copy_of else (c.problem or "")
    if c.epoch_from == "name":
        notes = f"epoch from the name. {notes}".strip()
    parameters = "" if c.n_parameters is None else f"{c.n_parameters / 1e6:.2f} M"
    key = "" if c.weights_key is None else (c.weights_key or "whole file")
    accuracy = "" if c.source_accuracy is None else f"{100 * c.source_accuracy:.1f} %"
    return [
        c.name,
        c.format,
        progress_cell(c.epoch, c.step),
        accuracy,
        key,
        parameters,
        (c.digest or "")[:12],
        notes,
    ]
