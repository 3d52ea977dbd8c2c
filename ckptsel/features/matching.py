"""Tensors of a checkpoint, matched to a network by their names and shapes.

Every tensor of the backbone must come from the checkpoint: one that is missing or has another shape,
or one that the backbone has no place for, fails the checkpoint by name. A random layer would give a
plausible and meaningless score.
"""

import re
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from ckptsel.errors import CheckpointError, listed

OTHER_HEADS = re.compile(
    r"(head|fc|classifier|projection_head|projector|prediction_head|predictor|decoder_\w+"
    r"|decoder|mask_token|dino_head|ibot_head|n_averaged|num_batches_tracked|aux_classifier"
    r"|prototypes\d*|queue\w*|neck)(\.|$)"
)
"""Tensors beside the backbone that pre-training leaves behind: heads, decoders, prototypes, counters."""

MAX_LISTED = 4

Tensors = Mapping[str, Tensor]
"""By name; where only shapes count, tensors without values (on torch's device `meta`)."""


def backbone_weights(
    name: str, expected: Tensors, head: tuple[str, ...], found: Tensors
) -> tuple[dict[str, Tensor], str]:
    """(weights of the backbone under its own names, the prefix that the names had), without heads.

    name: of the network, for messages. expected: its tensors. head: names of the classifier's begin
    with one of these. Raises CheckpointError naming tensors that are missing, of another shape, or
    left over.
    """
    expected = {key: tensor for key, tensor in expected.items() if not _is_head(key, head)}
    weights, prefix = under_prefix(expected, found)
    problems = _problems(expected, weights, head)
    if problems:
        where = f" below prefix {prefix!r}" if prefix else ""
        raise CheckpointError(
            f"the weights do not fit {name}{where}; {'; '.join(problems)}. "
            f"Name the right architecture with --model.{_stem_hint(expected, weights)}"
        )
    return {key: weights[key] for key in expected if key in weights}, prefix


def fits(expected: Tensors, head: tuple[str, ...], found: Tensors) -> bool:
    """Whether `backbone_weights` would be content."""
    expected = {key: tensor for key, tensor in expected.items() if not _is_head(key, head)}
    return not _problems(expected, under_prefix(expected, found)[0], head)


def under_prefix(expected: Tensors, found: Tensors) -> tuple[dict[str, Tensor], str]:
    """(what lies below the prefix under which most is found, without it; the prefix)."""
    found = _without_chunks(found, expected)
    prefix = _best_prefix(found, expected)
    below = {key.removeprefix(prefix): t for key, t in found.items() if key.startswith(prefix)}
    return below, prefix


def _is_head(name: str, head: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in head)


def _best_prefix(state_dict: Tensors, expected: Tensors) -> str:
    """The prefix under which most of the backbone is found; of equals the teacher's, then the
    shortest."""
    counts: Counter[str] = Counter()
    for name, tensor in state_dict.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            inner = ".".join(parts[depth:])
            if inner in expected and expected[inner].shape == tensor.shape:
                counts[name.removesuffix(inner)] += 1
    if not counts:
        return ""
    return max(counts, key=lambda p: (counts[p], "teacher" in p, "ema" in p, -len(p)))


def _without_chunks(state_dict: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """DINOv2 names blocks `blocks.<chunk>.<i>`; elsewhere they are `blocks.<i>`."""
    chunked = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.(?=[a-z])")
    if any(chunked.search(name) for name in expected):
        return dict(state_dict)
    return {chunked.sub(r"\1blocks.\2.", name): tensor for name, tensor in state_dict.items()}


def _problems(expected: Tensors, weights: Tensors, head: tuple[str, ...]) -> list[str]:
    """What does not fit, in words; none where all does."""
    missing = [
        name for name in expected if name not in weights and not name.endswith("batches_tracked")
    ]
    misshapen = [
        f"{name} is {shape_text(weights[name])}, expected {shape_text(expected[name])}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    left_over = [
        name
        for name in weights
        if name not in expected and not _is_head(name, head) and not OTHER_HEADS.match(name)
    ]
    problems = []
    if misshapen:
        problems.append(f"of another shape: {listed(misshapen, MAX_LISTED)}")
    if missing:
        problems.append(f"missing: {listed(missing, MAX_LISTED)}")
    if left_over:
        problems.append(f"no place for: {listed(left_over, MAX_LISTED)}")
    return problems


def _stem_hint(expected: Tensors, weights: Tensors) -> str:
    """ResNets for small images differ in their first convolution, a usual mistake."""
    want, have = expected.get("conv1.weight"), weights.get("conv1.weight")
    if want is None or have is None or not want.ndim == have.ndim == 4:
        return ""
    if want.shape[2:] == have.shape[2:]:
        return ""
    return (
        f" Its first convolution is {have.shape[2]}x{have.shape[3]} (the model's: "
        f"{want.shape[2]}x{want.shape[3]}): was it made for small images (cifar_resnet18)?"
    )


def shape_text(tensor: Tensor) -> str:
    """As in 64x3x7x7."""
    return "x".join(map(str, tensor.shape)) or "a scalar"
