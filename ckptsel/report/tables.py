"""A ranking as text: a table for terminals, Markdown, CSV, JSON."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from ckptsel.common.files import csv_text
from ckptsel.common.outlets import MAX_CELL, json_text, markdown, shown
from ckptsel.errors import listed, subject
from ckptsel.report.confirmation_tables import (
    agreement_cells,
    agreement_title,
    confirmation_lines,
    confirmed_cell,
)
from ckptsel.report.terminal import (
    add_row,
    console_of,
    fits,
    fits_folded,
    listed_text,
    plain_table,
    table_text,
)
from ckptsel.results.confirmation import GoalConfirmation
from ckptsel.results.estimate import Estimate, percent
from ckptsel.results.ranking import Ranking, Row, ScoreValue
from ckptsel.results.summary import summary

TEXT_FORMATS = ("table", "json", "csv", "md")


def format_ranking(ranking: Ranking, form: str, width: int | None = None) -> str:
    """The ranking in one of TEXT_FORMATS, ending in a line break. width: of the table, in columns."""
    if form == "json":
        return json_text(ranking.to_dict())
    if form == "csv":
        return csv_text(ranking.flat_rows())
    if form == "md":
        text = (
            markdown_table(ranking) + "\n" + "\n".join(map(markdown, closing_lines(ranking))) + "\n"
        )
        text = "".join(f"**{markdown(line)}**\n\n" for line in doubt_lines(ranking)) + text
    else:
        text = _ranking_text(ranking, width) + "\n".join(map(shown, closing_lines(ranking))) + "\n"
        text = "".join(f"{shown(line)}\n" for line in doubt_lines(ranking)) + text
    return text + "".join(
        f"\n{agreement_title(c)}\n"
        + ("\n" if form == "md" else "")
        + _agreement_text(c, form, width)
        for c in ranking.confirmation.values()
        if c.agreement
    )


def markdown_table(ranking: Ranking) -> str:
    """The table in Markdown."""
    return markdown_rows(*table_cells(ranking))


def closing_lines(ranking: Ranking) -> list[str]:
    """What the ranking says in words, its flags, failures and notes; one paragraph a line."""
    lines = [summary(ranking), *_chance_lines(ranking)]
    lines += [f"flag: {line}" for line in _flag_lines(ranking)]
    lines += [line for c in ranking.confirmation.values() for line in confirmation_lines(c)]
    lines += [f"failed: {line}" for line in _failures(ranking)]
    lines += [f"not looked at: {line}" for line in _unseen(ranking)]
    lines += [f"note: {note}" for note in ranking.notes]
    return lines


def _failures(ranking: Ranking) -> list[str]:
    """Each reason once, with the checkpoints that have it."""
    failed: dict[str, dict[str, None]] = {}
    for row in ranking:
        if row.status == "failed":
            failed.setdefault(row.reason or "", {})[row.checkpoint] = None
    return [f"{subject(list(names))}: {reason}" for reason, names in failed.items()]


def _unseen(ranking: Ranking) -> Iterator[str]:
    """Who was not looked at, and what is expected of them."""
    unseen = () if ranking.search is None else ranking.search.unseen
    if not unseen:
        return
    text = subject([one.name for one in unseen])
    known = [(one.expected, one.chance, one.name) for one in unseen if one.expected is not None]
    if known:
        values = [expected.value for expected, _, _ in known]
        ends = [_unseen_value(Estimate(value), ranking) for value in (min(values), max(values))]
        likely, chance, name = max(known, key=lambda one: one[1] or 0)
        text += f", expected at {ends[0]} to {ends[1]} by {ranking.score}"
        if chance:
            text += f"; the likeliest to be ahead is {name}, {_unseen_value(likely, ranking)}"
    yield text


def _unseen_value(expected: Estimate, ranking: Ranking) -> str:
    if ranking.is_accuracy(ranking.score):
        return percent(expected, " %")
    return f"{expected.value:.3f}"


def doubt_lines(ranking: Ranking) -> list[str]:
    """What is to be read before the table."""
    return [f"doubt: {doubt}" for doubt in ranking.doubts]


def _chance_lines(ranking: Ranking) -> list[str]:
    """What an accuracy is to be held against; none for rankings that did not record it."""
    largest = ranking.target.get("largest_class")
    if largest is None:
        return []
    return [
        f"chance: always naming the largest class ({largest['name']!r}) is right on "
        f"{100 * largest['share']:.1f} % of the {ranking.target['evaluation']['n_eval']} held-out "
        f"images; {ranking.target['n_classes']} classes."
    ]


def _flag_lines(ranking: Ranking) -> list[str]:
    """Each flag once, with the checkpoints that have it."""
    flagged: dict[str, list[str]] = {}
    for row in ranking:
        if row.copy_of:
            continue
        for name, score in row.scores.items():
            for flag in score.flags:
                flagged.setdefault(f"{name}: {flag}", []).append(row.name)
    return [f"{flag} ({listed(names, 3)})" for flag, names in flagged.items()]


def table_cells(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table; the first column is the rank, the second the checkpoint."""
    scores = list(dict.fromkeys(name for row in ranking.at_best_layer() for name in row.scores))
    goals = list(ranking.confirmation)
    confirmed = [f"confirmed_{goal}" for goal in goals]
    layer = ["layer"] if len(ranking.layers) > 1 else []
    header = ["", "checkpoint", *layer, "epoch", "source", *confirmed, *scores, "P(best)"]
    rows = []
    for row in ranking.at_best_layer():
        values = [_score_cell(row.scores.get(name), ranking.is_accuracy(name)) for name in scores]
        source = "" if row.source_accuracy is None else f"{100 * row.source_accuracy:.1f}"
        progress = progress_cell(row.epoch, row.step, row.epoch_from)
        p_best = "" if row.p_best is None else f"{row.p_best:.2f}"
        trained = [confirmed_cell((row.confirmed or {}).get(goal)) for goal in goals]
        read = [row.layer] if layer else []
        rows.append(
            [_mark(row), _name_cell(row), *read, progress, source, *trained, *values, p_best]
        )
    return header, rows


