"""`report.html`: one self-contained page that opens from disk, and fetches nothing.

The charts' library (Vega, Vega-Lite and Vega-Embed) lies inside the page, as vl-convert bundles it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup
from numpy.typing import NDArray

from ckptsel.common.files import write_bytes, write_text
from ckptsel.common.outlets import shown
from ckptsel.errors import reason_of
from ckptsel.report.charts import CONFIG, FIGURE_WIDTH, Drawing, draw
from ckptsel.report.command import rank_command
from ckptsel.report.explanation import explain
from ckptsel.report.tables import closing_lines, doubt_lines, table_cells
from ckptsel.results.estimate import percent
from ckptsel.results.files import PAGE_NAME
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.summary import against_reference, summary

SECTIONS = {
    "layers": "Where to read",
    "trajectory": "Along the trajectory",
    "confirmed": "Scores and what training gave",
    "agreement": "Do the scores agree?",
    "spectrum": "The spectrum of the features",
}

FIGURE_FORMATS = ("svg", "png", "pdf")
PNG_SCALE = 3.0
"""About 200 dots an inch for a figure of a column's width."""


def write_page(
    folder: Path,
    ranking: Ranking,
    arrays: Mapping[str, NDArray[Any]],
    reload_s: int | None = None,
) -> Path:
    """Write the report of a ranking into `folder`. arrays: what lies beside the ranking, by name.

    reload_s: seconds after which the page loads itself again, while the ranking still grows.
    """
    path = folder / PAGE_NAME
    write_text(path, page(ranking, draw(ranking, arrays), reload_s))
    return path


def draw_report(
    folder: Path,
    ranking: Ranking,
    arrays: Mapping[str, NDArray[Any]],
    reload_s: int | None = None,
) -> str | None:
    """`write_page`; what went wrong, in a sentence, where that failed.

    The results are written by then, and no chart is worth them.
    """
    try:
        write_page(folder, ranking, arrays, reload_s)
    except Exception as error:  # whatever a chart's library raises
        return f"{folder / PAGE_NAME} could not be drawn ({reason_of(error)}); all else is written."
    return None


def page(ranking: Ranking, drawings: Sequence[Drawing], reload_s: int | None = None) -> str:
    """The page as HTML. reload_s: as for `write_page`."""
    return render("page.html", drawings, reload_s=reload_s, **about_ranking(ranking, drawings))


def about_ranking(
    ranking: Ranking, drawings: Sequence[Drawing], at: str = "", n_before: int = 0
) -> dict[str, Any]:
    """What `sections.html` shows of a ranking. at: begins the ids of its elements, which are one page's.
    n_before: charts of the page before its own."""
    header, cells = _sure_first(*table_cells(ranking))
    rows = ranking.at_best_layer()
    sections = [
        (name, title, [(i, d) for i, d in enumerate(drawings, n_before) if d.section == name])
        for name, title in SECTIONS.items()
    ]
    plain = ranking.to_dict()
    return {
        "at": at,
        "ranking": ranking,
        "best": ranking[ranking.best],
        "answer": summary(ranking),
        "facts": _facts(ranking),
        "sections": [section for section in sections if section[2]],
        "header": ["rank", *header[1:], "notes"],
        "rows": [(row, line, _notes(row)) for row, line in zip(rows, cells, strict=True)],
        "closing": [*doubt_lines(ranking), *closing_lines(ranking)[1:]],
        "explained": explain(ranking),
        "command": rank_command(ranking),
        "again": [
            (key, Markup.escape(json.dumps(plain[key], indent=2)))
            for key in ("target", "model", "settings", "environment", "time_s")
        ],
    }


def render(template: str, drawings: Sequence[Drawing], **values: Any) -> str:
    """A page that holds its charts, their library, its style and its script."""
    return (
        _templates()
        .get_template(template)
        .render(
            style=Markup(part("page.css")),
            library=Markup(_library()),
            script=Markup(part("page.js")),
            specifications=Markup(_for_script([_specification(d) for d in drawings])),
            **values,
        )
    )


