"""Several targets as text: a ranking each, then one table over all with what it says on top."""

from collections.abc import Mapping
from typing import Any

from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, markdown, shown
from ckptsel.report.explanation import explanation_text
from ckptsel.report.tables import format_ranking, markdown_rows
from ckptsel.report.terminal import (
    console_of,
    fits_folded,
    listed_text,
    plain_table,
    table_text,
)
from ckptsel.results.ranking import Ranking
from ckptsel.results.targets import (
    OnTarget,
    OverallRow,
    TargetsRecord,
    overall_summary,
    regret_text,
    regret_unit,
)

OVER_ALL = "over all targets"


def format_targets(
    record: TargetsRecord,
    rankings: Mapping[str, Ranking],
    form: str,
    explain: bool = False,
    width: int | None = None,
) -> str:
    """All in one of TEXT_FORMATS. rankings: by the name of the target. width: in columns."""
    if form == "json":
        each = {name: ranking.to_dict() for name, ranking in rankings.items()}
        return json_text({**record.to_dict(), "rankings": each})
    if form == "csv":
        return _csv(rankings)
    parts = []
    for target in record.targets:
        text = format_ranking(rankings[target.name], form, width)
        if explain:
            text += "\n" + explanation_text(rankings[target.name], form)
        parts.append(_title(f"{target.name} ({target.data})", form) + text)
    return "\n".join([*parts, _title(OVER_ALL, form) + _overall_text(record, form, width)])


def _title(text: str, form: str) -> str:
    return f"## {markdown(text)}\n\n" if form == "md" else f"{shown(text)}:\n"


def _overall_text(record: TargetsRecord, form: str, width: int | None) -> str:
    lines, (header, rows) = overall_lines(record), overall_cells(record)
    if form == "md":
        text = "".join(f"{markdown(line)}\n\n" for line in lines)
        return text + markdown_rows(header, rows)
    text = "".join(f"{shown(line)}\n" for line in lines)
    table, console = plain_table(header, rows, header[1:]), console_of(width)
    if not fits_folded(table, console):
        return text + listed_text(header, rows)
    return text + table_text(table, console)


def overall_lines(record: TargetsRecord) -> list[str]:
    """What the table over all says, and which targets it leaves out."""
    out = [t for t in record.targets if t.not_counted is not None]
    lines = [overall_summary(record), *(f"not counted: {t.name}: {t.not_counted}" for t in out)]
    n_left = len(record.candidates) - len(at_best_layer(record))
    if n_left:
        lines.append(
            f"each checkpoint at the layer that is best over all; {n_left} others are left out"
        )
    return lines


def overall_cells(record: TargetsRecord) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table over all; on each target the rank, as in its own table."""
    names = [target.name for target in record.targets]
    regret = f"worst regret, {regret_unit(record)}"
    header = ["checkpoint", "epoch", "mean rank", regret, "on", "tied on", *names]
    n = len(record.counted)
    return header, [_cells(row, names, n, record) for row in at_best_layer(record)]


def at_best_layer(record: TargetsRecord) -> list[OverallRow]:
    """Of each file the candidate that comes first: all are in `targets.json`."""
    best: dict[str, OverallRow] = {}
    for row in record.candidates:
        best.setdefault(row.path or row.name, row)
    return list(best.values())


def _cells(row: OverallRow, names: list[str], n: int, record: TargetsRecord) -> list[str]:
    regret = "" if row.worst_regret is None else regret_text(row.worst_regret, record)
    return [
        row.name,
        "" if row.epoch is None else f"{row.epoch:g}",
        "" if row.mean_rank is None else f"{row.mean_rank:.1f}",
        regret,
        row.worst_target or "",
        f"{row.n_tied} of {n}",
        *(_rank_cell(row.targets[name]) for name in names),
    ]


def _rank_cell(on: OnTarget) -> str:
    if on.rank is None:
        return "failed"
    if on.rank == 1:
        return "*1"
    return f"{on.rank}{'=' * on.in_tie_set}"


def _csv(rankings: Mapping[str, Ranking]) -> str:
    """The rows of all rankings, each with its target."""
    rows: list[dict[str, Any]] = [
        {"target": name, **row} for name, ranking in rankings.items() for row in ranking.flat_rows()
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return csv_text(rows, columns)
