"""What a search along a trajectory left out: part of `ranking.json`."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass

from ckptsel.results.about import Number, Share
from ckptsel.results.estimate import FINITE, Bounded, Estimate

UNLIKELY = 0.05
"""Where what was not looked at has less of a chance than this to be ahead, a search may end by itself,
and the gate takes what it found for the best."""


@dataclass(frozen=True, config=FINITE)
class Unseen:
    """A checkpoint that was not looked at.

    name: path below the scanned folder, without suffix.
    order: place in the order of training, from 0.
    epoch, step: as recorded, null where unknown.
    expected: of its value of the score that decides, from those that were looked at; null where too few
    were.
    chance: that it is further ahead of the best that was looked at than the tolerance; null likewise.
    """

    name: str
    order: int
    epoch: Bounded | None
    step: Annotated[int, Ge(-(10**15)), Le(10**15)] | None
    expected: Estimate | None = None
    chance: Share | None = None


@dataclass(frozen=True, config=FINITE)
class SearchRecord:
    """How far a search went.

    budget: `auto`, a number of checkpoints, or a time.
    tolerance: what would have to be ahead by more, in the unit of the score that decides.
    n_checkpoints: that there are, without copies and those that cannot be used.
    n_seen: that were looked at, with those that failed then.
    chance: that any that was not looked at is further ahead of the best than the tolerance; null where
    too little was seen to tell.
    unseen: what was not looked at, in the order of training.
    """

    budget: str
    tolerance: Annotated[float, Ge(0)]
    n_checkpoints: Number
    n_seen: Number
    chance: Share | None
    unseen: tuple[Unseen, ...] = ()