def write_figures(folder: Path, drawings: Sequence[Drawing], form: str) -> list[Path]:
    """Each chart as a file of its own, in one of FIGURE_FORMATS, in `folder`; for papers."""
    paths = []
    for drawing in drawings:
        specification = _specification(drawing)
        specification["width"] = FIGURE_WIDTH
        specification["background"] = "white"
        # A switch of the page would be drawn as nothing but its space.
        for parameter in specification.get("params", []):
            parameter.pop("bind", None)
        path = folder / f"{drawing.name}.{form}"
        write_bytes(path, _convert(specification, form))
        paths.append(path)
    return paths


def _convert(specification: dict[str, Any], form: str) -> bytes:
    version = _vegalite_version()
    if form == "svg":
        return vl_convert.vegalite_to_svg(specification, vl_version=version).encode()
    if form == "png":
        return vl_convert.vegalite_to_png(specification, vl_version=version, scale=PNG_SCALE)
    return vl_convert.vegalite_to_pdf(specification, vl_version=version)


def _specification(drawing: Drawing) -> dict[str, Any]:
    specification: dict[str, Any] = _all_shown(drawing.chart.to_dict(validate=False))
    specification["description"] = shown(f"{drawing.title}. {drawing.about}")
    specification["config"] = CONFIG
    return specification


def _all_shown(value: Any) -> Any:
    """Plain data with every text in it as people see it; charts show names as they are given."""
    if isinstance(value, str):
        return shown(value, most=None)
    if isinstance(value, dict):
        return {_all_shown(key): _all_shown(item) for key, item in value.items()}
    return [_all_shown(item) for item in value] if isinstance(value, list) else value


def _visible(value: Any) -> Any:
    """What Jinja quotes: texts as people see them; what is HTML already as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return shown(value, most=None)


def _facts(ranking: Ranking) -> list[tuple[str, str]]:
    """How sure, and against what: label and text."""
    best = ranking[ranking.best]
    facts = []
    trained = best.trained(ranking.goal)
    measured = best.scores.get(ranking.score)
    if trained is not None:
        facts.append((f"confirmed {ranking.goal.upper()} accuracy, %", percent(trained)))
    if measured is not None:
        if ranking.is_accuracy(ranking.score):
            facts.append((f"{ranking.score}, %", percent(measured)))
        else:
            facts.append((ranking.score, f"{measured.value:.4g}"))
    if ranking.expected is not None and ranking.is_accuracy(ranking.expected.by):
        facts.append(("expected on new images, %", percent(ranking.expected)))
    if best.p_best is not None:
        facts.append(("best in", f"{100 * best.p_best:.0f} % of draws"))
    for key, what in (("last", "the last"), ("source_accuracy", "the best by source accuracy")):
        reference = ranking.references.get(key)
        if reference is None:
            facts.append((what, "not recorded in the files"))
        elif reference.name == ranking.best:
            facts.append((what, "is this one"))
        else:
            facts.append((f"{what}: {reference.name}", against_reference(reference, ranking)))
    return facts


def _sure_first(
    header: Sequence[str], cells: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The table with P(best), its last column, beside the name: there it is seen without scrolling."""
    order = [0, 1, len(header) - 1, *range(2, len(header) - 1)]
    return [header[i] for i in order], [[row[i] for i in order] for row in cells]


def _notes(row: Row) -> str:
    """Flags of its scores, or why it failed."""
    if row.reason:
        return row.reason
    return "; ".join(f"{name}: {flag}" for name, s in row.scores.items() for flag in s.flags)


def _for_script(value: Any) -> str:
    """JSON inside a <script>: no text in it may end the element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _vegalite_version() -> str:
    """Of the schema that this Altair writes, as vl-convert numbers it: 6.1."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@cache
def _library() -> str:
    # Its stub asks for a snippet; without one the libraries themselves are bundled.
    bundle = vl_convert.javascript_bundle(vl_version=_vegalite_version())  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )


def part(name: str) -> str:
    """The text of a file that pages are made of."""
    return files("ckptsel.report").joinpath(name).read_text(encoding="utf-8")
