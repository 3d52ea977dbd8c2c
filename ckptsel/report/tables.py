"""A ranking as text: a table for terminals, Markdown, CSV, JSON, and the sentence that sums it up."""

import html
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ckptsel.checkpoints.scan import Checkpoint
from ckptsel.common.files import csv_text
from ckptsel.report.confirmation_tables import (
    agreement_cells,
    agreement_title,
    confirmation_lines,
    confirmed_cell,
    percent_interval,
)
from ckptsel.results.confirmation import GoalConfirmation
from ckptsel.results.ranking import EPOCH, Baseline, Ranking, Row, ScoreValue
from ckptsel.scores import known_scores

FORMATS = ("table", "json", "csv", "md")


def format_ranking(ranking: Ranking, form: str, width: int | None = None) -> str:
    """The ranking in one of FORMATS, ending in a line break. width: of the table, in columns."""
    if form == "json":
        return json.dumps(ranking.to_dict(), indent=2, allow_nan=False) + "\n"
    if form == "csv":
        return csv_text(ranking.flat_rows())
    if form == "md":
        text = markdown_table(ranking) + "\n" + "\n".join(closing_lines(ranking)) + "\n"
        text = "".join(f"**{line}**\n\n" for line in doubt_lines(ranking)) + text
    else:
        text = _ranking_text(ranking, width) + "\n".join(closing_lines(ranking)) + "\n"
        text = "".join(f"{line}\n" for line in doubt_lines(ranking)) + text
    return text + "".join(
        f"\n{agreement_title(c)}\n"
        + ("\n" if form == "md" else "")
        + _agreement_text(c, form, width)
        for c in ranking.confirmation.values()
        if c.agreement
    )


def markdown_table(ranking: Ranking) -> str:
    """The table in Markdown."""
    return _markdown(*table_cells(ranking))


def html_table(ranking: Ranking) -> str:
    """What the ranking says and its table, as HTML for notebooks."""
    header, rows = table_cells(ranking)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<p>{html.escape(summary(ranking))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def closing_lines(ranking: Ranking) -> list[str]:
    """What the ranking says in words, its flags, failures and notes; one paragraph a line."""
    lines = [summary(ranking)]
    lines += [f"flag: {line}" for line in _flag_lines(ranking)]
    lines += [line for c in ranking.confirmation.values() for line in confirmation_lines(c)]
    lines += [f"failed: {row.name}: {row.reason}" for row in ranking if row.status == "failed"]
    lines += [f"note: {note}" for note in ranking.notes]
    return lines


def doubt_lines(ranking: Ranking) -> list[str]:
    """What is to be read before the table."""
    return [f"doubt: {doubt}" for doubt in ranking.doubts]


def summary(ranking: Ranking) -> str:
    """Which checkpoint to use, how far ahead of the last it is, and how many are tied with it."""
    n_scored = sum(row.status == "ok" and row.copy_of is None for row in ranking)
    if not ranking.recommended:
        return f"no checkpoint is recommended: {ranking.doubts[0]}"
    if n_scored == 1:
        return f"{ranking.best} is the only checkpoint that could be scored."
    if ranking.score == EPOCH and not ranking.confirmation:
        return (
            f"{ranking.best} is the last of the run: no score was found to foretell fine-tuning better "
            "than that. Real training tells: ckptsel confirm --goal ft."
        )
    last = ranking.baselines["last"]
    if last.name == ranking.best:
        first = f"{ranking.best} is the best, and the last of the run"
    else:
        first = f"{ranking.best} {against_baseline(last, 'the last', ranking)}"
    source = ranking.baselines.get("source_accuracy")
    if source is not None and source.name not in (last.name, ranking.best):
        first += f" and {against_baseline(source, 'the best by source accuracy', ranking)}"
    n_tied = len(ranking.tie_set) - 1
    if n_tied == 0:
        tied = "no other can be the best at 95 %"
    elif n_tied == 1:
        tied = f"1 other cannot be told from it ({_others(ranking)})"
    else:
        tied = f"{n_tied} others cannot be told from it ({_others(ranking)})"
    confirmed = ranking.confirmation.get(ranking.goal)
    prefix = "" if confirmed is None else f"confirmed for {ranking.goal}: "
    return f"{prefix}{first}; {tied}."


def checkpoints_text(checkpoints: Sequence[Checkpoint], form: str, width: int | None = None) -> str:
    """What `inspect` found, in one of FORMATS."""
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
        return json.dumps(rows, indent=2) + "\n"
    if form == "csv":
        return csv_text(rows)
    header = ["checkpoint", "format", "epoch", "source", "weights", "parameters", "digest", "notes"]
    cells = [_inspect_cells(c) for c in checkpoints]
    if form == "md":
        return _markdown(header, cells)
    table = Table(box=None, pad_edge=False)
    for name in header:
        right = name in ("epoch", "source", "parameters")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    return _rich_text(table, _console(width))


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
        _progress_cell(c.epoch, c.step),
        accuracy,
        key,
        parameters,
        (c.digest or "")[:12],
        notes,
    ]


