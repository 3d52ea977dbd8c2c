"""Whether the best lies behind: how far it is ahead of the last ones, and the chance that a later one
passes it.

The lead is measured, and its interval holds at 95 %. The chance is a rule of thumb: it draws a straight
line through the accuracies after the best, over the logarithm of the step, and no one knows that
training goes on along it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.ranking.judgement import N_RESAMPLES, Readings, compare_groups, resample_means
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import Ranking, Row

N_LAST = 5
"""So many must come after the best before anything is said."""

UNLIKELY = 0.05
"""The peak is past where the chance that a later one passes the best is below this."""

MAX_LATER = 100
"""Later checkpoints that are imagined."""


@dataclass(frozen=True)
class Peak:
    """The best and those after it.

    best: name of its row. label: what to call it. lead: how far it is ahead of the best of the last
    five, in the unit of the score; the interval holds for each pair of an earlier and a last one at
    once, so it allows for the luck of the one that is best. chance: that a later one passes it, were
    training to go on for as long again.
    """

    best: str
    label: str
    lead: Estimate
    chance: float
    is_accuracy: bool
    unit: str

    @property
    def is_past(self) -> bool:
        return (self.lead.low or 0) > 0 and self.chance < UNLIKELY

    @property
    def text(self) -> str:
        scale, unit = (100, "points") if self.is_accuracy else (1, self.unit)
        value, low, high = (scale * (x or 0) for x in (self.lead.value, *self.lead.bounds))
        form = ".1f" if self.is_accuracy else ".3g"
        return (
            f"{self.label} is ahead of the last {N_LAST} by {value:{form}} {unit} [{low:{form}}, "
            f"{high:{form}}]; the chance that a later one passes it, were training to go on for as long "
            f"again: {_percent(self.chance)}{', so the peak is past' if self.is_past else ''} (the "
            "chance is a rule of thumb)"
        )


def find_peak(ranking: Ranking, arrays: Mapping[str, NDArray[Any]], seed: int = 0) -> Peak | None:
    """What is known of the peak; None before five came after the best, or where nothing says how sure
    the order is. arrays: as `rank_with_predictions` gives them."""
    best, score = ranking[ranking.best], ranking.score
    if not ranking.is_known_how_sure:
        return None
    rows = sorted(
        (r for r in ranking if r.rank and r.copy_of is None and r.layer == best.layer),
        key=lambda row: row.order,
    )
    place = [row.name for row in rows].index(best.name)
    if len(rows) - 1 - place < N_LAST:
        return None
    readings = _readings(ranking, rows, arrays)
    n_first = len(rows) - N_LAST
    last = n_first + int(readings.means[n_first:].argmax())
    return Peak(
        best.name,
        best.name if best.epoch is None else f"epoch {best.epoch:g}",
        compare_groups(readings, n_first, place, last),
        chance_of_passing(readings, place, _progress(rows), seed),
        ranking.is_accuracy(score),
        ranking.units.get(score, ""),
    )


def chance_of_passing(
    readings: Readings, best: int, progress: Sequence[float], seed: int = 0
) -> float:
    """The chance that one of the checkpoints to come is better than the one at place `best`.

    readings: in the order of training, at least three after the best. progress: step or epoch of each.
    In each resample of the images (all candidates together, so that what is shared cancels) a line is
    fitted to the means after the best, over log(1 + progress); its two numbers and the scatter about
    it are drawn as least squares leaves them open (Student's t); and checkpoints as far apart as those
    after the best are drawn along it, until progress has doubled. The share of resamples in which one
    of them lies above the best is the chance. The scatter counts what images do to each checkpoint a
    second time, so that the chance is rather too high.
    """
    generator = np.random.default_rng((seed, 29))
    drawn = resample_means(readings, N_RESAMPLES, seed)
    later, x = drawn[best + 1 :], np.log1p(np.asarray(progress, float)[best + 1 :])
    n, n_drawn = later.shape
    if n < 3 or np.ptp(x) == 0:
        return 1.0
    design = np.stack([np.ones(n), x - x.mean()], axis=1)
    line = np.linalg.lstsq(design, later, rcond=None)[0]
    squares = ((later - design @ line) ** 2).sum(axis=0)
    scatter = np.sqrt(squares / generator.chisquare(n - 2, n_drawn))
    # The columns of the design are orthogonal: the errors of the line's numbers are independent.
    sizes = np.sqrt((design**2).sum(axis=0))[:, None]
    line = line + scatter * generator.standard_normal((2, n_drawn)) / sizes
    ahead = np.log1p(_to_come(progress[best + 1 :])) - x.mean()
    wiggle = scatter * generator.standard_normal((len(ahead), n_drawn))
    to_come = line[0] + ahead[:, None] * line[1] + wiggle
    return float((to_come.max(axis=0) > drawn[best]).mean())


def _to_come(progress: Sequence[float]) -> NDArray[np.float64]:
    first, last = min(progress), max(progress)
    n = math.ceil(last * (len(progress) - 1) / (last - first))
    return np.linspace(last, 2 * last, min(max(n, 1), MAX_LATER) + 1)[1:]


def _readings(
    ranking: Ranking, rows: Sequence[Row], arrays: Mapping[str, NDArray[Any]]
) -> Readings:
    values = np.stack([arrays[f"{row.name}/{ranking.score}/per_image"] for row in rows])
    if ranking.score in ranking.lower_is_better:
        return Readings(-values[:, None], is_accuracy=False)
    return Readings(values[:, None], is_accuracy=ranking.is_accuracy(ranking.score))


def _progress(rows: Sequence[Row]) -> list[float]:
    """Steps, where all are known, else epochs, else places."""
    for name in ("step", "epoch"):
        values = [getattr(row, name) for row in rows]
        if all(value is not None and value >= 0 for value in values):
            return [float(value) for value in values]
    return [float(row.order) for row in rows]


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else f"{100 * share:.0f} %"
