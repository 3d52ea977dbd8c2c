"""The paper's figures from a run's raw numbers, as SVG and PNG in `figures/`.

| file | in the paper |
| --- | --- |
| `fig1-transfer` | Figures 1 and 2: FE and FT accuracy against the pre-training epoch |
| `fig3-tsne` | Figure 3: t-SNE of the features before and after FT |
| `fig4-components` | Figure 4: accuracy on F_m and F_r against the epoch |
| `fig5-logme` | Figure 5: LogME against FE and FT accuracy |
| `readings` | none: F_m and F_r in three readings, with two probes |
| `layers` | none: F, F_m and F_r of every layer |
| `spectrum` | none: singular values of the features, by epoch |
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from ckptsel.common.files import atomic_path
from ckptsel.ranking.correlation import kendall_tau
from ckptsel.reproduce.readings import PROBES, READINGS
from ckptsel.reproduce.results import Results

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""That people with any colour vision can tell apart (Okabe and Ito 2008)."""

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "ckptsel",
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "axes.prop_cycle": cycler(color=COLOURS),
}

MARKERS = ("o", "s", "^", "D", "v")
GOAL_COLOURS = {"fe": "C0", "ft": "C1"}
COMPONENTS = ("all", "main", "residual")
COMPONENT_COLOURS = {"main": "C0", "residual": "C1", "all": "C6"}
COMPONENT_NAMES = {"main": "F_m", "residual": "F_r", "all": "F"}
READING_NAMES = {"train": "training basis", "own": "own basis", "batch": "basis of each batch"}

Draw = Callable[[Results], Figure | None]


def draw_figures(results: Results, folder: Path) -> list[Path]:
    """Every figure that the run has numbers for; the files."""
    paths = []
    for name, draw in FIGURES.items():
        with mpl.rc_context(STYLE):
            figure = draw(results)
            if figure is None:
                continue
            for suffix in ("svg", "png"):
                path = folder / "figures" / f"{name}.{suffix}"
                metadata = {"Date": None} if suffix == "svg" else {}
                with atomic_path(path) as temporary:
                    figure.savefig(temporary, format=suffix, bbox_inches="tight", metadata=metadata)
                paths.append(path)
    return paths


def _transfer(results: Results) -> Figure | None:
    """A panel a goal and target: mean over transfer seeds, one line a pre-training seed."""
    targets, goals = results.values("transfers", "target"), results.values("transfers", "goal")
    if not targets:
        return None
    figure, axes = _grid(len(goals), len(targets))
    for i, goal in enumerate(goals):
        for j, target in enumerate(targets):
            ax = axes[i, j]
            for seed in results.values("transfers", "seed"):
                rows = results.rows("transfers", target=target, goal=goal, seed=seed)
                rows = [row for row in rows if row["accuracy"] != ""]
                marker, colour = MARKERS[seed % len(MARKERS)], GOAL_COLOURS[goal]
                _line(ax, rows, f"seed {seed}", marker, colour)
            ax.set_title(f"{target}: {goal.upper()}")
            _epoch_axis(ax)
    _label_left(axes, "accuracy, %")
    _legend_below(figure, axes, ncols=3 * len(targets))
    return figure


def _components(results: Results) -> Figure | None:
    """F_m and F_r before FT as `rank` scores them, for every target."""
    targets = results.values("scores", "target")
    if not targets:
        return None
    figure, axes = _grid(1, len(targets))
    for j, target in enumerate(targets):
        for component in ("main", "residual"):
            for seed in results.values("scores", "seed"):
                rows = results.rows(
                    "scores", target=target, seed=seed, score=f"{component}_component"
                )
                rows = [{"epoch": row["epoch"], "accuracy": row["value"]} for row in rows]
                label = f"{COMPONENT_NAMES[component]}, seed {seed}"
                marker = MARKERS[seed % len(MARKERS)]
                _line(axes[0, j], rows, label, marker, COMPONENT_COLOURS[component])
        axes[0, j].set_title(target)
        _epoch_axis(axes[0, j])
    _label_left(axes, "held-out accuracy, %")
    _legend_below(figure, axes, ncols=2)
    return figure


