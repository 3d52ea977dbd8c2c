"""`report.html` of several targets: one page, a tab for what they say together and one for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from numpy.typing import NDArray

from ckptsel.common.files import write_text
from ckptsel.errors import reason_of
from ckptsel.report.charts import Drawing, draw
from ckptsel.report.overall import at_best_layer, overall_cells, overall_lines
from ckptsel.report.overall_charts import draw_regrets
from ckptsel.report.page import about_ranking, part, render
from ckptsel.results.files import PAGE_NAME
from ckptsel.results.ranking import Ranking
from ckptsel.results.targets import TargetsRecord

Ranked = Mapping[str, tuple[Ranking, Mapping[str, NDArray[Any]]]]
"""By the name of the target: its ranking, and the arrays beside it."""


def draw_overall_report(folder: Path, record: TargetsRecord, ranked: Ranked) -> str | None:
    """Write the page into `folder`; what went wrong, in a sentence, where that failed."""
    path = folder / PAGE_NAME
    try:
        write_text(path, overall_page(record, ranked))
    except Exception as error:  # whatever a chart's library raises
        return f"{path} could not be drawn ({reason_of(error)}); all else is written."
    return None


def overall_page(record: TargetsRecord, ranked: Ranked) -> str:
    """The page as HTML."""
    over_all = draw_regrets(record)
    drawings: list[Drawing] = [*over_all]
    panels = []
    for number, (name, (ranking, arrays)) in enumerate(ranked.items(), start=1):
        own = draw(ranking, arrays)
        panel = about_ranking(ranking, own, at=f"t{number}-", n_before=len(drawings))
        panels.append({**panel, "name": name, "href": f"{quote(name)}/{PAGE_NAME}"})
        drawings += own
    header, cells = overall_cells(record)
    return render(
        "targets.html",
        drawings,
        record=record,
        panels=panels,
        title=_title(record),
        lines=overall_lines(record),
        over_all=list(enumerate(over_all)),
        nearest=None if record.nearest is None else record[record.nearest],
        header=header,
        rows=list(zip(at_best_layer(record), cells, strict=True)),
        tab_style=Markup(part("targets.css")),
        tab_script=Markup(part("targets.js")),
    )


def _title(record: TargetsRecord) -> str:
    if record.nearest is None:
        return "Not known over all"
    if record.nearest in record.good_everywhere:
        return f"Use {record.nearest} on every target"
    return f"None is good everywhere, the nearest: {record.nearest}"
