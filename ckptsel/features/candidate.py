"""What is ranked: a checkpoint, read at a layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.errors import UsageError
from ckptsel.features.encoder import LAST


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and the layer that it is read at."""

    checkpoint: Checkpoint
    layer: str = LAST

    @property
    def name(self) -> str:
        """The checkpoint's name; with the layer where it is not the last: `checkpoint-5@stage3`."""
        return candidate_name(self.checkpoint.name, self.layer)

    @property
    def problem(self) -> str | None:
        """Why it cannot be used."""
        return self.checkpoint.problem

    @property
    def copy_of(self) -> str | None:
        """The candidate with the same tensors, read at the same layer."""
        of = self.checkpoint.copy_of
        return None if of is None else candidate_name(of, self.layer)

    def failed(self, problem: str) -> "Candidate":
        """The same, which cannot be used."""
        return Candidate(self.checkpoint.failed(problem), self.layer)


def candidate_name(checkpoint: str, layer: str) -> str:
    return checkpoint if layer == LAST else f"{checkpoint}@{layer}"


def candidates_of(checkpoints: Sequence[Checkpoint], layers: Sequence[str]) -> list[Candidate]:
    """Every checkpoint at every layer, in the order of training. Raises UsageError where two would have
    the same name."""
    candidates = [Candidate(checkpoint, layer) for checkpoint in checkpoints for layer in layers]
    names = Counter(candidate.name for candidate in candidates)
    if twice := [name for name, n in names.items() if n > 1]:
        raise UsageError(
            f"{twice[0]!r} would be two candidates: a checkpoint of that name, and another one read at "
            "that layer. Rename the file."
        )
    return candidates
