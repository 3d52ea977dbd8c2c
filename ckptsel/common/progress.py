"""Progress on stderr: a live bar with the time left on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from ckptsel.common.outlets import MAX_CELL, shown
from ckptsel.common.streams import say

PLAIN_INTERVAL_S = 5.0

PULSE_INTERVAL_S = 20.0
"""Of lines that say no more than that a long step goes on."""


class Progress:
    """Counts the steps of one long task.

    Without a terminal a line is printed at the first and last step and every few seconds between,
    so that a CI log stays short. `quiet` prints nothing at all.
    """

    def __init__(self, title: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.title, self.total, self.done = shown(title, MAX_CELL), total, done
        self._first = done
        self._start = self._last_line = time.monotonic()
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar: RichProgress | None = None

    def __enter__(self) -> "Progress":
        if not self._quiet and self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, note=""
            )
        return self

    def expect(self, steps: int) -> None:
        """So many steps more are to do than was said."""
        self.total += steps
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)

    def advance(self, note: str = "", steps: int = 1) -> None:
        """One step (or several) is done; `note` says what came out of it."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=shown(note, MAX_CELL))
        elif not self._quiet and self._is_line_due():
            self._print_line(note)

    def pulse(self, note: str) -> None:
        """A long step goes on; `note` says how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, note=shown(note, MAX_CELL))
        elif not self._quiet and time.monotonic() - self._last_line >= PULSE_INTERVAL_S:
            self._print_line(note)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _is_line_due(self) -> bool:
        first_or_last = self.done in (self._first + 1, self.total)
        return first_or_last or time.monotonic() - self._last_line >= PLAIN_INTERVAL_S

    def _print_line(self, note: str) -> None:
        self._last_line = time.monotonic()
        elapsed_s = self._last_line - self._start
        n_done = self.done - self._first
        left = ""
        if n_done > 0 and self.done < self.total:
            left = f", {format_seconds(elapsed_s / n_done * (self.total - self.done))} left"
        line = f"{self.title} {self.done}/{self.total}, {format_seconds(elapsed_s)}{left}"
        say(f"{line}  {note}".rstrip())


def format_seconds(seconds: float) -> str:
    """12 s, 3 min 20 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
