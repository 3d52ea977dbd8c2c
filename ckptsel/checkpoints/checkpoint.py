"""What one checkpoint says about itself."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.records import Accuracy


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint file (or Hugging Face folder) says about itself.

    name: path below the scanned folder, without its suffix; bytes that are no UTF-8 as `\\udcNN`.
    root: the folder that was scanned, out of which no link may lead; None for the file itself.
    weights_key: where the weights lie in the file, "" where the file is the state dict itself.
    digest: SHA-256 of the tensors, with names, types and shapes.
    epoch, step: as stored, or from the name. epoch_from: `file`, `name`, or `epoch-regex` where the user
    said how the name tells it.
    source_accuracy: a fraction in [0, 1]. accuracy: the same as it is recorded.
    n_parameters: without batch-norm statistics.
    problem: why it cannot be used.
    choices: keys of the networks in it, where nothing says which is meant.
    copy_of: name of an earlier checkpoint with the same tensors.
    layout: digest of the names and shapes of its tensors.
    notes: what a reader should know of how it was read.
    records: what it says about the network and its inputs (`ckptsel.checkpoints.network_inputs`).
    learning_rate: of the optimizer when it was saved, as recorded; of several groups the highest.
    parts: the checkpoints that it is the mean of, in the order of training; empty for what a file
    holds. What else is said of a mean is said of its last part.
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
    choices: tuple[str, ...] = ()
    copy_of: str | None = None
    layout: str | None = None
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()
    root: Path | None = None
    records: dict[str, Any] = field(default_factory=dict, hash=False)
    learning_rate: float | None = None
    parts: "tuple[Checkpoint, ...]" = ()

    def failed(self, problem: str) -> "Checkpoint":
        """The same, which cannot be used."""
        return dataclasses.replace(self, problem=problem)
