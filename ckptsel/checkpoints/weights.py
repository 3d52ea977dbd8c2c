"""The tensors of a checkpoint, for a network."""

import math
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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

    Of an average the mean of those of its parts, of which one at a time is read besides.
    Raises CheckpointError; ReplacedError where the file no longer holds those that its digest is of.
    """
    if checkpoint.parts:
        return mean_of(_read_part(part, weights, limits) for part in checkpoint.parts)
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


class ReadAhead:
    """The weights of the next checkpoint, read while those of this one are computed with."""

    def __init__(self) -> None:
        self._next: tuple[tuple[Checkpoint, str, Limits], Future[dict[str, Tensor]]] | None = None

    def begin(self, checkpoint: Checkpoint, weights: str, limits: Limits) -> None:
        """Read in a thread what will be asked for next."""
        wanted = checkpoint, weights, limits
        if self._next is not None and self._next[0] == wanted:
            return
        pool = ThreadPoolExecutor(1)
        self._next = wanted, pool.submit(read_weights, *wanted)
        pool.shutdown(wait=False)

    def read(self, checkpoint: Checkpoint, weights: str, limits: Limits) -> dict[str, Tensor]:
        """As `read_weights`. What was read ahead and is not asked for now is let go."""
        foreseen, self._next = self._next, None
        if foreseen is not None and foreseen[0] == (checkpoint, weights, limits):
            return foreseen[1].result()
        return read_weights(checkpoint, weights, limits)


def _read_part(part: Checkpoint, weights: str, limits: Limits) -> dict[str, Tensor]:
    try:
        return read_weights(part, weights, limits)
    except CheckpointError as error:
        said = f"{part.name}, which it is a mean of: {error.lines[0]}"
        raise type(error)(said, *error.lines[1:]) from error


def mean_of(each: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the tensors of several networks by name, in the types of the last.

    Numbers are added in float64 (complex ones in complex128), one network after the other. Whole numbers
    and truth values (how many batches were seen) are those of the last.
    Raises CheckpointError where names or shapes differ.
    """
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    n = 0
    for n, tensors in enumerate(each, start=1):
        if n > 1 and _shapes(tensors) != _shapes(last):
            raise CheckpointError("its parts are of different networks: rank again.")
        for name, tensor in tensors.items():
            if (wide := _widened(tensor)) is not None:
                sums[name] = wide if n == 1 else sums[name] + wide
        last = tensors
    means = {name: (total / n).to(last[name].dtype) for name, total in sums.items()}
    return {**last, **means}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _widened(tensor: Tensor) -> Tensor | None:
    """As numbers that are exact enough to be added; None for whole numbers."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64) if tensor.is_floating_point() else None


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