def _mark(row: Row) -> str:
    if row.status == "failed":
        return "failed"
    tie = "=" if row.in_tie_set and row.rank != 1 else ""
    return ("*" if row.rank == 1 else "") + f"{row.rank}{tie}"


def _name_cell(row: Row) -> str:
    return f"{row.checkpoint} (copy of {row.copy_of})" if row.copy_of else row.checkpoint


def progress_cell(epoch: float | None, step: int | None, epoch_from: str | None) -> str:
    """An epoch, or a step; marked where the file's name says it and the file does not."""
    mark = "?" if epoch_from == "name" else ""
    if epoch is not None:
        return f"{epoch:g}{mark}"
    return "" if step is None else f"step {step}{mark}"


def _score_cell(score: ScoreValue | None, is_accuracy: bool) -> str:
    if score is None:
        return ""
    flag = "!" if score.flags else ""
    return (percent(score) if is_accuracy else f"{score.value:.3f}") + flag


def _ranking_text(ranking: Ranking, width: int | None) -> str:
    """The table with all intervals where it fits; else with those of the deciding score only, and
    where that is too wide as well, without the last of the other scores. Where nothing fits, lines."""
    console = console_of(width)
    table = _ranking_table(ranking, compact=False)
    others = [name for name in ranking.checkpoints[0].scores if name != ranking.score]
    hidden: list[str] = []
    while not fits(table, console) and len(hidden) < len(others):
        table = _ranking_table(ranking, compact=True, hidden=hidden)
        if not fits(table, console):
            hidden.append(others[-1 - len(hidden)])
            table = _ranking_table(ranking, compact=True, hidden=hidden)
    if not fits_folded(table, console):
        return listed_text(*table_cells(ranking))
    text = table_text(table, console)
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
    for row, cells in zip(ranking.at_best_layer(), rows, strict=True):
        if compact:
            cells = [
                cell if name in whole else cell.split(" [")[0]
                for name, cell in zip(header, cells, strict=True)
            ]
        style = "bold green" if row.rank == 1 else ("dim" if row.status == "failed" else "")
        add_row(table, cells, style)
    return table


def _agreement_text(confirmation: GoalConfirmation, form: str, width: int | None) -> str:
    header, rows = agreement_cells(confirmation)
    if form == "md":
        return markdown_rows(header, rows)
    table = plain_table(header, rows, [name for name in header if name != "score"])
    console = console_of(width)
    if not fits_folded(table, console):
        return listed_text(header, rows)
    return table_text(table, console)


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(map(_cell, header)) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return markdown(text, MAX_CELL)
