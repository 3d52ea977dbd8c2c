"""Learning curves as TensorBoard event files."""

import shutil
from pathlib import Path
from typing import Any

from ckptsel.common.event_files import check_events, open_events
from ckptsel.results.confirmation import Point


class EventFiles:
    """One folder of events for each run of a goal, `tensorboard/<goal>/<checkpoint>/seed<n>`.

    Not asked for, it does nothing. Raises UsageError where tensorboard is not installed.
    """

    def __init__(self, folder: Path | None, goal: str, wanted: bool) -> None:
        self._folder = folder / "tensorboard" / goal if wanted and folder is not None else None
        self._writers: dict[tuple[str, int], Any] = {}
        self._written: dict[tuple[str, int], int] = {}
        if self._folder is not None:
            check_events()
            # Runs that go on write their points from the first.
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "EventFiles":
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def point(self, name: str, seed: int, point: Point) -> None:
        """One point of a run's curve; points that were written already are left out."""
        if self._folder is None or point.step <= self._written.get((name, seed), 0):
            return
        self._written[name, seed] = point.step
        if (name, seed) not in self._writers:
            self._writers[name, seed] = open_events(self._folder / name / f"seed{seed}")
        writer = self._writers[name, seed]
        for key in ("train_loss", "held_loss", "held_accuracy"):
            writer.add_scalar(key, getattr(point, key), point.step)
