"""A comparison as text: sentences and a table for terminals, Markdown, CSV, JSON."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, markdown, shown
from ckptsel.comparison.compare import PAIRED, Comparison, Measure, Move, beyond_chance
from ckptsel.comparison.matching import NAME, Matched
from ckptsel.errors import listed
from ckptsel.report.tables import markdown_rows
from ckptsel.report.terminal import (
    console_of,
    fits_folded,
    listed_text,
    plain_table,
    table_text,
)
from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import Estimate, Measured, percent
from ckptsel.results.ranking import Ranking, Row

COLUMNS = ("value", "other_value", "change", "beside_others")
"""Estimates of a move, each three columns of a CSV."""


def format_comparison(comparison: Comparison, form: str, width: int | None = None) -> str:
    """The comparison in one of `ckptsel.report.tables.TEXT_FORMATS`, ending in a line break."""
    if form == "json":
        return json_text(comparison_dict(comparison))
    if form == "csv":
        return csv_text([_flat(move) for move in comparison.moves])
    top, notes = list(sentences(comparison)), list(_notes(comparison))
    header, rows = _cells(comparison)
    if form == "md":
        paragraphs = [f"{markdown(line)}\n\n" for line in top]
        below = "".join(f"\n{markdown(line)}\n" for line in notes)
        return "".join(paragraphs) + markdown_rows(header, rows) + below
    console = console_of(width)
    table = plain_table(header, rows, header[1:])
    text = table_text(table, console) if fits_folded(table, console) else listed_text(header, rows)
    return (
        "".join(f"{shown(line)}\n" for line in top)
        + "\n"
        + text
        + "".join(f"{shown(line)}\n" for line in notes)
    )


def sentences(comparison: Comparison) -> Iterator[str]:
    """What the comparison says, the most important first; one paragraph each."""
    first, second, matched = comparison.first, comparison.second, comparison.matched
    partner = matched.partner(first.best)
    if partner is not None and partner.name == second.best:
        yield f"the best of both is {first.best}."
    else:
        yield _where_it_stands("A", first, "B", second, partner)
        other = matched.turned().partner(second.best)
        yield _where_it_stands("B", second, "A", first, other)
    if comparison.order is not None:
        yield _agreement(comparison)
    yield _moved(comparison)


def _where_it_stands(a: str, ranking: Ranking, b: str, other: Ranking, row: Row | None) -> str:
    who = f"the best of {a}, {ranking.best},"
    if row is None:
        return f"{who} is not in {b}; the best of {b} is {other.best}."
    if row.rank is None:
        return f"{who} could not be used in {b}: {row.reason}"
    n = sum(r.rank is not None and r.copy_of is None for r in other)
    text = f"{who} is {_ordinal(row.rank)} of {n} in {b}, "
    if row.behind_best is None:
        return f"{text}whose best is {other.best}; how far it is behind was not measured."
    text += f"{_behind(row.behind_best, other)} behind its best, {other.best}"
    return text + (", and tied with it." if row.in_tie_set else ".")


def _behind(behind: Measured, ranking: Ranking) -> str:
    measure = Measure(
        behind.by, None, ranking.is_accuracy(behind.by), ranking.units.get(behind.by, "")
    )
    return f"{_number(behind, measure)} {_unit(measure)} {_interval(behind, measure)}"


def _agreement(comparison: Comparison) -> str:
    order, by = comparison.order, comparison.measure
    if order is None or order.kendall_tau is None or by is None:
        return ""
    low, high = order.kendall_tau.bounds
    worth = (
        ""
        if order.n_effective is None
        else (f"; neighbours are alike, so {order.n} are worth {order.n_effective:.1f} independent")
    )
    return (
        f"order of {order.n} checkpoints by {by.by}: Kendall's tau {order.kendall_tau.value:.2f} "
        f"[{low:.2f}, {high:.2f}]{worth}."
    )


def _moved(comparison: Comparison) -> str:
    measure = comparison.measure
    if measure is None:
        return "no score is in both: only the ranks can be compared."
    if comparison.how is None:
        return f"whether {measure.by} changed by more than chance is not known: it has no interval."
    beside = _is_known_beside(comparison)
    if comparison.how == PAIRED:
        where = "differences are paired: both were read on the same images"
    elif beside:
        where = "intervals are independent: the images are not the same"
    else:
        where = "intervals are independent: what each image gave was not kept beside both"
    than = " beside the others" if beside else ""
    ups = [m.pair.first.name for m in comparison.moves if m.moved == "up"]
    downs = [m.pair.first.name for m in comparison.moves if m.moved == "down"]
    found = [
        f"{word}: {listed(names, 5)}" for word, names in (("up", ups), ("down", downs)) if names
    ]
    said = "; ".join(found) or "none"
    return f"moved by more than chance in {measure.by}{than}: {said} ({where})."


def _is_known_beside(comparison: Comparison) -> bool:
    return any(move.beside_others is not None for move in comparison.moves)


def _notes(comparison: Comparison) -> Iterator[str]:
    matched, measure = comparison.matched, comparison.measure
    if comparison.how is not None and measure is not None:
        beside = _is_known_beside(comparison)
        yield (
            f"change is B less A, in {_unit(measure)}"
            + ("; beside others, that less the mean change of all" * beside)
            + ". * by more than chance: 95 % intervals, for all changes at once, over images"
            + (" and seeds." if measure.by == CONFIRMED else ".")
        )
    if comparison.differs:
        made = "; ".join(f"{what} {a} -> {b}" for what, a, b in comparison.differs)
        yield f"made otherwise: {made}."
    yield from _matching_notes(matched)


def _matching_notes(matched: Matched) -> Iterator[str]:
    by_name = [pair.first.name for pair in matched.pairs if pair.by == NAME]
    if by_name:
        yield f"matched by name, since the digests of their tensors differ: {listed(by_name, 5)}."
    for which, rows in (("A", matched.only_first), ("B", matched.only_second)):
        if rows:
            yield f"only in {which}: {listed([row.name for row in rows], 5)}."


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    measure = comparison.measure
    header = ["checkpoint", "rank", "P(best)"]
    beside = _is_known_beside(comparison)
    if measure is not None:
        header += [f"{measure.by} A", f"{measure.by} B", "change", *["beside others"] * beside]
    rows = []
    for move in comparison.moves:
        a, b = move.pair.first, move.pair.second
        cells = [_name(a, b), _arrow(_rank(a), _rank(b)), _arrow(_share(a), _share(b))]
        if measure is not None:
            cells += [_value(move.value, measure), _value(move.other_value, measure)]
            cells += [_change(move.change, measure)]
            cells += [_change(move.beside_others, measure)] * beside
        rows.append(cells)
    return header, rows


def _name(first: Row, second: Row) -> str:
    return first.name if first.name == second.name else f"{first.name} (in B {second.name})"


def _arrow(one: str, two: str) -> str:
    return one if one == two else f"{one} -> {two}"


def _rank(row: Row) -> str:
    if row.rank is None:
        return "failed"
    return f"{row.rank}=" if row.in_tie_set and row.rank != 1 else str(row.rank)


def _share(row: Row) -> str:
    return "" if row.p_best is None else f"{row.p_best:.2f}"


def _value(value: Estimate | None, measure: Measure) -> str:
    if value is None:
        return ""
    return percent(value) if measure.is_accuracy else f"{value.value:.3f}"


def _change(change: Estimate | None, measure: Measure) -> str:
    if change is None:
        return ""
    star = " *" if beyond_chance(change) else ""
    return f"{_number(change, measure, '+')} {_interval(change, measure)}{star}"


def _number(value: Estimate, measure: Measure, sign: str = "") -> str:
    factor, digits = (100, 1) if measure.is_accuracy else (1, 3)
    return f"{round(factor * value.value, digits) + 0.0:{sign}.{digits}f}"


def _interval(value: Estimate, measure: Measure) -> str:
    factor, digits = (100, 1) if measure.is_accuracy else (1, 3)
    low, high = (f"{round(factor * x, digits) + 0.0:.{digits}f}" for x in value.bounds)
    return f"[{low}, {high}]"


def _unit(measure: Measure) -> str:
    return "points" if measure.is_accuracy else measure.unit or "nats"


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    c = comparison
    return {
        "schema": "ckptsel.comparison/1",
        "first": _about(c.first),
        "second": _about(c.second),
        "sentences": list(sentences(c)),
        "by": c.measure and c.measure.by,
        "step": c.measure and c.measure.step,
        "how": c.how,
        "agreement": c.order and dataclasses.asdict(c.order),
        "checkpoints": [_nested(move) for move in c.moves],
        "only_first": [row.name for row in c.matched.only_first],
        "only_second": [row.name for row in c.matched.only_second],
        "differs": [{"what": what, "first": a, "second": b} for what, a, b in c.differs],
    }


def _about(ranking: Ranking) -> dict[str, Any]:
    return {
        "ckptsel": ranking.version,
        "created": ranking.created,
        "goal": ranking.goal,
        "data": ranking.target["data"],
        "best": ranking.best,
    }


def _placed(move: Move) -> dict[str, Any]:
    a, b = move.pair.first, move.pair.second
    placed = {"name": a.name, "other_name": b.name, "matched_by": move.pair.by, "moved": move.moved}
    for prefix, row in (("", a), ("other_", b)):
        placed |= {f"{prefix}{key}": getattr(row, key) for key in ("rank", "in_tie_set", "p_best")}
    return placed


def _nested(move: Move) -> dict[str, Any]:
    return _placed(move) | {name: _bounds(getattr(move, name)) for name in COLUMNS}


def _flat(move: Move) -> dict[str, Any]:
    flat = _placed(move)
    for name in COLUMNS:
        bounds = _bounds(getattr(move, name)) or {}
        flat |= {name: bounds.get("value")}
        flat |= {f"{name}_{end}": bounds.get(end) for end in ("low", "high")}
    return flat


def _bounds(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else {k: getattr(value, k) for k in ("value", "low", "high")}
