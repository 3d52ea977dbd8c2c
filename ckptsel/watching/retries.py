"""When a checkpoint that failed is tried again."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

N_TRIES = 5
"""After so many failures a checkpoint is left as failed, until its file changes."""

GROWTH = 2.0
"""Each pause is so many times the one before."""


@dataclass(frozen=True)
class _Failed:
    n: int
    next_s: float


class Retries:
    """Failures by path. pause_s: before the second try."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._failed: dict[Path, _Failed] = {}

    def update(
        self,
        failed: Collection[Path],
        tried: Collection[Path],
        fresh: Collection[Path],
        now_s: float,
    ) -> None:
        """A round is over. failed: all that are failed now. tried: those that it tried. fresh: those of
        them whose files are new or changed, which count from the start."""
        before = self._failed
        self._failed = {path: before[path] for path in failed if path in before}
        for path in failed:
            if path in tried or path not in before:
                n = 1 + (before[path].n if path in before and path not in fresh else 0)
                self._failed[path] = _Failed(n, now_s + self._pause_s * GROWTH ** (n - 1))

    def due(self, now_s: float) -> set[Path]:
        """What is to be tried again now."""
        return {path for path, f in self._failed.items() if f.n < N_TRIES and f.next_s <= now_s}

    @property
    def is_waiting(self) -> bool:
        """Whether anything will be tried again."""
        return any(f.n < N_TRIES for f in self._failed.values())

    def said_of(self, path: Path, now_s: float) -> str:
        """What comes next for a path that failed."""
        failed = self._failed[path]
        if failed.n >= N_TRIES:
            return f"failed {failed.n} times, and is left until its file changes"
        return f"tried again in {max(failed.next_s - now_s, 0):.0f} s"
