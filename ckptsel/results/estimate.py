"""A number that was measured, with how sure it is: the one class for it."""

from dataclasses import KW_ONLY
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

FINITE = ConfigDict(allow_inf_nan=False)
"""No measured number is NaN or infinite, and no JSON could hold it."""

IMAGES = "images"
IMAGES_AND_SEEDS = "images and seeds"
CHECKPOINTS = "checkpoints"
"""What an interval takes as random."""

Bounded = Annotated[float, Ge(-1e15), Le(1e15)]


@dataclass(frozen=True, config=FINITE)
class Estimate:
    """A value with its 95 % interval.

    value: accuracies and their differences as fractions, evidence and likelihood in nats.
    low: lower end of the interval; null where none is known.
    high: upper end of the interval; null where none is known.
    n: how many images (or checkpoints) it rests on; null in files of older versions.
    random: what the interval takes as random, such as `images` or `images and seeds`; null where
    there is no interval.
    """

    value: Bounded
    low: Bounded | None = None
    high: Bounded | None = None
    _: KW_ONLY
    n: int | None = None
    random: str | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("an interval whose lower end is above its upper end")

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of the interval. Raises ValueError where there is none."""
        if self.low is None or self.high is None:
            raise ValueError("this estimate has no interval")
        return self.low, self.high


@dataclass(frozen=True, config=FINITE)
class Measured(Estimate):
    """An accuracy, or how far one checkpoint is ahead of another (paired), and what measured it.

    by: a score, or `confirmed`, which is accuracy after real training.
    step: of that training, the last that both reached.
    """

    by: str = ""
    step: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None or self.high is None:
            raise ValueError("a measured difference without an interval")


def measured(estimate: Estimate, by: str, step: int | None = None) -> Measured:
    """An estimate with what measured it."""
    return Measured(**vars(estimate), by=by, step=step)


def percent(estimate: Estimate, unit: str = "") -> str:
    """A fraction in percent, with its interval where it has one."""
    text = f"{100 * estimate.value:.1f}{unit}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
