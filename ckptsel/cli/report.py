"""`ckptsel report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ckptsel.cli.checks import why_not_drawn
from ckptsel.cli.command import command
from ckptsel.common.outlets import shown
from ckptsel.common.streams import put
from ckptsel.errors import OutputError
from ckptsel.settings.kinds import RunArgument
from ckptsel.settings.option import Given, Option, Options


@dataclass(frozen=True)
class ReportOptions(Options):
    """The options of `ckptsel report`."""

    run: RunArgument
    out: Annotated[
        Path | None, Option("Folder for report.html.", ("--out", "-o"), default="RUN")
    ] = None
    figures: Annotated[
        Literal["svg", "png", "pdf"] | None,
        Option("Also write every chart as a file: svg, png or pdf, in figures/."),
    ] = None


@command(ReportOptions)
def report(given: Given) -> None:
    """Write the report of a ranking: one HTML page that holds all it shows; prints its path.

    Example: ckptsel report ranking/ --figures pdf
    """
    _run(given.make(ReportOptions))


def _run(options: ReportOptions) -> None:
    """Everything that computes and writes."""
    if (reason := why_not_drawn()) is not None:
        raise OutputError(f"{reason}. Run it without.")

    from ckptsel.report.charts import draw
    from ckptsel.report.page import write_figures, write_page
    from ckptsel.results.files import read_ranking

    ranking, arrays = read_ranking(options.run)
    folder = options.out or options.run
    put(f"{shown(str(write_page(folder, ranking, arrays)))}\n")
    if options.figures is not None:
        for path in write_figures(folder / "figures", draw(ranking, arrays), options.figures):
            put(f"{shown(str(path))}\n")
