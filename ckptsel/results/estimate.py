"""A number that was measured, with how sure it is: the one class for it."""

from dataclasses import KW_ONLY

from pydantic.dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    value: accuracies and their differences as fractions, evidence and likelihood in nats.
    low: lower end of the interval; null where none is known.
    high: upper end of the interval; null where none is known.
    n: how many images (or checkpoints) it rests on; null in files of older versions.
    random: what the interval takes as random, such as `images` or `images and seeds`; null where
    there is no interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    _: KW_ONLY
    n: int | None = None
    random: str | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of the interval. Raises ValueError where there is none."""
        if self.low is None or self.high is None:
            raise ValueError("this estimate has no interval")
        return self.low, self.high


@dataclass(frozen=True)
class Measured(Estimate):
    """An accuracy, or how far one checkpoint is ahead of another (paired), and what measured it.

    by: a score, or `confirmed`, which is accuracy after real training.
    step: of that training, the last that both reached.
    """

    by: str = ""
    step: int | None = None


def percent(estimate: Estimate, unit: str = "") -> str:
    """A fraction in percent, with its interval where it has one."""
    text = f"{100 * estimate.value:.1f}{unit}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
