"""Averages of neighbouring checkpoints: means of their weights, ranked as checkpoints are.

An average of k is the mean of a checkpoint and the k - 1 before it in the order of training. Averages
are of weights of one network from one key, and never across a drop of the learning rate unless that is
asked for: before and after it weights lie at different distances from where training ends.

Cosine and linear schedules have such a drop (`ckptsel.checkpoints.learning_rate`) at the last three of
evenly kept checkpoints at most, where weights of neighbours differ for the same reason. A checkpoint
that is saved right at the step may hold weights of the old rate, so no average begins with the first
checkpoint after a drop either.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.learning_rate import find_drops
from ckptsel.errors import InputError, listed, subject

AVERAGE_VERSION = 1
"""Part of the digest; raised whenever the mean of the same parts would be another."""


@dataclass(frozen=True)
class WithAverages:
    """checkpoints: those that were there, each followed by the averages that end with it. notes: what a
    reader should know of the averages."""

    checkpoints: list[Checkpoint]
    notes: list[str]


def with_averages(
    checkpoints: Sequence[Checkpoint], sizes: Sequence[int], across_drops: bool = False
) -> WithAverages:
    """Checkpoints in the order of training, with the averages of each size.

    Neighbours are counted among those that can be used; copies are left out. across_drops: averages
    across drops of the learning rate too. Raises InputError where a file has the name of an average.
    """
    usable = [c for c in checkpoints if c.problem is None and c.copy_of is None]
    dropped = find_drops(usable)
    ending: dict[str, list[Checkpoint]] = {}
    n_of_size, n_across = dict.fromkeys(sorted(set(sizes)), 0), 0
    for size in n_of_size:
        for end in range(size, len(usable) + 1):
            parts = tuple(usable[end - size : end])
            if not _are_alike(parts):
                continue
            if not across_drops and any(dropped[end - size : end]):
                n_across += 1
                continue
            n_of_size[size] += 1
            ending.setdefault(parts[-1].name, []).append(average_of(parts))
    _check_names(checkpoints, [average for some in ending.values() for average in some])
    notes = [
        f"--average {size}: there are no {size} neighbours that can be averaged"
        for size, n in n_of_size.items()
        if n == 0
    ]
    if not across_drops:
        notes += _notes_on_drops(usable, dropped, n_across)
    return WithAverages([a for c in checkpoints for a in (c, *ending.get(c.name, ()))], notes)


def average_of(parts: Sequence[Checkpoint]) -> Checkpoint:
    """The average of checkpoints in the order of training; what else is said of it is the last's.

    Its tensors are made when they are read (`ckptsel.checkpoints.weights`).
    """
    last = parts[-1]
    text = "\n".join([f"mean {AVERAGE_VERSION}", *(part.digest or "" for part in parts)])
    return dataclasses.replace(
        last,
        name=f"{last.name}~mean{len(parts)}",
        format="average",
        digest=hashlib.sha256(text.encode()).hexdigest(),
        source_accuracy=None,
        accuracy=None,
        notes=(),
        parts=tuple(parts),
    )


def _check_names(checkpoints: Sequence[Checkpoint], averages: Sequence[Checkpoint]) -> None:
    for name in {c.name for c in checkpoints} & {average.name for average in averages}:
        raise InputError(f"{name} is a file, and would be the name of an average: rename the file.")


def _are_alike(parts: Sequence[Checkpoint]) -> bool:
    """Whether they hold weights of one network, taken from one place in their files."""
    return len({(part.layout, part.weights_key) for part in parts}) == 1


def _notes_on_drops(
    usable: Sequence[Checkpoint], dropped: Sequence[bool], n_across: int
) -> Iterator[str]:
    if n_across:
        names = [c.name for c, is_drop in zip(usable, dropped, strict=True) if is_drop]
        yield (
            f"{n_across} averages across a drop of the learning rate, which fell to half or less by "
            f"{listed(names, 3)}, are left out: --average-across-drops takes them in"
        )
    unknown = [c.name for c in usable if c.learning_rate is None]
    if unknown:
        yield (
            f"no learning rate is recorded in {subject(unknown)}: whether averages are of weights "
            "before and after a drop of it is not known"
        )
