"""The report's charts, as Vega-Lite specifications made with Altair: on the page, and as figures.

Every chart is as wide as what holds it, draws with the text colour of the page, and shows its values
when one points at them. Series of one panel are switched off by check boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from numpy.typing import NDArray

from ckptsel.report.confirmation_tables import effective_cell
from ckptsel.report.series import (
    Axis,
    Record,
    agreement_records,
    average_records,
    choose_axis,
    confirmed_records,
    landmark_records,
    layer_records,
    spectrum_records,
    tie_records,
    trajectory_records,
)
from ckptsel.results.ranking import Ranking

PANELS = {
    "frozen features: accuracy, %": (
        "linear_probe",
        "ridge_probe",
        "main_component",
        "lda",
        "knn",
        "confirmed_fe",
    ),
    "fine-tuning: accuracy, %": ("confirmed_ft",),
    "residual component: accuracy, %": ("residual_component",),
    "log-likelihood, nats": ("linear_probe_loglik",),
    "LogME, nats": ("logme", "logme_thuml"),
    "source accuracy, %": ("source_accuracy",),
}
"""Which series share a panel and its axis. One that is named in none has a panel of its own."""

COLOURS = ("#2b8cd6", "#d9661f", "#119f75", "#c46b9e", "#7a6ff0", "#8a8a8a")
"""After Okabe and Ito (2008), for any colour vision; each at least 3:1 on white and on near black."""

TIE_COLOUR = "#b8860b"

GOAL_COLOURS = {"fe": COLOURS[0], "ft": COLOURS[1]}

SERIES_COLOURS = {
    "linear_probe": COLOURS[0],
    "ridge_probe": COLOURS[5],
    "main_component": COLOURS[2],
    "lda": COLOURS[1],
    "knn": COLOURS[3],
    "confirmed_fe": COLOURS[4],
    "confirmed_ft": COLOURS[1],
    "residual_component": COLOURS[3],
    "logme_thuml": COLOURS[1],
    "source_accuracy": COLOURS[5],
}
"""Of a series wherever it is drawn; the others are of the first colour."""

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "#8888",
        "gridOpacity": 0.35,
        "titleFontWeight": "normal",
    },
    "legend": {"labelColor": "currentColor"},
}
"""Of every chart; a figure outside a page takes black for the current colour."""

NARROW = 420
"""Pixels of a chart below which numbers in cells would overlap."""

LEGEND = alt.Legend(orient="bottom", title=None, symbolOpacity=1, columns=1)
"""One under the other: side by side they would be cut off on a phone."""

PANEL_HEIGHT = 220
FIGURE_WIDTH = 480


@dataclass(frozen=True)
class Drawing:
    """A chart with its place on the page.

    name: of the file it is saved as.
    section: `layers`, `trajectory`, `spectrum`, `agreement` or `confirmed`.
    about: what it shows, for those who do not see it.
    """

    name: str
    section: str
    title: str
    about: str
    chart: alt.TopLevelMixin


def draw(ranking: Ranking, arrays: Mapping[str, NDArray[Any]]) -> list[Drawing]:
    """Every chart that there are numbers for. arrays: those beside the ranking, by their names."""
    return [
        *_layers(ranking),
        *_trajectory(ranking),
        *_spectrum(ranking, arrays),
        *_agreement(ranking),
        *_confirmed(ranking),
    ]


def _unless_narrow(size: int) -> alt.ExprRef:
    return alt.ExprRef(f"width < {NARROW} ? 0 : {size}")


def _layers(ranking: Ranking) -> list[Drawing]:
    """A heat map: epochs across, layers down, those that can be the best outlined."""
    axis = choose_axis(ranking)
    records = layer_records(ranking, axis)
    if not records:
        return []
    layers = [layer for layer in ranking.layers if any(r["layer"] == layer for r in records)]
    values = [record["value"] for record in records]
    middle = (min(values) + max(values)) / 2
    base = alt.Chart().encode(
        x=alt.X("x:O", title=axis.title, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("layer:N", sort=layers, title=None),
        tooltip=[
            alt.Tooltip("candidate:N"),
            alt.Tooltip("value:Q", format=".4~f", title=ranking.score),
        ],
    )
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="viridis"), legend=None)
    ink = alt.condition(f"datum.value > {middle}", alt.value("black"), alt.value("white"))
    chart = alt.layer(
        base.mark_rect().encode(color=colour),
        base.transform_filter("datum.is_tied").mark_rect(
            fillOpacity=0, stroke="#d62728", strokeWidth=2.5
        ),
        base.mark_text(fontSize=_unless_narrow(10)).encode(text="text:N", color=ink),
        data=alt.Data(values=records),
    )
    best = ranking[ranking.best]
    means = {layer: max(r["value"] for r in records if r["layer"] == layer) for layer in layers}
    words = ", ".join(f"{layer} {value:.1f}" for layer, value in means.items())
    return [
        Drawing(
            "layers",
            "layers",
            f"{ranking.score} of every checkpoint at every layer",
            f"The best is {best.name}. The highest at each layer: {words}. Outlined: can be the best.",
            chart.properties(width="container", height=28 * len(layers)),
        )
    ]


def _trajectory(ranking: Ranking) -> list[Drawing]:
    axis = choose_axis(ranking)
    records, averages = trajectory_records(ranking, axis), average_records(ranking, axis)
    there = list(dict.fromkeys(record["series"] for record in records))
    placed = {name for names in PANELS.values() for name in names}
    panels = {**PANELS, **{_own_title(ranking, n): (n,) for n in there if n not in placed}}
    drawings = []
    for title, names in panels.items():
        shown = [name for name in names if name in there]
        if shown:
            rows, means = (
                [record for record in some if record["series"] in shown]
                for some in (records, averages)
            )
            drawings.append(_panel(ranking, axis, title, shown, rows, means))
    return drawings


def _own_title(ranking: Ranking, name: str) -> str:
    """Of the panel of a score that shares it with no other."""
    unit = "%" if ranking.is_accuracy(name) else ranking.units.get(name)
    title = f"{name}, {unit}" if unit else name
    return f"{title} (the lowest is the best)" if name in ranking.lower_is_better else title


def _panel(
    ranking: Ranking,
    axis: Axis,
    title: str,
    series: Sequence[str],
    records: list[Record],
    averages: list[Record],
) -> Drawing:
    legend = LEGEND if len(series) > 1 else None
    colours = [SERIES_COLOURS.get(name, COLOURS[0]) for name in series]
    scale = alt.Scale(domain=list(series), range=colours)
    colour = alt.Color("series:N", scale=scale, legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=list(series)), legend=legend)
    x, y = _across(axis), alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("series:N"),
        alt.Tooltip("value:Q", format=".4~f"),
        alt.Tooltip("low:Q", format=".4~f", title="95 % from"),
        alt.Tooltip("high:Q", format=".4~f", title="to"),
    ]
    base = alt.Chart().encode(x=x, color=colour)
    switches = [
        alt.param(f"show_{i}", bind=alt.binding_checkbox(name=f"{name} "), value=True)
        for i, name in enumerate(series)
        if len(series) > 1
    ]
    for i, name in enumerate(series):
        if switches:
            base = base.transform_filter(f"show_{i} || datum.series != '{name}'")
    layers = [
        base.mark_line().encode(y=y),
        base.mark_point(filled=True, size=70, opacity=1).encode(y=y, shape=shape, tooltip=tooltip),
    ]
    if averages:
        # Beside the line: they are no moments of the run.
        own = base.properties(data=alt.Data(values=averages))
        hollow = own.mark_point(filled=False, size=45, opacity=0.8)
        layers.append(hollow.encode(y=y, shape=shape, tooltip=tooltip))
    if any(record["low"] is not None for record in records):
        bounded = base.transform_filter("datum.low != null")
        band = bounded.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        layers.insert(0, band)
    chart = alt.layer(*_landmarks(ranking, axis), *layers, data=alt.Data(values=records))
    if switches:
        chart = chart.add_params(*switches)
    return Drawing(
        name="trajectory-" + "-".join(series[:1]),
        section="trajectory",
        title=title,
        about=_about_panel(ranking, axis, series, records) + _about_averages(averages),
        chart=chart.properties(width="container", height=PANEL_HEIGHT),
    )


def _across(axis: Axis) -> alt.X:
    scale = alt.Scale(type="log", nice=False) if axis.is_log else alt.Scale(zero=False)
    return alt.X("x:Q", title=axis.title, scale=scale, axis=alt.Axis(grid=False))


def _landmarks(ranking: Ranking, axis: Axis) -> list[alt.Chart]:
    """The tie set shaded; best, last and best by source accuracy as labelled lines."""
    ties, marks = tie_records(ranking, axis), landmark_records(ranking, axis)
    x, layers = _across(axis), []
    if ties:
        shade = alt.Chart(alt.Data(values=ties)).mark_rule(
            strokeWidth=16, opacity=0.18, color=TIE_COLOUR
        )
        layers.append(shade.encode(x=x, tooltip=[alt.Tooltip("checkpoint:N", title="tied")]))
    rules = alt.Chart(alt.Data(values=marks)).mark_rule(
        strokeDash=[4, 3], opacity=0.6, color="currentColor"
    )
    layers.append(rules.encode(x=x))
    for i, mark in enumerate(marks):
        # Neighbours stand in two lines, and the last ends where the chart does.
        text = alt.Chart(alt.Data(values=[mark])).mark_text(
            align="right" if mark is marks[-1] else "center",
            dy=-4 - 13 * (i % 2),
            baseline="bottom",
            color="currentColor",
        )
        layers.append(text.encode(x=x, y=alt.value(0), text="label:N"))
    return layers


def _about_panel(ranking: Ranking, axis: Axis, series: Sequence[str], records: list[Record]) -> str:
    """The best and the last value of each series, in words."""
    parts = []
    for name in series:
        rows = [record for record in records if record["series"] == name]
        word = "lowest" if name in ranking.lower_is_better else "highest"
        top = max(rows, key=lambda r: ranking.higher_when_better(r["series"], r["value"]))
        last = max(rows, key=lambda r: r["x"])
        parts.append(
            f"{name}: {word} {top['value']:.4g} at {axis.name} {top['x']:g}, "
            f"{last['value']:.4g} at the last, {last['x']:g}"
        )
    return f"Against the {axis.title}. " + "; ".join(parts) + "."


def _about_averages(averages: list[Record]) -> str:
    return " Hollow: averages, each at its last checkpoint." if averages else ""


def _spectrum(ranking: Ranking, arrays: Mapping[str, NDArray[Any]]) -> list[Drawing]:
    records = spectrum_records(ranking, arrays)
    if not records:
        return []
    names = list(dict.fromkeys(record["checkpoint"] for record in records))
    energy = 100 * ranking.settings["energy"]
    colour = alt.Color(
        "checkpoint:N",
        scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])),
        legend=LEGEND,
    )
    y = alt.Y(
        "share:Q",
        title="part of the sum of singular values, %",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~g"),
    )
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("index:Q"),
        alt.Tooltip("share:Q", format=".3~f", title="part, %"),
        alt.Tooltip("cumulative:Q", format=".1f", title="with those before, %"),
    ]
    base = alt.Chart().encode(
        x=alt.X("index:Q", title="singular value, the largest first", axis=alt.Axis(grid=False)),
        y=y,
        color=colour,
        tooltip=tooltip,
    )
    cut = base.transform_filter("datum.is_cut")
    chart = alt.layer(
        base.mark_line(),
        base.mark_point(filled=True, size=60, opacity=0.01),
        cut.mark_rule(strokeDash=[4, 3]).encode(y=alt.value(0), y2=alt.value(PANEL_HEIGHT)),
        cut.mark_point(filled=True, size=110, opacity=1),
        data=alt.Data(values=records),
    )
    cuts = [f"{r['checkpoint']} {r['index']}" for r in records if r["is_cut"]]
    about = f"How many singular values make up {energy:g} % of the sum: {', '.join(cuts)}."
    return [
        Drawing(
            "spectrum",
            "spectrum",
            f"singular values, with the cut at {energy:g} % of their sum",
            about,
            chart.properties(width="container", height=PANEL_HEIGHT + 40),
        )
    ]


def _agreement(ranking: Ranking) -> list[Drawing]:
    records = agreement_records(ranking)
    names = list(dict.fromkeys(record["a"] for record in records))
    if len(names) < 2:
        return []
    base = alt.Chart().encode(
        x=alt.X("b:N", sort=names, title=None, axis=alt.Axis(labelAngle=-50)),
        y=alt.Y("a:N", sort=names, title=None),
        tooltip=["a:N", "b:N", alt.Tooltip("tau:Q", format=".2f"), alt.Tooltip("n:Q")],
    )
    colour = alt.Color(
        "tau:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1]), legend=None, title="tau"
    )
    ink = alt.condition("abs(datum.tau) > 0.6", alt.value("white"), alt.value("black"))
    chart = alt.layer(
        base.mark_rect().encode(color=colour),
        base.mark_text(fontSize=_unless_narrow(11)).encode(
            text=alt.Text("tau:Q", format=".2f"), color=ink
        ),
        data=alt.Data(values=records),
    )
    decided = [r for r in records if r["a"] == "epoch" and r["b"] != "epoch"]
    words = ", ".join(f"{r['b']} {r['tau']:.2f}" for r in decided)
    return [
        Drawing(
            "agreement",
            "agreement",
            "Kendall's tau between the orders that scores give",
            f"1: the same order; -1: the opposite. With the epoch: {words}.",
            chart.properties(width="container", height=30 * len(names)),
        )
    ]


def _confirmed(ranking: Ranking) -> list[Drawing]:
    drawings = []
    for goal, confirmation in ranking.confirmation.items():
        records = confirmed_records(ranking, goal)
        for name in dict.fromkeys(record["series"] for record in records):
            rows = [record for record in records if record["series"] == name]
            agreement = confirmation.agreement.get(name)
            tau = agreement.kendall_tau if agreement is not None else None
            about = f"{len(rows)} checkpoints"
            if agreement is not None and agreement.n_effective is not None:
                about += f", worth {effective_cell(agreement)} independent ones"
            if tau is not None:
                about = f"Kendall's tau {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}], {about}"
            drawings.append(
                Drawing(
                    f"confirmed-{goal}-{name}",
                    "confirmed",
                    f"{name} and {goal.upper()}",
                    f"{about}.",
                    _scatter(rows, name, goal),
                )
            )
    return drawings


def _scatter(records: list[Record], name: str, goal: str) -> alt.LayerChart:
    base = alt.Chart().encode(
        x=alt.X("value:Q", title=name, scale=alt.Scale(zero=False)),
        color=alt.value(GOAL_COLOURS[goal]),
    )
    title = f"{goal.upper()} accuracy, %"
    y = alt.Y("accuracy:Q", title=title, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("value:Q", format=".4~f", title=name),
        alt.Tooltip("accuracy:Q", format=".1f", title="accuracy, %"),
    ]
    return alt.layer(
        base.mark_rule(opacity=0.4).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(y=y, tooltip=tooltip),
        data=alt.Data(values=records),
    ).properties(width="container", height=180)
