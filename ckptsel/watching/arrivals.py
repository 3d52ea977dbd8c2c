"""Which checkpoints lie in a folder that a trainer writes to, and which of them are whole."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ckptsel.checkpoints.walk import look_below

MARKER = ".done"
"""A file of the checkpoint's name and this says that it is whole, if it is no older."""

State = tuple[tuple[str, int, int], ...]
"""(name, size in bytes, time of change in ns) of each file of a checkpoint. Names are below the folder
that a checkpoint is, or below that in which its file lies."""


@dataclass(frozen=True)
class Look:
    """What lay there at one moment. states: of all. whole: paths of those that are written to the end.
    is_news: anything changed since the look before."""

    states: dict[Path, State] = field(default_factory=dict)
    whole: frozenset[Path] = frozenset()
    is_news: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being written."""
        return len(self.whole) == len(self.states)


class Arrivals:
    """Looks at a folder again and again. A checkpoint is whole when sizes and times of its files are
    those of the look before, or a marker lies beside it. left_out: a folder that is not looked into."""

    def __init__(self, root: Path, left_out: Path) -> None:
        self.root, self._left_out = root, left_out.resolve()
        self._last: dict[Path, State] = {}

    def look(self) -> Look:
        """What is there now; nothing where there is no such folder yet."""
        states = dict(self._states())
        whole = frozenset(
            path
            for path, state in states.items()
            if self._last.get(path) == state or _is_marked(path, state)
        )
        is_news, self._last = states != self._last, states
        return Look(states, whole, is_news)

    def _states(self) -> Iterator[tuple[Path, State]]:
        if not self.root.exists():
            return
        paths = [path for path in look_below(self.root).paths if not self._is_left_out(path)]
        for path in paths:
            # What lies behind a link to a folder may be anything, and is never read.
            is_link = path.is_symlink() and path.is_dir() and path != self.root
            state = ((path.name, 0, 0),) if is_link else state_of(path, paths)
            if state:
                yield path, state

    def _is_left_out(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._left_out)


def folder_of(path: Path) -> Path:
    """The folder below which the names of a checkpoint's state are."""
    return path if path.is_dir() else path.parent


def state_of(path: Path, others: Collection[Path] = ()) -> State:
    """The state of a checkpoint; empty where it is there no more. others: checkpoints that may lie below
    its folder, and are no part of it."""
    folder = folder_of(path)
    files = sorted(_files_below(path, set(others))) if path.is_dir() else [path]
    state = []
    for file in files:
        try:
            found = file.stat()
        except OSError:  # it went meanwhile
            continue
        state.append((file.relative_to(folder).as_posix(), found.st_size, found.st_mtime_ns))
    return tuple(state)


def _files_below(folder: Path, others: Collection[Path]) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(where, name) not in others]
        yield from (Path(where, name) for name in files)


def _is_marked(path: Path, state: State) -> bool:
    try:
        marked = path.with_name(path.name + MARKER).stat().st_mtime_ns
    except (OSError, ValueError):
        return False
    return marked >= max(changed for _, _, changed in state)
