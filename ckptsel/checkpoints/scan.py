"""Checkpoints: find them, read them safely, put them in the order of training.

What each training framework writes is listed in `docs/formats.md`.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.answers import Answers
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import DEFAULT, Limits, inspect_all
from ckptsel.checkpoints.order import Order, in_training_order, with_epochs
from ckptsel.checkpoints.reading import from_name
from ckptsel.checkpoints.records import Accuracy, fractions_of
from ckptsel.checkpoints.trajectory import trajectory_notes
from ckptsel.checkpoints.walk import (
    Below,
    as_text,
    is_sure,
    look_below,
    nothing_below,
    others_text,
    suffix_of,
    total_size,
)
from ckptsel.common.cache import CacheFolder
from ckptsel.common.progress import Progress

MANY, LARGE = 200, 4 << 30
"""Files, or bytes of them, from which reading takes so long that its progress is worth showing."""


@dataclass(frozen=True)
class Scan:
    """What was found below a folder: checkpoints in training order, copies and problems marked.

    others: how many files are no checkpoints, by suffix.
    """

    checkpoints: list[Checkpoint]
    others: Mapping[str, int] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """What a reader should know of them."""
        return [*trajectory_notes(self.checkpoints), *self.others_notes()]

    def others_notes(self) -> list[str]:
        """How many files beside them are none."""
        return [f"{others_text(self.others)}, no checkpoints"] if self.others else []


def scan_checkpoints(
    root: Path,
    weights: str = "auto",
    limits: Limits = DEFAULT,
    quiet: bool = True,
    order: Order | None = None,
    cache: CacheFolder | None = None,
) -> list[Checkpoint]:
    """The checkpoints of `scan`."""
    return scan(root, weights, limits, quiet, order, cache).checkpoints


def scan(
    root: Path,
    weights: str = "auto",
    limits: Limits = DEFAULT,
    quiet: bool = True,
    order: Order | None = None,
    cache: CacheFolder | None = None,
    part: slice | None = None,
) -> Scan:
    """All checkpoints below `root` (or the one file).

    Every file is read whole, in a guarded process: its tensors are digested and must be finite. cache:
    where it is kept what one says, so that it is not read again while it is as it was. part: of all
    files, those that are read; they may be no checkpoints.
    Raises InputError where there is no such folder, or no checkpoint in it.
    """
    below = look_below(root)
    if not below.paths:
        raise nothing_below(root, below.others)
    if part is not None:
        below.paths = below.paths[part]
    checkpoints = _read_all(root, below, weights, limits, quiet, cache)
    if not checkpoints and part is None:
        raise nothing_below(root, below.others)
    return Scan(arranged(checkpoints, root, order), below.others)


def arranged(
    checkpoints: Sequence[Checkpoint], root: Path, order: Order | None = None
) -> list[Checkpoint]:
    """Checkpoints of one run, as `read_each` gives them, in training order; copies marked."""
    order = order or Order()
    named = with_epochs(_unique_names(checkpoints, root), order)
    return in_training_order(_mark_copies(_with_accuracies(named)), order.by)


def _read_all(
    root: Path,
    below: Below,
    weights: str,
    limits: Limits,
    quiet: bool,
    cache: CacheFolder | None,
) -> list[Checkpoint]:
    """Each of the files that is a checkpoint; the others are counted."""
    checkpoints = []
    for path, checkpoint in read_each(below.paths, root, weights, limits, quiet, cache):
        if checkpoint is None:
            below.others[suffix_of(path)] += 1
        else:
            checkpoints.append(checkpoint)
    return checkpoints


def read_each(
    paths: Sequence[Path],
    root: Path,
    weights: str,
    limits: Limits = DEFAULT,
    quiet: bool = True,
    cache: CacheFolder | None = None,
) -> Iterator[tuple[Path, Checkpoint | None]]:
    """Each path with what its file says by itself; None where it is no checkpoint after all."""
    answers = Answers(paths, root, weights, limits, cache)
    unread = [path for path in paths if path not in answers.known]
    is_long = len(unread) >= MANY or total_size(unread) >= LARGE
    read = zip(unread, inspect_all(unread, root, weights, limits), strict=True)
    with Progress("scan", len(paths), quiet=quiet or not is_long) as progress:
        for path in paths:
            answer = answers.known.get(path)
            if answer is None:
                _, answer = next(read)
                answers.keep(path, answer)
            is_listed = is_sure(path) and not answer.get("is_optimizer")
            if answer.get("is_other") and path != root and not is_listed:
                yield path, None
                progress.advance()
            else:
                checkpoint = _filled(from_name(path, root), answer)
                yield path, checkpoint
                progress.advance(checkpoint.name)
        next(read, None)  # the end of its threads


def _filled(bare: Checkpoint, answer: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint with what a guarded process says of it."""
    if "problem" in answer:
        choices = tuple(answer.get("choices", ()))
        return dataclasses.replace(bare, problem=answer["problem"], choices=choices)
    found = dict(answer["found"])
    accuracy = found.pop("accuracy")
    found |= {name: tuple(found[name]) for name in ("choices", "notes", "parts")}
    return dataclasses.replace(
        bare, **found, accuracy=None if accuracy is None else Accuracy(**accuracy)
    )


def _with_accuracies(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """As fractions; whether they are recorded in percent, all files of one network together tell."""
    by_layout: dict[str | None, list[Checkpoint]] = defaultdict(list)
    for checkpoint in checkpoints:
        by_layout[checkpoint.layout].append(checkpoint)
    fractions = {
        checkpoint.name: fraction
        for alike in by_layout.values()
        for checkpoint, fraction in zip(
            alike, fractions_of([c.accuracy for c in alike]), strict=True
        )
    }
    return [dataclasses.replace(c, source_accuracy=fractions[c.name]) for c in checkpoints]


def _unique_names(checkpoints: Sequence[Checkpoint], root: Path) -> list[Checkpoint]:
    """With suffixes kept where two files differ in nothing else."""
    names = [checkpoint.name for checkpoint in checkpoints]
    return [
        dataclasses.replace(c, name=as_text(c.path.relative_to(root).as_posix()))
        if names.count(c.name) > 1
        else c
        for c in checkpoints
    ]


def _mark_copies(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The same tensors count once, under the name that tells most (not last or model_best), in a file
    that records when it was."""
    originals: dict[str, Checkpoint] = {}
    for checkpoint in sorted(checkpoints, key=_tells_little):
        if checkpoint.digest is not None:
            originals.setdefault(checkpoint.digest, checkpoint)
    return [
        c
        if c.digest is None or originals[c.digest].name == c.name
        else dataclasses.replace(c, copy_of=originals[c.digest].name)
        for c in checkpoints
    ]


def _tells_little(checkpoint: Checkpoint) -> tuple[bool, ...]:
    is_recorded = checkpoint.epoch_from not in (None, "name")
    has_digit = re.search(r"\d", Path(checkpoint.name).name) is not None
    return not is_recorded, checkpoint.epoch_from is None, not has_digit
