"""One checkpoint file: what it says, and its tensors. Runs in a guarded process (`guard`)."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.choosing import (
    averaged_parts,
    choose_weights,
    module_under,
)
from ckptsel.checkpoints.formats import Payload, format_of, read_payload
from ckptsel.checkpoints.modules import SCRIPT
from ckptsel.checkpoints.network_inputs import recorded
from ckptsel.checkpoints.parts import check_own
from ckptsel.checkpoints.records import (
    recorded_accuracy,
    recorded_arch,
    recorded_learning_rate,
    recorded_progress,
)
from ckptsel.checkpoints.tensors import Digest, StoredTensor, is_parameter, n_not_finite
from ckptsel.checkpoints.walk import short_name
from ckptsel.errors import CheckpointError, listed

Tensors = dict[str, StoredTensor]
Number = TypeVar("Number", int, float)


def inspect_checkpoint(path: Path, root: Path, weights: str) -> Checkpoint:
    """What a file or Hugging Face folder says; every tensor is digested and must be finite.

    Raises CheckpointError, or anything else that a damaged file can lead to.
    """
    checkpoint, tensors = read_checkpoint(path, root, weights)
    check_all(tensors)
    digest, n_parameters = Digest(), 0
    for name in sorted(tensors):
        tensor = tensors[name]
        values = tensor.values()
        n_bad = n_not_finite(tensor.dtype, values)
        if n_bad:
            raise CheckpointError(
                f"{n_bad} of {tensor.n_values} values of {name} are NaN or infinite: "
                "training had diverged when it was saved."
            )
        digest.add(name, tensor.dtype, tensor.shape, values)
        n_parameters += tensor.n_values if is_parameter(name, tensor.dtype) else 0
    return dataclasses.replace(checkpoint, digest=digest.hexdigest(), n_parameters=n_parameters)


def read_checkpoint(path: Path, root: Path, weights: str) -> tuple[Checkpoint, Tensors]:
    """A checkpoint's description (without digest), and its tensors under names without wrappers."""
    payload = read_payload(path, root)
    key, tensors = choose_weights(payload.value, weights)
    if not tensors:
        raise CheckpointError("it holds no tensors: it is not a checkpoint of a model.")
    _check_names(tensors)
    check_own(tensors)
    bare = from_name(path, root)
    epoch, step = recorded_progress(payload.value, payload.facts)
    is_recorded = epoch is not None or step is not None
    if not (is_recorded and has_bare_number(bare)):
        epoch, step = _first(epoch, bare.epoch), _first(step, bare.step)
    is_named = not is_recorded and (epoch is not None or step is not None)
    form = format_of(payload.value, payload.facts, path)
    module = payload.module if key == "" else module_under(payload.value, key)
    return dataclasses.replace(
        bare,
        format=form,
        weights_key=key,
        epoch=epoch,
        step=step,
        epoch_from="file" if is_recorded else "name" if is_named else None,
        accuracy=recorded_accuracy(payload.value, payload.facts, bare.name),
        arch=recorded_arch(payload.value, payload.facts),
        layout=_layout_of(tensors),
        notes=tuple(_notes(payload, module, tensors, weights)),
        records=recorded(payload.value, payload.facts, form, tensors, module),
        learning_rate=recorded_learning_rate(payload.value, payload.facts),
    ), tensors


def _first(recorded: Number | None, named: Number | None) -> Number | None:
    return named if recorded is None else recorded


def _notes(payload: Payload, module: str | None, tensors: Tensors, weights: str) -> Iterator[str]:
    if module is not None and module.startswith(SCRIPT):
        yield "a TorchScript program: it was not run, its tensors were taken"
    elif module is not None:
        yield f"a whole pickled module: its class ({module[:80]}) was not run, its tensors were taken"
    elif payload.unknown:
        names = listed([name[:80] for name in payload.unknown], 3)
        yield f"left out, since it would have to be run to be read: {names}"
    averages = averaged_parts(tensors) if weights == "auto" else ()
    if averages:
        yield (
            f"holds a network twice, once as an average ({listed(averages, 3)}): --weights momentum "
            "takes that, --weights online the other"
        )


