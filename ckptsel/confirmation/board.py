"""The race as it runs: a live table on a terminal, plain lines elsewhere; both on stderr."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ckptsel.common.outlets import MAX_CELL, shown
from ckptsel.common.progress import PLAIN_INTERVAL_S, format_seconds
from ckptsel.common.streams import say
from ckptsel.results.confirmation import Point, Standing
from ckptsel.results.estimate import Estimate, percent

STYLES = {"won": "bold green", "tied": "green", "out": "dim", "diverged": "red"}


class Board:
    """Shows candidates, their rung and step, loss, held-out accuracy and state, and the time left.

    Without a terminal a line is printed at the end of every rung of a candidate, and every few seconds
    between. `quiet` prints nothing at all.
    """

    def __init__(
        self,
        goal: str,
        candidates: Sequence[str],
        n_seeds: int,
        rungs: Sequence[int],
        quiet: bool = False,
    ) -> None:
        self.goal, self.n_seeds, self.rungs = goal, n_seeds, rungs
        self._standings = {name: Standing(name) for name in candidates}
        self._points: dict[str, dict[int, Point]] = {name: {} for name in candidates}
        self._quiet = quiet
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._live: Live | None = None
        self._start = self._last_line = time.monotonic()
        self._n_trained = 0

    def __enter__(self) -> "Board":
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def point(self, name: str, seed: int, point: Point) -> None:
        """A run got this far."""
        before = self._points[name].get(seed)
        self._n_trained += point.step - (before.step if before else self._standings[name].step)
        self._points[name][seed] = point
        if time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._line(
                f"{self.goal} {name} seed {seed} step {point.step}/{self.rungs[-1]}  loss "
                f"{point.train_loss:.3f}, accuracy {100 * point.held_accuracy:.1f} %"
                f"{self._time_left()}"
            )

    def standing(self, standing: Standing) -> None:
        """A candidate's rung was judged."""
        self._standings[standing.name] = standing
        accuracy = "" if standing.accuracy is None else f"  {_accuracy(standing, [])}"
        self._line(
            f"{self.goal} {standing.name} rung {standing.rung}/{len(self.rungs)} "
            f"step {standing.step}{accuracy}  {standing.state}"
        )

    def note(self, text: str) -> None:
        """Something that a reader should know."""
        if self._live is not None:
            self._live.console.print(shown(f"note: {text}"))
        self._line(f"note: {text}")

    def _line(self, text: str) -> None:
        if self._live is None and not self._quiet:
            self._last_line = time.monotonic()
            say(text)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, caption_justify="left")
        for name in ("checkpoint", "rung", "step", "loss", "accuracy", "state"):
            table.add_column(name, justify="left" if name in ("checkpoint", "state") else "right")
        for name, standing in self._standings.items():
            points = list(self._points[name].values())
            step = max([standing.step, *(p.step for p in points)])
            loss = sum(p.train_loss for p in points) / len(points) if points else None
            table.add_row(
                shown(name, MAX_CELL),
                f"{standing.rung}/{len(self.rungs)}",
                f"{step}/{self.rungs[-1]}",
                "" if loss is None else f"{loss:.3f}",
                _accuracy(standing, points),
                standing.state,
                style=STYLES.get(standing.state, ""),
            )
        elapsed = format_seconds(time.monotonic() - self._start)
        table.caption = f"{self.goal}, {self.n_seeds} seeds, {elapsed}{self._time_left()}"
        return table

    def _time_left(self) -> str:
        """Upper bound: as if nobody else left the race."""
        if not self._n_trained:
            return ""
        n_left = 0
        for name, standing in self._standings.items():
            if standing.state == "racing":
                done = [point.step for point in self._points[name].values()]
                done += [standing.step] * (self.n_seeds - len(done))
                n_left += sum(self.rungs[-1] - step for step in done)
        seconds = (time.monotonic() - self._start) / self._n_trained * n_left
        return f", at most {format_seconds(seconds)} left"


def _accuracy(standing: Standing, points: Sequence[Point]) -> str:
    """As judged at the end of a rung; before the first, the mean of the runs so far."""
    if standing.accuracy is not None:
        return percent(standing.accuracy, " %")
    if not points:
        return ""
    mean = sum(point.held_accuracy for point in points) / len(points)
    return percent(Estimate(mean), " %")
