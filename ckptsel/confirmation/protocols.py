"""How candidates are trained for real: one protocol a goal, the same for every candidate.

The presets are the paper's settings (Deng et al., arXiv 2203.04668, section 3.3). Where it is silent
(batch size, optimiser of natural images and X-rays, their schedule) they take the default here.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from timm.optim import list_optimizers

from ckptsel.errors import UsageError, did_you_mean

SMALL_IMAGE = 64
"""Pixels a side up to which images are moved rather than cropped and resized: mirroring or zooming
would change what small images of digits or symbols show."""

CYCLE_ENDS = (1 / 9, 1 / 3, 1.0)
THIRDS = (1 / 3, 2 / 3, 1.0)

EVALUATIONS = 10
EVALUATE_EVERY = 20
"""Points of a learning curve besides the ends of rungs: so many, but not closer than so many steps."""

CURVE_COST = 3 / 4
"""In fine-tuning the points between read at most this part of the images that the steps read. An image
costs a third of what it costs in a step, so that a curve takes a quarter of the steps' time."""


@dataclass(frozen=True)
class TrainingPlan:
    """One training.

    goal: fe or ft.
    n_steps: batches.
    lrs: learning rates to choose from, rising.
    optimizer: timm's name (`momentum` is SGD with momentum 0.9).
    schedule: `cosine` falls from the learning rate to zero once a rung, so that what a rung
    compares has settled; `step` divides it by ten after each third.
    augment: names of `ckptsel.training.loop.AUGMENTATIONS`.
    ema: decay of a moving average of the weights, which is then what is evaluated.
    scale_features: centre features by their mean and divide them by one number (their root mean
    square), so that one learning rate suits all checkpoints.
    """

    goal: str
    n_steps: int
    lrs: tuple[float, ...]
    batch_size: int = 64
    optimizer: str = "momentum"
    schedule: str = "cosine"
    weight_decay: float = 0.0
    augment: tuple[str, ...] = ()
    ema: float | None = None
    scale_features: bool = True

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps after which the race decides who goes on; the last is the end."""
        ends = CYCLE_ENDS if self.schedule == "cosine" else THIRDS
        return tuple(sorted({max(1, round(self.n_steps * end)) for end in ends}))

    def curve_steps(self, n_held: int) -> tuple[int, ...]:
        """Steps after which so many held-out images are evaluated."""
        n = min(EVALUATIONS, self.n_steps // EVALUATE_EVERY)
        if self.goal == "ft":
            n = min(n, int(CURVE_COST * self.n_steps * self.batch_size / n_held))
        even = {round(self.n_steps * i / n) for i in range(1, n)}
        return tuple(sorted(even | set(self.rungs)))

    def rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by during `step`, counted from 0."""
        past = [end for end in self.rungs if end <= step]
        if self.schedule == "step":
            return float(0.1 ** len(past))
        start = past[-1] if past else 0
        end = next((end for end in self.rungs if end > step), start + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start)))

    def for_sweep(self, n_fitted: int) -> "TrainingPlan":
        """The same on a quarter of the steps and `n_fitted` images, with a schedule of its own."""
        return dataclasses.replace(
            self, n_steps=max(1, self.n_steps // 4), batch_size=min(self.batch_size, n_fitted)
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


FE = TrainingPlan("fe", n_steps=1000, lrs=(0.001, 0.01, 0.1, 1.0))
FT = TrainingPlan("ft", n_steps=480, lrs=(0.001, 0.01, 0.1, 1.0), weight_decay=1e-4)
DEFAULTS = {"fe": FE, "ft": FT}


def _paper(
    protocol: TrainingPlan, n_steps: int, lr: float, optimizer: str = "momentum"
) -> TrainingPlan:
    return dataclasses.replace(
        protocol,
        n_steps=n_steps,
        lrs=(lr,),
        optimizer=optimizer,
        schedule="step",
        scale_features=False,
    )


CIFAR_EPOCHS = 150
"""The paper counts CIFAR's transfers in epochs, the others in iterations."""

PRESETS = {
    "paper-cifar": {"fe": _paper(FE, 0, 0.1, "adam"), "ft": _paper(FT, 0, 0.1, "adam")},
    "paper-natural": {"fe": _paper(FE, 6000, 0.01), "ft": _paper(FT, 9000, 0.1)},
    "paper-cxr": {"fe": _paper(FE, 1000, 0.001), "ft": _paper(FT, 1000, 0.01)},
}
"""By name and goal; no steps stand for CIFAR_EPOCHS."""


def make_protocol(
    goal: str,
    n_fitted: int,
    image_size: int,
    preset: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    **changes: Any,
) -> TrainingPlan:
    """The protocol of a goal: a preset's or the default, with what was asked for in its place.

    n_fitted: images that are fitted on. image_size: pixels a side. changes: fields of `TrainingPlan`;
    those that are None stay as they are. Raises UsageError for a preset that is not known.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(
            f"unknown preset {preset!r}. Known: {', '.join(PRESETS)}."
            + did_you_mean(preset, PRESETS)
        )
    optimizer = changes.get("optimizer")
    if optimizer is not None and optimizer not in list_optimizers():
        raise UsageError(
            f"unknown optimizer {optimizer!r}: not one of timm's."
            + did_you_mean(optimizer, list_optimizers())
        )
    protocol = DEFAULTS[goal] if preset is None else PRESETS[preset][goal]
    given = {name: value for name, value in changes.items() if value is not None}
    batch_size = min(given.pop("batch_size", protocol.batch_size), n_fitted)
    if goal == "fe":
        # Frozen features are computed once, of images as they are; the layer on them is small.
        for name in ("augment", "ema"):
            given.pop(name, None)
    else:
        small = image_size <= SMALL_IMAGE
        given.setdefault("augment", ("crop",) if small else ("resized_crop", "flip"))
        given["augment"] = tuple(name for name in given["augment"] if name != "none")
    if epochs is None and steps is None and not protocol.n_steps:
        epochs = CIFAR_EPOCHS
    if epochs is not None:
        steps = max(1, round(epochs * (n_fitted // batch_size)))
    return dataclasses.replace(
        protocol, batch_size=batch_size, n_steps=steps or protocol.n_steps, **given
    )