def _readings(results: Results) -> Figure | None:
    """A panel a reading and stage, a line a component and probe; the mean over seeds."""
    if not results.tables["components"]:
        return None
    stages = results.values("components", "stage")
    target = results.values("components", "target")[0]
    figure, axes = _grid(len(stages), len(READINGS))
    for i, stage in enumerate(stages):
        for j, reading in enumerate(READINGS):
            for component in COMPONENTS:
                for probe in PROBES:
                    rows = results.rows(
                        "components",
                        target=target,
                        stage=stage,
                        probe=probe,
                        component=component,
                        reading="" if component == "all" else reading,
                    )
                    label = f"{COMPONENT_NAMES[component]}, {probe} probe"
                    style = "-" if probe == "paper" else "--"
                    colour = COMPONENT_COLOURS[component]
                    _line(axes[i, j], rows, label, "o", colour, style)
            axes[i, j].set_title(f"{READING_NAMES[reading]}, {stage} FT")
            axes[i, j].set_ylim(0, 102)
            _epoch_axis(axes[i, j])
    _label_left(axes, f"{target}: accuracy, %")
    _legend_below(figure, axes, ncols=3)
    return figure


def _layers(results: Results) -> Figure | None:
    """A row a target, a panel a component, a line a layer; the mean over seeds."""
    targets, layers = results.values("layers", "target"), results.values("layers", "layer")
    if not targets:
        return None
    figure, axes = _grid(len(targets), len(COMPONENTS))
    for i, target in enumerate(targets):
        for j, component in enumerate(COMPONENTS):
            for number, layer in enumerate(layers):
                rows = results.rows("layers", target=target, component=component, layer=layer)
                marker = MARKERS[number % len(MARKERS)]
                _line(axes[i, j], rows, layer, marker, COLOURS[number % len(COLOURS)])
            axes[i, j].set_title(f"{target}: {COMPONENT_NAMES[component]}")
            _epoch_axis(axes[i, j])
    _label_left(axes, "held-out accuracy, %")
    _legend_below(figure, axes, ncols=6)
    return figure


def _tsne(results: Results) -> Figure | None:
    """Before and after FT, early and last epoch, each with its 10-NN purity and silhouette."""
    if not results.tables["embedding"]:
        return None
    target = results.values("embedding", "target")[0]
    seed = results.values("embedding", "seed")[0]
    epochs, stages = results.values("embedding", "epoch"), results.values("embedding", "stage")
    figure, axes = _grid(len(stages), len(epochs))
    for i, stage in enumerate(stages):
        for j, epoch in enumerate(epochs):
            ax, where = axes[i, j], {"target": target, "seed": seed, "epoch": epoch, "stage": stage}
            rows = results.rows("embedding", **where)
            x, y, label = (np.array([row[k] for row in rows]) for k in ("x", "y", "label"))
            ax.scatter(x, y, c=label, cmap="tab10", s=3, linewidths=0, rasterized=True)
            (measured,) = results.rows(
                "clusters", **where, space="tsne", transfer_seed=rows[0]["transfer_seed"]
            )
            ax.set_title(
                f"epoch {epoch}, {stage} FT\n10-NN purity {100 * measured['knn_purity']:.1f} %, "
                f"silhouette {measured['silhouette']:.2f}"
            )
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
    figure.suptitle(f"{target}, held-out images, a colour a class")
    return figure


def _logme(results: Results) -> Figure | None:
    """LogME against FE and FT accuracy, a point a checkpoint, coloured by its epoch."""
    targets, goals = results.values("transfers", "target"), results.values("transfers", "goal")
    if not targets:
        return None
    figure, axes = _grid(len(goals), len(targets))
    epochs = results.values("transfers", "epoch")
    colours = ScalarMappable(LogNorm(min(epochs), max(epochs)), "viridis")
    for i, goal in enumerate(goals):
        for j, target in enumerate(targets):
            taus = []
            for seed in results.values("transfers", "seed"):
                points = _score_against(results, target, seed, goal, "logme")
                if len(points) < 3:
                    continue
                epoch, x, y = np.array(points).T
                marker, shades = MARKERS[seed % len(MARKERS)], colours.to_rgba(epoch)
                axes[i, j].scatter(x, 100 * y, s=18, c=shades, marker=marker, label=f"seed {seed}")
                taus.append(kendall_tau(x, y))
            axes[i, j].set_title("\n".join([f"{target}: {goal.upper()}", *_tau_title(taus)]))
            axes[i, j].set_xlabel("LogME, nats")
    _label_left(axes, "accuracy, %")
    bar = figure.colorbar(colours, ax=axes, label="pre-training epoch", aspect=40)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    _legend_below(figure, axes, ncols=5, colour="black")
    return figure


