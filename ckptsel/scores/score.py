"""What a score is: a name, a unit, and a function of features and labels."""

from collections.abc import Callable
from dataclasses import dataclass

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs


@dataclass(frozen=True)
class Score:
    """A named score.

    about: what it is, in a line.
    unit: `accuracy` (a fraction of images in [0, 1], higher when better), `nats`, or another word.
    version: raised whenever the same inputs would give another number, since results are cached.
    higher_is_better: False for a loss, whose lowest value is the best.
    by_default: computed where no scores are named.
    streams: whether it reads features a chunk at a time, and never makes a copy of all.
    cannot_decide: why it may not order a ranking; empty where it may.
    source: where it is defined (paper, equation).
    """

    name: str
    about: str
    unit: str
    compute: Callable[[ScoreInputs], ScoreResult]
    version: int = 1
    higher_is_better: bool = True
    by_default: bool = True
    streams: bool = False
    cannot_decide: str = ""
    source: str = ""
