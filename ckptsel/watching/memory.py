"""What a watch remembers of the checkpoints of a run: those that lie there, and those that did.

A checkpoint is its tensors, by their digest; a path is only where they lay. A file whose size and time
are unchanged is not read again. What was ranked and then deleted, or written over, is remembered: its
scores are in the cache, so it stays in the ranking. `watch.json` in the folder of the results keeps all
that for the next start.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import limits_of
from ckptsel.checkpoints.order import Order
from ckptsel.checkpoints.scan import Scan, arranged, read_each
from ckptsel.checkpoints.walk import suffix_of
from ckptsel.common.files import read_json, write_json
from ckptsel.common.streams import say
from ckptsel.errors import InputError, UsageError
from ckptsel.ranking.rank import Known
from ckptsel.results.ranking import Ranking
from ckptsel.results.together import IS_DIGEST
from ckptsel.settings.rank import RankSettings
from ckptsel.watching.arrivals import Look, State

MEMORY_NAME = "watch.json"
SCHEMA = "ckptsel.watch/1"
N_DIGITS = 8
"""Of the digest, behind the name of a checkpoint whose path holds another one now."""


@dataclass(frozen=True)
class Seen:
    """A path as it was when it was read; checkpoint: None where it is none."""

    state: State
    checkpoint: Checkpoint | None


class Memory:
    """The checkpoints of one run.

    present: by path. gone: those that were ranked and are no longer in their files, by digest; with the
    keys of their weights as they were matched. matched: such keys of all that were ranked, by digest.
    told: what was last said to the user's commands, by event: a digest.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.present: dict[Path, Seen] = {}
        self.gone: dict[str, Seen] = {}
        self.matched: dict[str, str | None] = {}
        self.told: dict[str, str] = {}
        self._weights = "auto"

    def differs(self, look: Look) -> bool:
        """Whether there is anything new to rank, or something is gone."""
        return bool(self.fresh(look)) or not look.states.keys() >= self.present.keys()

    def fresh(self, look: Look) -> set[Path]:
        """Paths that are whole, and are not known as they are."""
        return {
            path
            for path in look.whole
            if path not in self.present or self.present[path].state != look.states[path]
        }

    def update(self, look: Look, again: Collection[Path], settings: RankSettings) -> None:
        """Read what is fresh, and what is to be tried again; what was ranked and is lost is kept."""
        before = dict(self.present)
        again = {path for path in again if path in look.whole}
        self._read({path: look.states[path] for path in self.fresh(look) | again}, settings)
        for path in self.present.keys() - look.states.keys():
            del self.present[path]
        for path, seen in before.items():
            lost = seen.checkpoint
            if lost is not None and lost.digest in self.matched and not self._holds(path, lost):
                key = self.matched[lost.digest]
                lost = dataclasses.replace(lost, weights_key=key)
                self.gone.setdefault(lost.digest or "", Seen(seen.state, lost))

    def find(self, settings: RankSettings) -> Scan:
        """All checkpoints, as `scan` finds those of a folder."""
        if settings.weights != self._weights:
            self._read({path: seen.state for path, seen in self.present.items()}, settings)
        present, order = self.there(), Order(settings.order, settings.epoch_regex)
        all_of_them = arranged([*present, *self._named_gone()], self.root, order)
        if _is_by_time(all_of_them, order):
            times = self._times()
            all_of_them.sort(key=lambda c: times[c.path, c.digest])
        holders = {c.digest: c for c in present}
        own = {(c.path, c.digest) for c in present}
        left = []
        for checkpoint in all_of_them:
            if (checkpoint.path, checkpoint.digest) not in own:
                if checkpoint.copy_of is not None:  # a file that tells as much holds it
                    del self.gone[checkpoint.digest or ""]
                    continue
                holder = holders.get(checkpoint.digest, checkpoint)
                checkpoint = dataclasses.replace(checkpoint, path=holder.path, root=holder.root)
            left.append(checkpoint)
        others = Counter(suffix_of(p) for p, s in self.present.items() if s.checkpoint is None)
        return Scan(left, others)

    def known(self) -> Known:
        """What the next ranking need not read: what fitted once is not tried before features are needed
        of it, for another network, say."""
        return Known(self.matched, self.lost())

    def lost(self) -> frozenset[str]:
        """Digests of which no file is left."""
        return frozenset(self.gone.keys() - {c.digest for c in self.there()})

    def learn(self, ranking: Ranking) -> None:
        """Take over what a ranking says."""
        self._weights = ranking.settings["weights"]
        for row in ranking:
            if row.status == "ok" and row.copy_of is None and row.digest is not None:
                self.matched[row.digest] = row.weights_key

    def _read(self, states: Mapping[Path, State], settings: RankSettings) -> None:
        limits = limits_of(settings)
        for path, checkpoint in read_each(list(states), self.root, settings.weights, limits):
            self.present[path] = Seen(states[path], checkpoint)
        self._weights = settings.weights

    def _holds(self, path: Path, checkpoint: Checkpoint) -> bool:
        seen = self.present.get(path)
        there = None if seen is None else seen.checkpoint
        return there is not None and there.digest == checkpoint.digest

    def there(self) -> list[Checkpoint]:
        """What files hold now."""
        return [s.checkpoint for s in self.present.values() if s.checkpoint is not None]

    def _gone(self) -> list[Checkpoint]:
        return [seen.checkpoint for seen in self.gone.values() if seen.checkpoint is not None]

    def _named_gone(self) -> list[Checkpoint]:
        """Those that are gone, under names of their own where others lay at their path."""
        n_at = Counter(c.path for c in (*self.there(), *self._gone()))
        return [
            c
            if n_at[c.path] == 1
            else dataclasses.replace(c, name=f"{c.name}~{(c.digest or '')[:N_DIGITS]}")
            for c in self._gone()
        ]

    def _times(self) -> dict[tuple[Path, str | None], int]:
        """When each was written to the end, by its path and digest."""
        every = [*self.present.values(), *self.gone.values()]
        return {
            (seen.checkpoint.path, seen.checkpoint.digest): max(time for *_, time in seen.state)
            for seen in every
            if seen.checkpoint is not None
        }

    def write(self, folder: Path) -> None:
        """Into a folder of results."""
        write_json(
            folder / MEMORY_NAME,
            {
                "schema": SCHEMA,
                "root": str(self.root.resolve()),
                "weights": self._weights,
                "present": [self._entry(path, seen) for path, seen in self.present.items()],
                "gone": [
                    self._entry(seen.checkpoint.path, seen)
                    for seen in self.gone.values()
                    if seen.checkpoint is not None
                ],
                "matched": self.matched,
                "told": self.told,
            },
        )

    def _entry(self, path: Path, seen: Seen) -> dict[str, Any]:
        below, checkpoint = self._below(path), None
        if seen.checkpoint is not None:
            checkpoint = {**dataclasses.asdict(seen.checkpoint), "path": below, "root": None}
        return {"path": below, "state": seen.state, "checkpoint": checkpoint}

    def _below(self, path: Path) -> str:
        """The folder itself is `.`."""
        return path.relative_to(self.root).as_posix()


