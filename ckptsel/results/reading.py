"""How a network is read: what an exported file says besides its weights, as JSON in its metadata.

It is all that gives the same features again: the network, how images are prepared for it, where it is
read, and what each stage is divided by. Everything in it is plain data, and checked when it is read.
"""

from dataclasses import KW_ONLY, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ckptsel.errors import InputError
from ckptsel.results.estimate import FINITE

READING_VERSION = 1
"""Raised whenever a file would be read otherwise by what came before."""

KEY = "reading"
"""Under which it stands in the metadata of a safetensors file."""

Pixels = Annotated[int, Ge(1), Le(4096)]
Small = bool | int | float


@dataclass(frozen=True, config=FINITE)
class StageReading:
    """A module whose output is read.

    name: of the module. shape: of its output for one image. channels_last: whether maps have their
    channels last. grid: maps are averaged on grid x grid. n_prefix: tokens before the patches.
    scale: what its features are divided by.
    """

    name: str
    shape: Annotated[tuple[Annotated[int, Ge(1)], ...], Len(1, 3)]
    channels_last: bool = False
    grid: Annotated[int, Ge(1), Le(64)] = 1
    n_prefix: Annotated[int, Ge(0)] = 0
    scale: Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, config=FINITE)
class Prepared:
    """How an image becomes the input of the network.

    input_size: channels, height, width in pixels. mean, std: a number a channel, for pixels in [0, 1].
    crop_pct: the part of the resized image that the centre crop keeps. crop_mode: `squash` resizes to
    the square whatever the sides.
    """

    input_size: tuple[Literal[1, 3], Pixels, Pixels]
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Gt(0)], ...]
    crop_pct: Annotated[float, Gt(0), Le(1)]
    crop_mode: Literal["center", "squash", "border"] = "center"

    @model_validator(mode="after")
    def _check_channels(self) -> "Prepared":
        if not len(self.mean) == len(self.std) == self.input_size[0]:
            raise ValueError("mean and std have a number for each channel")
        return self


@dataclass(frozen=True, config=FINITE)
class BuiltWith:
    """What a network was built for, of the options of `ckptsel rank`; null where nothing was said."""

    image_size: Pixels | None = None
    channels: Annotated[int, Ge(1), Le(64)] | None = None
    pool: str | None = None


@dataclass(frozen=True, config=FINITE)
class NetworkReading:
    """The network.

    name: in a registry, or `module:function`, which no file may have run.
    asked: what the user asked for. recorded: what the checkpoints say. arguments: numbers that they
    record of it. config: config.json of transformers.
    """

    name: str
    asked: BuiltWith = field(default_factory=BuiltWith)
    recorded: BuiltWith = field(default_factory=BuiltWith)
    arguments: dict[str, Small | list[Small]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=FINITE)
class Reading:
    """How a network is read.

    candidate: its name in the ranking. layer: where it is read; `last` is the input of its classifier.
    stages: whose outputs are the features, side by side; none at the last layer.
    classes: of the target that it was ranked for.
    """

    network: NetworkReading
    preprocessing: Prepared
    _: KW_ONLY
    candidate: str
    layer: str = "last"
    stages: tuple[StageReading, ...] = ()
    classes: tuple[str, ...] = ()
    version: Annotated[int, Field(ge=1, le=READING_VERSION)] = READING_VERSION

    @model_validator(mode="after")
    def _check_stages(self) -> "Reading":
        if (self.layer == "last") != (not self.stages):
            raise ValueError("stages are read at every layer but the last, and only there")
        return self

    def to_json(self) -> str:
        return _READER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str, where: str) -> "Reading":
        """Raises InputError naming where it stands, and what cannot be read."""
        try:
            return _READER.validate_json(text)
        except ValidationError as error:
            raise _not_read(where, error) from error

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> "Reading":
        """From plain data; raises as `from_json`."""
        try:
            return _READER.validate_python(values)
        except ValidationError as error:
            raise _not_read(where, error) from error


_READER = TypeAdapter(Reading)


def _not_read(where: str, error: ValidationError) -> InputError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    newer = " It is of a later version of ckptsel." if place == "version" else ""
    return InputError(
        f"{where} does not say how to read its network: {place}: {first['msg']}.{newer}"
    )
