"""Which checkpoints fit the network, before anything is computed with any of them."""

import dataclasses
from collections.abc import Mapping, Sequence

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import limits_of
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import listed, reason_of
from ckptsel.ranking.unusable import fail_copies
from ckptsel.ranking.workspace import Workspace

MAX_TRIED = 20
"""Networks of a file that are tried on the encoder, where nothing says which is meant."""


def audit(
    found: Sequence[Checkpoint],
    workspace: Workspace,
    matched: Mapping[str, str | None] | None = None,
) -> list[Checkpoint]:
    """Each checkpoint matched to the encoder; those that do not fit get a problem.

    matched: the keys of the weights of those that were matched before, by digest: they are not read.
    Raises InputError where none is left, or any failed and the settings are strict.
    """
    audited, matched = [], matched or {}
    for checkpoint in found:
        is_to_match = checkpoint.problem is None and checkpoint.copy_of is None
        digest = checkpoint.digest or ""
        if is_to_match and digest in matched:
            checkpoint = dataclasses.replace(checkpoint, weights_key=matched[digest])
        elif is_to_match:
            try:
                prefix = workspace.match(checkpoint)
                key = f"{checkpoint.weights_key}:{prefix}" if prefix else checkpoint.weights_key
                checkpoint = dataclasses.replace(checkpoint, weights_key=key)
            except Exception as error:  # one file's surprise must not end the run
                checkpoint = checkpoint.failed(reason_of(error))
        audited.append(checkpoint)
    return fail_copies(audited, workspace.settings.strict)


def fitting_key(found: Sequence[Checkpoint], workspace: Workspace) -> str | None:
    """Where files hold several networks and nothing says which is meant: the key of the one that fits
    the encoder; None where none or several do, or some file needs no choice."""
    undecided = [checkpoint for checkpoint in found if checkpoint.choices]
    if not undecided or any(checkpoint.problem is None for checkpoint in found):
        return None
    keys = undecided[0].choices[:MAX_TRIED]
    fitting = [key for key in keys if _fits(undecided[0], key, workspace)]
    if len(fitting) != 1:
        return None
    workspace.notes.append(
        f"--weights {fitting[0]}: of {listed(keys)}, the one that fits {workspace.encoder.name}"
    )
    return fitting[0]


def _fits(checkpoint: Checkpoint, key: str, workspace: Workspace) -> bool:
    limits = limits_of(workspace.settings)
    if workspace.held is not None:
        workspace.held.digest = None
    try:
        workspace.encoder.load(read_weights(checkpoint, key, limits))
    except Exception:  # as in `audit`; why it does not fit is not asked here
        return False
    return True