def _layout_of(tensors: Tensors) -> str:
    """The same for two checkpoints whose tensors have the same names and shapes."""
    text = "\n".join(f"{name} {tensors[name].shape}" for name in sorted(tensors))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_all(tensors: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError naming a tensor whose values the file does not hold."""
    for name, tensor in tensors.items():
        try:
            tensor.check()
        except CheckpointError as error:
            raise CheckpointError(f"{name} {error}") from error


def from_name(path: Path, root: Path) -> Checkpoint:
    """A checkpoint as far as its name tells."""
    name = short_name(root, path)
    epoch, step = _numbers_in_name(path, name)
    named = None if epoch is None and step is None else "name"
    return Checkpoint(name, path, epoch=epoch, step=step, epoch_from=named, root=root)


def _check_names(tensors: Mapping[str, StoredTensor]) -> None:
    for name in tensors:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"the name of a tensor, {ascii(name)[:100]}, is no valid text: the file is damaged, or "
                "made to break programs."
            ) from error


BARE_NUMBER = re.compile(
    r"(?:checkpoint|ckpt|model|ep|[_-])[_-]?([0-9]{1,15})$",
    re.IGNORECASE,
)
"""A number at the end of a name, of which the name does not say what it counts."""

COUNTED = {
    "epoch": re.compile(r"(?:epoch|(?<![a-z])ep)[=_-]?([0-9]{1,15})(?![0-9])", re.IGNORECASE),
    "step": re.compile(
        r"(?:step|iter|training|(?<![a-z])ba)[=_-]?([0-9]{1,15})(?![0-9])", re.IGNORECASE
    ),
}
"""Numbers in names that say what they count; Composer calls them ep and ba (batches)."""

OTHER_NUMBER = re.compile(
    r"(?:^|[^a-z])(seed|trial|fold|run|rep|split|exp|rank|part|version)s?[_=-]?([0-9]{1,15})$",
    re.IGNORECASE,
)
"""Numbers at the end of names that say that they count something else than training."""

NOT_ITS_OWN = re.compile(r"pytorch_model(_fsdp)?_[0-9]+$")
"""What Accelerate calls the weights in the folder of each checkpoint."""


def has_bare_number(checkpoint: Checkpoint) -> bool:
    """Whether its epoch is a number in its name, of which the name does not say what it counts."""
    says_what = any(word.search(checkpoint.name) for word in COUNTED.values())
    return checkpoint.epoch_from == "name" and not says_what


def counted_otherwise(name: str) -> tuple[str, str] | None:
    """(word, number) of something else than training that a part of a name counts: seed_3, trial_1/."""
    matches = (OTHER_NUMBER.search(part) for part in name.split("/"))
    return next(((match[1].lower(), match[2]) for match in matches if match), None)


def _numbers_in_name(path: Path, name: str) -> tuple[float | None, int | None]:
    """(epoch, step) that a name carries, as in epoch=3-step=99, checkpoint-12, training_500.

    The name of the file counts before those of its folders (`run_epoch300/checkpoint-12`). Hugging
    Face numbers its folders by step, others their files by epoch.
    """
    *folders, last = name.split("/")
    if folders and NOT_ITS_OWN.match(last):
        *folders, last = folders
    for part in (last, *reversed(folders)):
        found = {
            kind: int(m.group(1)) for kind, word in COUNTED.items() if (m := word.search(part))
        }
        is_bare = not found and part is last and not OTHER_NUMBER.search(part)
        match = BARE_NUMBER.search(part) if is_bare else None
        if match:
            found["step" if path.is_dir() else "epoch"] = int(match.group(1))
        if found:
            return found.get("epoch"), found.get("step")
    return None, None
