"""How images go into a network: what was asked for, what files record, what the network itself says."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptsel.errors import ModelError
from ckptsel.target.pixels import Preprocessing

COLOUR = 3
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Inputs:
    """Options of `ckptsel rank` about the inputs of a network; None where nothing is said.

    crop_mode: `squash` resizes to a square, whatever the sides; no option asks for it.
    """

    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    pool: str | None = None

    def over(self, other: "Inputs") -> "Inputs":
        """This one's values, the other's where this one says nothing."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        if "crop_pct" in said:
            said.setdefault("crop_mode", "center")  # an image that is squashed is not cropped
        return dataclasses.replace(other, **said)

    @classmethod
    def of_records(cls, values: Mapping[str, Any]) -> "Inputs":
        """From what `ckptsel.checkpoints.network_inputs` found."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


UNSAID = Inputs()


def preprocessing_of(wanted: Inputs, own: Inputs) -> Preprocessing:
    """wanted: what was asked for or recorded. own: what the network says itself; size, mean and std are
    always there.

    Raises ModelError where images cannot be made as they should be.
    """
    used = wanted.over(own)
    channels, side = used.channels or COLOUR, used.image_size
    if channels not in (1, COLOUR):
        raise ModelError(
            f"the network takes {channels} channels, and images are read as grey (1 channel) or colour "
            "(3). Give ckptsel a module that makes its input of one of these (--model "
            "package.module:function)."
        )
    assert side is not None
    return Preprocessing(
        input_size=(channels, side, side),
        interpolation=used.interpolation or "bicubic",
        mean=_one_a_channel(wanted.mean, own.mean or IMAGENET_MEAN, channels, "mean"),
        std=_one_a_channel(wanted.std, own.std or IMAGENET_STD, channels, "std"),
        crop_pct=used.crop_pct or 1.0,
        crop_mode=used.crop_mode or "center",
    )


def _one_a_channel(
    wanted: tuple[float, ...] | None, own: tuple[float, ...], channels: int, name: str
) -> tuple[float, ...]:
    """own: of colour images, whose mean a grey one gets."""
    if wanted is None and len(own) != channels:
        return (sum(own) / len(own),) * channels
    values = own if wanted is None else wanted
    if len(values) not in (1, channels):
        raise ModelError(f"--{name} has {len(values)} numbers; the model has {channels} channels.")
    return tuple(values) * (channels if len(values) == 1 else 1)
