"""What a score is: a name, a unit, and a function of features and labels."""

from collections.abc import Callable
from dataclasses import dataclass

from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs


@dataclass(frozen=True)
class Score:
    """A named score; higher is better for all of them.

    unit: `accuracy` (a fraction in [0, 1]) or `nats`.
    version: raised whenever the same inputs would give another number, since results are cached.
    """

    name: str
    about: str
    unit: str
    compute: Callable[[ScoreInputs], ScoreResult]
    version: int = 1
