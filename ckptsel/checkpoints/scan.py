"""Checkpoints: find them, read them safely, put them in the order of training.

What each training framework writes is listed in `docs/formats.md`. One rule orders a trajectory:
by the epoch (then step) that the files record, or that their names carry where they record none;
by natural order of the names where some checkpoint has neither.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckptsel.checkpoints.formats import (
    HUGGING_FACE_FILES,
    choose_weights,
    format_of,
    read_payload,
    recorded_accuracy,
    recorded_arch,
    recorded_progress,
    strip_wrappers,
)
from ckptsel.errors import CheckpointError, InputError, reason_of

SUFFIXES = (".pth.tar", ".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar", ".npz")

SKIPPED = re.compile(
    r"(recovery-|tmp|\.|optimizer|scheduler|scaler|rng_state|random_states|training_args"
    r"|training_state)",
    re.IGNORECASE,
)
"""Names of files that lie beside checkpoints and are none; timm's recovery files repeat others."""


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint file (or Hugging Face folder) says about itself.

    name: path below the scanned folder, without its suffix; bytes that are no UTF-8 as `\\udcff`, since
    names are keys of files that take Unicode alone. `path` is what opens it.
    weights_key: where the weights lie in the file, "" where the file is the state dict itself.
    digest: SHA-256 of the tensors, with names, types and shapes.
    epoch, step: as stored, or from the name (`epoch_from`).
    source_accuracy: a fraction in [0, 1].
    n_parameters: without batch-norm statistics.
    problem: why it cannot be used.
    copy_of: name of an earlier checkpoint with the same tensors.
    """

    name: str
    path: Path
    format: str = "unknown"
    weights_key: str | None = None
    digest: str | None = None
    epoch: float | None = None
    step: int | None = None
    epoch_from: str | None = None
    source_accuracy: float | None = None
    arch: str | None = None
    n_parameters: int | None = None
    problem: str | None = None
    copy_of: str | None = None

    def failed(self, problem: str) -> "Checkpoint":
        """The same, which cannot be used."""
        return dataclasses.replace(self, problem=problem)


def scan_checkpoints(root: Path, weights: str = "auto") -> list[Checkpoint]:
    """All checkpoints below `root` (or the one file), in training order, copies and problems marked.

    Every file is read whole: its tensors are hashed and must be finite.
    Raises InputError where there is no such folder, or nothing in it that could be a checkpoint.
    """
    checkpoints = [_inspect(root, path, weights) for path in find_checkpoint_files(root)]
    return _mark_copies(in_training_order(_unique_names(checkpoints, root)))


def find_checkpoint_files(root: Path) -> list[Path]:
    """Files, and Hugging Face `checkpoint-N/` folders, that hold weights, in natural order."""
    if not root.exists():
        raise InputError(f"no such file or folder: {root}. Give the folder of your checkpoints.")
    found = [root] if root.is_file() else sorted(_walk(root), key=lambda p: natural_key(str(p)))
    if not found:
        raise InputError(
            f"no checkpoints below {root}: looked for files ending in {', '.join(SUFFIXES)} and "
            "for Hugging Face checkpoint-N/ folders. Give the folder that your training wrote to."
        )
    return found


def read_weights(checkpoint: Checkpoint, weights: str = "auto") -> dict[str, Tensor]:
    """The tensors of a checkpoint, names without wrapper prefixes. Raises CheckpointError."""
    _, state_dict = _read(checkpoint.path, checkpoint.name, weights)
    return state_dict


def read_same_weights(checkpoint: Checkpoint, weights: str = "auto") -> dict[str, Tensor]:
    """As `read_weights`, for what is computed under the checkpoint's digest.

    Raises CheckpointError where the file no longer holds the tensors that were scanned.
    """
    state_dict = read_weights(checkpoint, weights)
    if digest_weights(state_dict) != checkpoint.digest:
        raise CheckpointError(
            "the file was replaced after it was scanned: its tensors are no longer the same. Rank "
            "again, when nothing writes to it any more."
        )
    return state_dict


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


def natural_key(name: str) -> list[tuple[int, Any]]:
    """Sort key in which numbers count as numbers: checkpoint-9 comes before checkpoint-10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def digest_weights(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().resolve_conj().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    is_hugging_face = any((folder / name).is_file() for name in HUGGING_FACE_FILES)
    if is_hugging_face:
        yield folder  # of its files; the Trainer's checkpoint-N/ may lie below its final model
    for entry in folder.iterdir():
        if SKIPPED.match(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        elif entry.name.endswith(SUFFIXES) and not is_hugging_face:
            yield entry


def _inspect(root: Path, path: Path, weights: str) -> Checkpoint:
    name = _short_name(root, path)
    epoch, step = _numbers_in_name(path, name)
    from_name = None if epoch is None and step is None else "name"
    bare = Checkpoint(name, path, epoch=epoch, step=step, epoch_from=from_name)
    try:
        checkpoint, state_dict = _read(path, name, weights)
        _check_finite(state_dict)
        return dataclasses.replace(
            checkpoint,
            digest=digest_weights(state_dict),
            n_parameters=sum(t.numel() for key, t in state_dict.items() if _is_parameter(key, t)),
        )
    except Exception as error:  # one file's surprise must not end the run
        return dataclasses.replace(bare, problem=reason_of(error))


def _read(path: Path, name: str, weights: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """A checkpoint's description (without digest) and its tensors."""
    payload, facts = read_payload(path)
    key, state_dict = choose_weights(payload, weights)
    if not state_dict:
        raise CheckpointError("it holds no tensors: it is not a checkpoint of a model.")
    epoch, step = recorded_progress(payload, facts)
    epoch_from = "file" if epoch is not None or step is not None else None
    if epoch is None:
        name_epoch, name_step = _numbers_in_name(path, name)
        epoch, step = name_epoch, step if step is not None else name_step
        if epoch_from is None and (epoch is not None or step is not None):
            epoch_from = "name"
    checkpoint = Checkpoint(
        name=name,
        path=path,
        format=format_of(payload, facts, path),
        weights_key=key,
        epoch=epoch,
        step=step,
        epoch_from=epoch_from,
        source_accuracy=recorded_accuracy(payload, facts, name),
        arch=recorded_arch(payload, facts),
    )
    return checkpoint, strip_wrappers(state_dict)


def _check_finite(state_dict: Mapping[str, Tensor]) -> None:
    for name, tensor in state_dict.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{name} is sparse, quantised or without values: save it dense.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{name} asks for {tensor.numel():,} values and the file stores fewer: it is an "
                "expanded view. Save it with .contiguous()."
            )
        if not tensor.is_floating_point():
            continue
        # The small types (float8) have no comparisons of their own.
        finite = torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)
        if not bool(finite.all()):
            n_bad = int((~finite).sum())
            raise CheckpointError(
                f"{n_bad} of {tensor.numel()} values of {name} are NaN or infinite: "
                "training had diverged when it was saved."
            )


def _is_parameter(name: str, tensor: Tensor) -> bool:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return tensor.is_floating_point() and not name.endswith(statistics)


def _short_name(root: Path, path: Path) -> str:
    name = path.absolute().name if path == root else path.relative_to(root).as_posix()
    name = _as_unicode(name)
    if path.is_dir():
        return name
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _as_unicode(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _numbers_in_name(path: Path, name: str) -> tuple[float | None, int | None]:
    """(epoch, step) that a name carries, as in epoch=3-step=99, checkpoint-12, training_500.

    The name of the file counts before those of its folders (`run_epoch300/checkpoint-12`). Hugging
    Face numbers its folders by step, others their files by epoch.
    """
    words = {"epoch": r"epoch", "step": r"(?:step|iter|training)"}
    *folders, last = name.split("/")
    for part in (last, *reversed(folders)):
        found = {}
        for kind, word in words.items():
            match = re.search(rf"{word}[=_-]?(\d+)", part, re.IGNORECASE)
            if match:
                found[kind] = int(match.group(1))
        if not found and part is last:
            match = re.search(r"(?:checkpoint|ckpt|model|ep|[_-])[_-]?(\d+)$", part, re.IGNORECASE)
            if match:
                found["step" if path.is_dir() else "epoch"] = int(match.group(1))
        if found:
            return found.get("epoch"), found.get("step")
    return None, None


def _unique_names(checkpoints: list[Checkpoint], root: Path) -> list[Checkpoint]:
    """With suffixes kept where two files differ in nothing else."""
    names = [checkpoint.name for checkpoint in checkpoints]
    return [
        dataclasses.replace(c, name=_as_unicode(c.path.relative_to(root).as_posix()))
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
