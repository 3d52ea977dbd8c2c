"""What `cache info` shows of a cache folder, as text."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptsel.common.cache_files import Entry, list_entries, list_leftovers, list_mirrors, list_old
from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, shown
from ckptsel.common.quantities import size_text
from ckptsel.report.tables import markdown_rows
from ckptsel.report.terminal import NARROW, console_of, listed_text, plain_table, table_text

COLUMNS = ("kind", "entries", "bytes", "oldest_use", "newest_use")


def cache_text(folder: Path, form: str, width: int | None = None) -> str:
    """Entries and bytes by kind, when the oldest and the newest were last used, and their sums."""
    entries = [*list_entries(folder), *list_leftovers(folder, 0), *list_old(folder)]
    entries += list_mirrors(folder)
    kinds = sorted({entry.kind for entry in entries})
    rows = [_row(kind, [entry for entry in entries if entry.kind == kind]) for kind in kinds]
    rows.append(_row("all", entries))
    if form == "json":
        return json_text({"folder": str(folder), "kinds": rows})
    if form == "csv":
        return csv_text(rows, COLUMNS)
    header = [name.replace("_", " ").replace("bytes", "size") for name in COLUMNS]
    cells = [[_cell(name, row[name]) for name in COLUMNS] for row in rows]
    if form == "md":
        return markdown_rows(header, cells)
    console, first = console_of(width), f"{shown(str(folder))}\n"
    if console.width < NARROW:
        return first + listed_text(header, cells)
    return first + table_text(plain_table(header, cells, ("entries", "size")), console)


def _row(kind: str, entries: Sequence[Entry]) -> dict[str, Any]:
    used = [entry.used for entry in entries]
    return {
        "kind": kind,
        "entries": len(entries),
        "bytes": sum(entry.n_bytes for entry in entries),
        "oldest_use": _time(min(used)) if used else None,
        "newest_use": _time(max(used)) if used else None,
    }


def _time(seconds: float) -> str:
    found = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return found.isoformat(timespec="seconds")


def _cell(name: str, value: Any) -> str:
    if name == "bytes":
        return size_text(value)
    return "" if value is None else str(value).replace("T", " ").replace("+00:00", " UTC")
