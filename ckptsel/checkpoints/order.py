"""The order of a trajectory: by what files record, or as the user says."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.reading import has_bare_number
from ckptsel.checkpoints.walk import natural_key

EPOCH_REGEX = "epoch-regex"
"""Where an epoch is from that a pattern of the user's found in a name."""

NEVER = float("inf")


@dataclass(frozen=True)
class Order:
    """What the user says of the order.

    by: `name`, `epoch`, `step`, `mtime`; None for the one rule of `in_training_order`.
    epoch_regex: finds the epoch in a checkpoint's path, by its first group.
    """

    by: str | None = None
    epoch_regex: str | None = None


def with_epochs(checkpoints: Sequence[Checkpoint], order: Order) -> list[Checkpoint]:
    """The checkpoints with the epochs that the user's pattern finds in their paths; none where it finds
    none. Where the user orders by something else, a bare number in a name is no epoch."""
    if order.epoch_regex is not None:
        pattern = re.compile(order.epoch_regex)
        return [_with_epoch(checkpoint, pattern) for checkpoint in checkpoints]
    if order.by in ("name", "mtime"):
        return [_without_bare_number(checkpoint) for checkpoint in checkpoints]
    return list(checkpoints)


def in_training_order(checkpoints: Sequence[Checkpoint], by: str | None = None) -> list[Checkpoint]:
    """The checkpoints in the order that was asked for; those that lack what it goes by come last.

    None: by the epoch (then step) that the files record, or that their names carry where they record
    none; by natural order of the names where some checkpoint has neither. A copy that has none comes
    where its original does.
    """
    by = by or _known_of_all([c for c in checkpoints if c.problem is None and c.copy_of is None])
    by_name = {c.name: c for c in checkpoints}

    def moment(checkpoint: Checkpoint) -> Checkpoint:
        has_own = checkpoint.epoch is not None or checkpoint.step is not None
        return checkpoint if has_own else by_name.get(checkpoint.copy_of or "", checkpoint)

    keys: dict[str, Callable[[Checkpoint], tuple[Any, ...]]] = {
        "epoch": lambda c: (_or_never(moment(c).epoch), moment(c).step or 0),
        "step": lambda c: (_or_never(moment(c).step),),
        "mtime": lambda c: (_modified(c),),
        "name": lambda c: (),
    }
    return sorted(checkpoints, key=lambda c: (*keys[by](c), natural_key(c.name)))


def _known_of_all(usable: Sequence[Checkpoint]) -> str:
    if all(c.epoch is not None for c in usable):
        return "epoch"
    return "step" if all(c.step is not None for c in usable) else "name"


def _or_never(value: float | None) -> float:
    return NEVER if value is None else value


def _modified(checkpoint: Checkpoint) -> float:
    try:
        return checkpoint.path.stat().st_mtime
    except (OSError, ValueError):
        return NEVER


def _with_epoch(checkpoint: Checkpoint, pattern: re.Pattern[str]) -> Checkpoint:
    root = checkpoint.root or checkpoint.path
    inside = checkpoint.path != root
    where = checkpoint.path.relative_to(root).as_posix() if inside else checkpoint.path.name
    match = pattern.search(where)
    number = _number(match.group(1)) if match else None
    return dataclasses.replace(
        checkpoint, epoch=number, step=None, epoch_from=None if number is None else EPOCH_REGEX
    )


def _without_bare_number(checkpoint: Checkpoint) -> Checkpoint:
    if not has_bare_number(checkpoint):
        return checkpoint
    return dataclasses.replace(checkpoint, epoch=None, step=None, epoch_from=None)


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        return None
    return float(text) if "." in text else int(text)