def _is_by_time(checkpoints: Collection[Checkpoint], order: Order) -> bool:
    """Whether the time of writing tells the order: asked for, or the best that is known of files that
    record no epoch and were written over."""
    if order.by is not None:
        return order.by == "mtime"
    usable = [c for c in checkpoints if c.problem is None and c.copy_of is None]
    is_known = any(None not in [getattr(c, name) for c in usable] for name in ("epoch", "step"))
    return not is_known and len({c.path for c in usable}) < len(usable)


@dataclass(frozen=True)
class _Entry:
    path: str
    state: State
    checkpoint: Checkpoint | None


@dataclass(frozen=True)
class _Stored:
    """`watch.json`. Paths are below the folder of the run."""

    schema: str
    root: str
    weights: str
    present: list[_Entry]
    gone: list[_Entry]
    matched: dict[str, str | None]
    told: dict[str, str]


def read_memory(root: Path, folder: Path) -> Memory:
    """What an earlier watch of the same run left in the folder of its results, or nothing.

    Raises UsageError where it is of another run.
    """
    memory, path = Memory(root), folder / MEMORY_NAME
    if not path.exists():
        return memory
    try:
        stored = TypeAdapter(_Stored).validate_python(read_json(path))
        _check_digests(stored)
    except (InputError, ValidationError) as error:
        first = str(error).partition("\n")[0]
        say(f"warning: {path} cannot be read ({first}); every checkpoint is read anew")
        return memory
    if stored.root != str(root.resolve()):
        raise UsageError(
            f"{folder} holds the watch of another run, {stored.root}. Give another folder with "
            "--out, or remove it."
        )
    memory.present = {root / entry.path: _seen(entry, root) for entry in stored.present}
    for entry in stored.gone:
        if entry.checkpoint is not None and entry.checkpoint.digest is not None:
            memory.gone[entry.checkpoint.digest] = _seen(entry, root)
    memory.matched, memory.told = stored.matched, stored.told
    memory._weights = stored.weights
    return memory


def _check_digests(stored: _Stored) -> None:
    """Raises InputError: they become names of folders, so nothing else may stand there."""
    checkpoints = [entry.checkpoint for entry in (*stored.present, *stored.gone)]
    for digest in (c.digest for c in checkpoints if c is not None and c.digest is not None):
        if not IS_DIGEST.fullmatch(digest):
            raise InputError(f"{digest[:80]!r} is no digest")


def _seen(entry: _Entry, root: Path) -> Seen:
    checkpoint = entry.checkpoint
    if checkpoint is None:
        return Seen(entry.state, None)
    epoch = checkpoint.epoch
    if epoch is not None and epoch.is_integer():  # JSON's reader makes numbers of one type
        epoch = int(epoch)
    placed = dataclasses.replace(checkpoint, path=root / entry.path, root=root, epoch=epoch)
    return Seen(entry.state, placed)