def _tau_title(taus: Sequence[float]) -> list[str]:
    """One line; none where there were too few checkpoints."""
    if not taus:
        return []
    of_seeds = f" ({min(taus):.2f} to {max(taus):.2f})" if len(taus) > 1 else ""
    return [f"tau {np.mean(taus):.2f}{of_seeds}"]


def _spectrum(results: Results) -> Figure | None:
    """Singular values, divided by the largest, and what they add up to, by epoch; seed 0."""
    if not results.tables["spectra"]:
        return None
    target, seed = results.tables["spectra"][0]["target"], results.tables["spectra"][0]["seed"]
    figure, axes = _grid(1, 2)
    epochs = sorted({r["epoch"] for r in results.rows("spectra", target=target, seed=seed)})
    for i, epoch in enumerate(epochs):
        rows = results.rows("spectra", target=target, seed=seed, epoch=epoch, stage="before")
        values = np.array([row["singular_value"] for row in rows])
        colour = mpl.colormaps["viridis"](i / max(1, len(epochs) - 1))
        places = np.arange(1, len(values) + 1)
        axes[0, 0].plot(places, values / values[0], color=colour)
        axes[0, 1].plot(places, values.cumsum() / values.sum(), color=colour, label=str(epoch))
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylim(bottom=1e-4)
    axes[0, 1].axhline(0.8, color="black", lw=0.8, ls=":")
    axes[0, 0].set_ylabel("singular value / largest")
    axes[0, 1].set_ylabel("part of their sum")
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_xlabel("index")
    _legend_below(figure, axes[:, 1:], ncols=7, title="pre-training epoch")
    figure.suptitle(f"{target}, training features, pre-training seed {seed}")
    return figure


FIGURES: dict[str, Draw] = {
    "fig1-transfer": _transfer,
    "fig3-tsne": _tsne,
    "fig4-components": _components,
    "fig5-logme": _logme,
    "readings": _readings,
    "layers": _layers,
    "spectrum": _spectrum,
}


def _grid(n_rows: int, n_columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3.4 * n_columns, 2.7 * n_rows), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def _line(
    ax: Axes, rows: list[dict[str, Any]], label: str, marker: str, colour: str, style: str = "-"
) -> None:
    """Mean accuracy by epoch, and the range of what was averaged."""
    epochs = sorted({row["epoch"] for row in rows})
    if not epochs:
        return
    groups = [[100 * float(r["accuracy"]) for r in rows if r["epoch"] == e] for e in epochs]
    means = [np.mean(group) for group in groups]
    ax.plot(epochs, means, style, marker=marker, ms=3.5, lw=1.2, color=colour, label=label)
    ax.fill_between(
        epochs,
        [min(group) for group in groups],
        [max(group) for group in groups],
        color=colour,
        alpha=0.15,
        lw=0,
    )


def _score_against(
    results: Results, target: str, seed: int, goal: str, score: str
) -> list[tuple[float, float, float]]:
    """(epoch, score, mean accuracy) of every checkpoint."""
    points = []
    for row in results.rows("scores", target=target, seed=seed, score=score):
        runs = results.rows("transfers", target=target, seed=seed, goal=goal, epoch=row["epoch"])
        accuracy = [float(run["accuracy"]) for run in runs if run["accuracy"] != ""]
        if accuracy:
            points.append((float(row["epoch"]), float(row["value"]), float(np.mean(accuracy))))
    return points


def _epoch_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("pre-training epoch")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    low, high = ax.get_xlim()
    ax.set_xticks([tick for tick in ticks if low <= tick <= high])


def _label_left(axes: Any, text: str) -> None:
    for row in axes:
        row[0].set_ylabel(text)


def _legend_below(
    figure: Figure, axes: Any, ncols: int, title: str | None = None, colour: str | None = None
) -> None:
    """Of the first panel; below the figure it hides no line. colour: of its marks, if not their own."""
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, ncols=ncols, title=title, loc="upper center", bbox_to_anchor=(0.5, 0)
    )
    for handle in legend.legend_handles:
        if colour and isinstance(handle, PathCollection):
            handle.set_color(colour)
