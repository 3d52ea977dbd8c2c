"""Tables for a terminal. A text in a cell is shown as it is: no markup, no emoji codes, no controls."""

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ckptsel.common.outlets import MAX_CELL, shown

WIDE = 10_000
"""Columns where nobody looks at a terminal: what reads the text wraps nothing."""

NARROW = 60
"""Columns below which a table of sentences would be cut into pieces of a few letters."""


def console_of(width: int | None) -> Console:
    """As wide as the terminal, or as the table needs where there is none."""
    console = _console(width)
    return _console(WIDE) if width is None and not console.is_terminal else console


def _console(width: int | None) -> Console:
    return Console(width=width, markup=False, emoji=False, highlight=False)


def plain_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]
) -> Table:
    """A table without a frame, whatever its cells hold. right: columns of numbers."""
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        add_row(table, row)
    return table


def add_row(table: Table, cells: Sequence[str], style: str = "") -> None:
    """Add cells, whatever they hold."""
    table.add_row(*(shown(cell, MAX_CELL) for cell in cells), style=style)


def table_text(table: Table, console: Console) -> str:
    """The table, ending in a line break."""
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def fits(table: Table, console: Console) -> bool:
    """Whether the console is wide enough for it with no cell broken."""
    return _measure(table, console).maximum <= console.width


def fits_folded(table: Table, console: Console) -> bool:
    """Whether it is wide enough with cells broken between words; else a number would be cut."""
    return _measure(table, console).minimum <= console.width


def _measure(table: Table, console: Console) -> Measurement:
    return console.measure(table, options=console.options.update(max_width=10 * WIDE))


def listed_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal that is too narrow for a table: a line for each value that is there,
    indented below the first column that has a name."""
    first = next(i for i, name in enumerate(header) if name)
    lines = []
    for row in rows:
        cells = [shown(cell, MAX_CELL) for cell in row]
        lines.append(" ".join(cell for cell in cells[: first + 1] if cell))
        rest = zip(header[first + 1 :], cells[first + 1 :], strict=True)
        lines += [f"  {name}: {cell}" for name, cell in rest if cell]
    return "".join(f"{line}\n" for line in lines)
