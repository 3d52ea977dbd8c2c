"""Checkpoints: find them, read them safely, put them in the order of training.

What each training framework writes is listed in `docs/formats.md`. One rule orders a trajectory:
by the epoch (then step) that the files record, or that their names carry where they record none;
by natural order of the names where some checkpoint has neither.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import DEFAULT, Limits, inspect_all
from ckptsel.checkpoints.reading import from_name
from ckptsel.checkpoints.walk import as_text, find_checkpoint_files, natural_key, total_size
from ckptsel.common.progress import Progress

MANY, LARGE = 200, 4 << 30
"""Files, or bytes of them, from which reading takes so long that its progress is worth showing."""


def scan_checkpoints(
    root: Path, weights: str = "auto", limits: Limits = DEFAULT, quiet: bool = True
) -> list[Checkpoint]:
    """All checkpoints below `root` (or the one file), in training order, copies and problems marked.

    Every file is read whole, in a guarded process: its tensors are digested and must be finite.
    Raises InputError where there is no such folder, or nothing in it that could be a checkpoint.
    """
    paths = find_checkpoint_files(root)
    checkpoints = []
    is_long = len(paths) >= MANY or total_size(paths) >= LARGE
    with Progress("scan", len(paths), quiet=quiet or not is_long) as progress:
        for path, answer in zip(paths, inspect_all(paths, root, weights, limits), strict=True):
            bare = from_name(path, root)
            problem = answer.get("problem")
            found = answer.get("found", {})
            checkpoints.append(
                bare.failed(problem) if problem else dataclasses.replace(bare, **found)
            )
            progress.advance(bare.name)
    return _mark_copies(in_training_order(_unique_names(checkpoints, root)))


def in_training_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints sorted by the module's one rule; those without epoch or step come last."""
    usable = [c for c in checkpoints if c.problem is None]
    by_epoch = all(c.epoch is not None for c in usable)
    by_step = all(c.step is not None for c in usable)

    def key(checkpoint: Checkpoint) -> tuple[Any, ...]:
        epoch, step = checkpoint.epoch, checkpoint.step
        name = natural_key(checkpoint.name)
        infinity = float("inf")
        if by_epoch:
            return (infinity if epoch is None else epoch, step or 0, name)
        if by_step:
            return (infinity if step is None else step, 0, name)
        return (0, 0, name)

    return sorted(checkpoints, key=key)


def trajectory_notes(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """What a reader should know about the trajectory: a late start, gaps, mixed weights."""
    usable = [c for c in checkpoints if c.problem is None and c.copy_of is None]
    notes = []
    epochs = [c.epoch for c in usable if c.epoch is not None]
    if len(epochs) == len(usable) >= 2 and max(epochs) > 0:
        last = max(epochs)
        if min(epochs) > max(0.1 * last, 2):
            notes.append(
                f"the trajectory starts at epoch {min(epochs):g} of {last:g}: earlier checkpoints, "
                "often the best feature extractors, were not kept (see docs/keeping-checkpoints.md)"
            )
        jumps = [(later - earlier, earlier, later) for earlier, later in itertools.pairwise(epochs)]
        widest, before, after = max(jumps)
        if widest > 0.25 * last and len(usable) > 2:
            notes.append(f"the trajectory has a gap: no checkpoint from {before:g} to {after:g}")
    keys = sorted({c.weights_key or "(the whole file)" for c in usable})
    if len(keys) > 1:
        notes.append(
            f"weights come from different keys ({', '.join(keys)}): choose one with --weights, "
            "or averaged and raw weights are compared with each other"
        )
    return notes


def _unique_names(checkpoints: list[Checkpoint], root: Path) -> list[Checkpoint]:
    """With suffixes kept where two files differ in nothing else."""
    names = [checkpoint.name for checkpoint in checkpoints]
    return [
        dataclasses.replace(c, name=as_text(c.path.relative_to(root).as_posix()))
        if names.count(c.name) > 1
        else c
        for c in checkpoints
    ]


def _mark_copies(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The same tensors count once, under the name that tells most (not last or model_best)."""
    originals: dict[str, Checkpoint] = {}
    for checkpoint in sorted(checkpoints, key=lambda c: not re.search(r"\d", Path(c.name).name)):
        if checkpoint.digest is not None:
            originals.setdefault(checkpoint.digest, checkpoint)
    return [
        c
        if c.digest is None or originals[c.digest].name == c.name
        else dataclasses.replace(c, copy_of=originals[c.digest].name)
        for c in checkpoints
    ]