def against_baseline(baseline: Baseline, what: str, ranking: Ranking) -> str:
    """How far the best is ahead of a baseline, in words; what: what to call it."""
    if baseline.difference is None or baseline.low is None or baseline.high is None:
        return f"was not compared with {what}"
    confirmed = baseline.by == "confirmed"
    accuracy = confirmed or known_scores()[baseline.by].unit == "accuracy"
    factor, unit = (100, " points") if accuracy else (1, " nats")
    # Adding zero turns -0.0 into 0.0.
    difference, low, high = (
        round(factor * x, 1) + 0.0 for x in (baseline.difference, baseline.low, baseline.high)
    )
    # After a race the reader must know which differences are of scores still.
    by = f" of {baseline.by}" if ranking.confirmation and not confirmed else ""
    if baseline.low > 0:
        return f"beats {what} by {difference}{unit}{by} [{low}, {high}]"
    return f"cannot be told from {what} (difference {difference}{unit}{by} [{low}, {high}])"


def _others(ranking: Ranking) -> str:
    others = [name for name in ranking.tie_set if name != ranking.best]
    return ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")


def _flag_lines(ranking: Ranking) -> list[str]:
    """Each flag once, with the checkpoints that have it."""
    flagged: dict[str, list[str]] = {}
    for row in ranking:
        if row.copy_of:
            continue
        for name, score in row.scores.items():
            for flag in score.flags:
                flagged.setdefault(f"{name}: {flag}", []).append(row.name)
    return [
        f"{flag} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
        for flag, names in flagged.items()
    ]


def table_cells(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table; the first column is the rank, the second the checkpoint."""
    scores = list(dict.fromkeys(name for row in ranking for name in row.scores))
    units = {name: score.unit for name, score in known_scores().items()}
    goals = list(ranking.confirmation)
    confirmed = [f"confirmed_{goal}" for goal in goals]
    header = ["", "checkpoint", "epoch", "source", *confirmed, *scores, "P(best)"]
    rows = []
    for row in ranking:
        values = [_score_cell(row.scores.get(name), units.get(name, "")) for name in scores]
        source = "" if row.source_accuracy is None else f"{100 * row.source_accuracy:.1f}"
        progress = _progress_cell(row.epoch, row.step)
        p_best = "" if row.p_best is None else f"{row.p_best:.2f}"
        trained = [confirmed_cell((row.confirmed or {}).get(goal)) for goal in goals]
        rows.append([_mark(row), _name_cell(row), progress, source, *trained, *values, p_best])
    return header, rows


def _mark(row: Row) -> str:
    if row.status == "failed":
        return "failed"
    tie = "=" if row.in_tie_set and row.rank != 1 else ""
    return ("*" if row.rank == 1 else "") + f"{row.rank}{tie}"


def _name_cell(row: Row) -> str:
    return f"{row.name} (copy of {row.copy_of})" if row.copy_of else row.name


def _progress_cell(epoch: float | None, step: int | None) -> str:
    if epoch is not None:
        return f"{epoch:g}"
    return "" if step is None else f"step {step}"


def _score_cell(score: ScoreValue | None, unit: str) -> str:
    if score is None:
        return ""
    flag = "!" if score.flags else ""
    if unit != "accuracy":
        return f"{score.value:.3f}{flag}"
    return percent_interval(score.value, score.low, score.high) + flag


def _ranking_text(ranking: Ranking, width: int | None) -> str:
    """The table with all intervals where it fits; else with those of the deciding score only, and
    where that is too wide as well, without the last of the other scores."""
    console = _console(width)
    unbounded = console.options.update(max_width=10_000)

    def fits(table: Table) -> bool:
        return console.measure(table, options=unbounded).maximum <= console.width

    table = _ranking_table(ranking, compact=False)
    others = [name for name in ranking.checkpoints[0].scores if name != ranking.score]
    hidden: list[str] = []
    while not fits(table) and len(hidden) < len(others):
        table = _ranking_table(ranking, compact=True, hidden=hidden)
        if not fits(table):
            hidden.append(others[-1 - len(hidden)])
            table = _ranking_table(ranking, compact=True, hidden=hidden)
    text = _rich_text(table, console)
    if hidden:
        text += f"(too narrow for {', '.join(reversed(hidden))}: see --format csv)\n"
    return text


def _ranking_table(ranking: Ranking, compact: bool, hidden: Sequence[str] = ()) -> Table:
    header, rows = table_cells(ranking)
    shown = [i for i, name in enumerate(header) if name not in hidden]
    header = [header[i] for i in shown]
    rows = [[row[i] for i in shown] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 1 if compact else 2, 0, 0))
    for name in header:
        left = name == "checkpoint"
        table.add_column(
            name.replace("_", "\n") if compact else name,
            justify="left" if left else "right",
            vertical="bottom",
            no_wrap=left,
        )
    whole = ("checkpoint", ranking.score, *(f"confirmed_{goal}" for goal in ranking.confirmation))
    for row, cells in zip(ranking, rows, strict=True):
        if compact:
            cells = [
                cell if name in whole else cell.split(" [")[0]
                for name, cell in zip(header, cells, strict=True)
            ]
        style = "bold green" if row.rank == 1 else ("dim" if row.status == "failed" else "")
        table.add_row(*cells, style=style)
    return table


def _agreement_text(confirmation: GoalConfirmation, form: str, width: int | None) -> str:
    header, rows = agreement_cells(confirmation)
    if form == "md":
        return _markdown(header, rows)
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name == "score" else "right")
    for row in rows:
        table.add_row(*row)
    return _rich_text(table, _console(width))


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _console(width: int | None) -> Console:
    """As wide as the terminal, or as the table needs where there is none."""
    console = Console(width=width)
    return Console(width=1000) if width is None and not console.is_terminal else console


def _rich_text(table: Table, console: Console) -> str:
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
