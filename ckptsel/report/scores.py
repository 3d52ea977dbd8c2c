"""The scores that there are, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, markdown, shown
from ckptsel.report.tables import markdown_rows
from ckptsel.report.terminal import NARROW, console_of, listed_text, plain_table, table_text

HEADER = ("score", "by default", "may decide", "unit", "what it is", "source")


def scores_text(rows: Sequence[Mapping[str, Any]], form: str, width: int | None = None) -> str:
    """One row a score, in one of TEXT_FORMATS; below the table why some may not decide.

    rows: name, unit, about, by_default, higher_is_better, cannot_decide (why, or null), source,
    built_in.
    """
    if form == "json":
        return json_text([dict(row) for row in rows])
    if form == "csv":
        return csv_text([dict(row) for row in rows])
    cells, reasons = [_cells(row) for row in rows], _reasons(rows)
    if form == "md":
        return markdown_rows(HEADER, cells) + "".join(f"\n{markdown(line)}\n" for line in reasons)
    console = console_of(width)
    if console.width < NARROW:
        text = listed_text(HEADER, cells)
    else:
        text = table_text(plain_table(HEADER, cells, ()), console)
    return text + "".join(f"{shown(line)}\n" for line in reasons)


def _cells(row: Mapping[str, Any]) -> list[str]:
    lowest = "" if row["higher_is_better"] else " (the lowest is the best)"
    return [
        row["name"],
        "yes" if row["by_default"] else "no",
        "no" if row["cannot_decide"] else "yes",
        row["unit"],
        row["about"] + lowest,
        row["source"] or ("" if row["built_in"] else "of another package"),
    ]


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why some may not decide, a sentence for each reason."""
    named: dict[str, list[str]] = {}
    for row in rows:
        if row["cannot_decide"]:
            named.setdefault(row["cannot_decide"], []).append(row["name"])
    return [f"{', '.join(names)} may not decide: {why}." for why, names in named.items()]
