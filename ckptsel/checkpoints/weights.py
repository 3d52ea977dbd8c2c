"""The tensors of a checkpoint, for a network."""

import math
from pathlib import Path

import torch
from torch import Tensor

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import DEFAULT, Limits, load
from ckptsel.checkpoints.tensors import Digest
from ckptsel.errors import CheckpointError


class ReplacedError(CheckpointError):
    """A file no longer holds the tensors that a digest is of."""


def read_weights(
    checkpoint: Checkpoint, weights: str = "auto", limits: Limits = DEFAULT
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, names without wrapper prefixes.

    Raises CheckpointError; ReplacedError where the file no longer holds those that its digest is of.
    """
    root = checkpoint.root or checkpoint.path
    loaded = load(Path(checkpoint.path), Path(root), weights, limits)
    digest = Digest()
    for name in sorted(loaded):
        digest.add(name, *loaded[name])
    if checkpoint.digest is not None and digest.hexdigest() != checkpoint.digest:
        raise ReplacedError(
            "the file was replaced after it was scanned: its tensors are no longer the same. Rank "
            "again, when nothing writes to it any more."
        )
    return {
        name: _tensor(name, dtype, shape, torch.from_numpy(data))
        for name, (dtype, shape, data) in loaded.items()
    }


def _tensor(name: str, dtype: str, shape: tuple[int, ...], data: Tensor) -> Tensor:
    kind = getattr(torch, dtype, None)
    if kind is None:
        raise CheckpointError(
            f"{name} holds {dtype} numbers, which torch {torch.__version__} does not know. Install a "
            "newer torch."
        )
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=kind)
    return data.view(kind).reshape(shape)
