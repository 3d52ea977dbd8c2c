"""Learning curves as TensorBoard event files."""

import shutil
from pathlib import Path
from typing import Any

from ckptsel.errors import UsageError
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
            self._writer_class = _summary_writer()
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
            folder = self._folder / name / f"seed{seed}"
            self._writers[name, seed] = self._writer_class(str(folder), flush_secs=10)
        writer = self._writers[name, seed]
        for key in ("train_loss", "held_loss", "held_accuracy"):
            writer.add_scalar(key, getattr(point, key), point.step)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'ckptsel[tensorboard]'."
        ) from error
    return SummaryWriter
