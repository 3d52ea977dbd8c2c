"""What a reader should know of checkpoints that are compared as one trajectory."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.choosing import is_average
from ckptsel.checkpoints.reading import counted_otherwise, has_bare_number
from ckptsel.errors import listed, subject

SHOWN = 3
"""Names that a note lists."""

ONE_RUN = "Put the files of one run into a folder of their own, and give that"


def trajectory_notes(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """A late start, gaps, mixed weights, epochs from names, files that are no one run's, and how files
    were read."""
    usable = [c for c in checkpoints if c.problem is None and c.copy_of is None]
    kept = [c for c in checkpoints if c.copy_of is None]
    several = [*_several_networks(usable), *_several_runs(usable)]
    are_epochs_sure = not several and not any(has_bare_number(c) for c in usable)
    return [
        *several,
        *_epochs_from_names(usable),
        *_out_of_order(usable),
        *_unknown_accuracies(usable),
        *(_start_and_gaps(kept) if are_epochs_sure else ()),
        *_mixed_weights(usable),
        *_as_read(usable),
    ]


def grouped(
    checkpoints: Sequence[Checkpoint], texts_of: Callable[[Checkpoint], Sequence[str]]
) -> dict[str, list[str]]:
    """Names of checkpoints by what is said of them, each text once."""
    names: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        for text in texts_of(checkpoint):
            names.setdefault(text, []).append(checkpoint.name)
    return names


def _several_networks(usable: Sequence[Checkpoint]) -> Iterator[str]:
    by_layout: dict[str, list[str]] = defaultdict(list)
    for checkpoint in usable:
        if checkpoint.layout is not None:
            by_layout[checkpoint.layout].append(checkpoint.name)
    if len(by_layout) > 1:
        groups = sorted(by_layout.values(), key=len, reverse=True)
        yield (
            f"these are no trajectory: the tensors of {len(groups)} networks differ in name or shape: "
            f"{listed([subject(names) for names in groups], SHOWN)}. {ONE_RUN}"
        )


def _several_runs(usable: Sequence[Checkpoint]) -> Iterator[str]:
    """Names that count seeds or trials, folders that each hold several, or the same epoch twice."""
    counted = {c.name: found for c in usable if (found := counted_otherwise(c.name))}
    if len(set(counted.values())) > 1:
        words = sorted({f"{word}s" for word, _ in counted.values()})
        yield (
            f"these may be no trajectory: the names of {subject(list(counted))} count "
            f"{listed(words, SHOWN)}. {ONE_RUN}"
        )
        return
    folders = Counter(c.name.rpartition("/")[0] for c in usable)
    several = [folder or "." for folder, n in folders.items() if n > 1]
    if len(several) > 1:
        yield (
            f"these may be no trajectory: {len(several)} folders hold several checkpoints each "
            f"({listed(several, SHOWN)}). Where they are several runs, give the folder of one"
        )
        return
    places = [(c.epoch, c.step) for c in usable if c.epoch is not None]
    twice = [place for place, n in Counter(places).items() if n > 1]
    if twice:
        names = [c.name for c in usable if (c.epoch, c.step) == twice[0]]
        yield (
            f"these may be no trajectory: {subject(names)} are all of epoch {twice[0][0]:g}. Where they "
            f"are of several runs: {ONE_RUN[0].lower()}{ONE_RUN[1:]}"
        )


def _epochs_from_names(usable: Sequence[Checkpoint]) -> Iterator[str]:
    named = [c for c in usable if c.epoch_from == "name"]
    bare = [c.name for c in named if has_bare_number(c)]
    has_epochs, has_steps = (
        any((c.epoch is None) == is_step for c in named) for is_step in (False, True)
    )
    what = " or ".join(["epoch"] * has_epochs + ["step"] * has_steps)
    if bare:
        yield (
            f"the {what} of {subject(bare)} is the number at the end of the name, marked ?, which may "
            "count runs, trials or images as well: say what it is with --epoch-regex, or use --order "
            "name"
        )
    elif named:
        yield f"what is marked ? is the {what} that names of files carry; the files record none"


def _out_of_order(usable: Sequence[Checkpoint]) -> Iterator[str]:
    """Epochs that do not decide the order, since some checkpoint has none."""
    epochs = [c.epoch for c in usable if c.epoch is not None]
    without = [c.name for c in usable if c.epoch is None]
    if without and epochs != sorted(epochs):
        yield f"the order is not that of the epochs: none is known of {subject(without)}"


def _unknown_accuracies(usable: Sequence[Checkpoint]) -> Iterator[str]:
    unknown: dict[str, list[str]] = defaultdict(list)
    for c in usable:
        if c.accuracy is not None and c.source_accuracy is None:
            unknown[c.accuracy.key].append(c.name)
    for key, names in unknown.items():
        yield (
            f"{key}, which {subject(names)} recorded, is percent or a fraction: no value is above 1, so "
            "that cannot be told, and it is not used as source accuracy"
        )


def _start_and_gaps(kept: Sequence[Checkpoint]) -> Iterator[str]:
    """kept: those that cannot be used too."""
    epochs = [c.epoch for c in kept if c.epoch is not None]
    if not (len(epochs) == len(kept) >= 2 and max(epochs) > 0):
        return
    epochs, last = sorted(epochs), max(epochs)
    if epochs[0] > max(0.1 * last, 2):
        yield (
            f"the trajectory starts at epoch {epochs[0]:g} of {last:g}: earlier checkpoints, "
            "often the best feature extractors, were not kept (see docs/keeping-checkpoints.md)"
        )
    jumps = [(later - earlier, earlier, later) for earlier, later in itertools.pairwise(epochs)]
    widest, before, after = max(jumps)
    least = min((jump for jump, *_ in jumps if jump > 0), default=widest)
    if widest > 0.25 * last and widest > 2 * least and len(kept) > 2:
        yield f"the trajectory has a gap: no checkpoint from {before:g} to {after:g}"


def _mixed_weights(usable: Sequence[Checkpoint]) -> Iterator[str]:
    keys = sorted({c.weights_key or "(the whole file)" for c in usable})
    if len({is_average(key) for key in keys}) > 1:
        yield (
            f"weights come from different keys ({', '.join(keys)}): choose one with --weights, "
            "or averaged and raw weights are compared with each other"
        )


def _as_read(usable: Sequence[Checkpoint]) -> Iterator[str]:
    for text, names in grouped(usable, lambda c: c.notes).items():
        yield f"{subject(names)}: {text}"
