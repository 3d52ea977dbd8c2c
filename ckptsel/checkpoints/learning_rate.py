"""Drops of the learning rate along a trajectory.

What is a drop: the rate falls to half or less from one checkpoint to the next that records it. Steps
of schedules do (0.5, 0.2, 0.1). Cosine and linear schedules do at the last three of evenly kept
checkpoints at most. A checkpoint that is saved right at the step records the new rate and holds weights
of the old one; nothing tells it from one saved later.
"""

from collections.abc import Sequence

from ckptsel.checkpoints.checkpoint import Checkpoint

DROP = 0.5
"""The part of the learning rate that is left, or less, after a drop."""


def find_drops(checkpoints: Sequence[Checkpoint]) -> list[bool]:
    """Of each checkpoint in the order of training, whether the learning rate fell since the last before
    it that records one."""
    drops, before = [], 0.0
    for checkpoint in checkpoints:
        rate = checkpoint.learning_rate
        drops.append(rate is not None and before > 0 and rate <= DROP * before)
        before = before if rate is None else rate
    return drops
