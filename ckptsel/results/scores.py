"""What a score gives for one candidate, with the numbers that its interval comes from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SINGULAR_VALUES = "singular_values"
"""Array that `main_component` keeps: those of the whole training part, in falling order (r,),
float32."""


def count_main(values: NDArray[Any], energy: float, rounding: float = 1e-12) -> int:
    """k: how many of the largest singular values (r,), in falling order, make up `energy` of their
    sum. rounding: of the values, which must not ask for one more than the definition does."""
    shares = np.cumsum(values) / np.sum(values)
    return int((shares < energy - rounding).sum()) + 1


@dataclass(frozen=True)
class ScoreResult:
    """One score of one candidate.

    value: the score.
    per_image: (n_eval,) numbers whose mean is the value, for scores that are means over held-out
    images; intervals come from them.
    predictions: (n_repeats, n_eval) class numbers.
    flags: what to doubt.
    details: what else is worth recording.
    arrays: the same, of numbers too many for a ranking's JSON; they are written beside it.
    """

    value: float
    per_image: NDArray[np.float64] | None = None
    predictions: NDArray[np.int64] | None = None
    flags: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def n_images(self) -> int | None:
        """How many held-out images it rests on; None where it is no mean over them."""
        return None if self.per_image is None else len(self.per_image)
