"""The options of `ckptsel extract`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from ckptsel.settings.kinds import (
    Count,
    DeviceName,
    OwnModelOption,
    Precision,
    QuietOption,
    Size,
    Text,
)
from ckptsel.settings.option import Argument, Option, OptionError, Options

SUFFIXES = (".safetensors", ".npz", ".parquet")


@dataclass(frozen=True)
class ExtractSettings(Options):
    """Everything that `ckptsel extract` can be told.

    run: a ranking, or an exported network. fit_data: the images of the ranking, if they were moved.
    """

    run: Annotated[
        Path, Argument("Folder that `ckptsel rank --out` wrote, or a file of `ckptsel pick --to`.")
    ]
    data: Annotated[
        Text,
        Option(
            "Images, with labels or without: as for rank, or a folder of images, a list of paths, an "
            "image.",
            ("--data", "-d"),
        ),
    ]
    to: Annotated[Path, Option("File to write: .safetensors, .npz or .parquet.")]
    candidate: Annotated[
        Text | None, Option("Another than the best, by its name.", example="checkpoint-080@layer2")
    ] = None
    predictions: Annotated[
        bool,
        Option("Predict classes too, by the probe, fitted anew on the images of the ranking."),
    ] = False
    split: Annotated[Text | None, Option("train, validation or test.", default="all")] = None
    model: OwnModelOption = None
    data_root: Annotated[Text | None, Option("As for rank.")] = None
    image_column: Annotated[Text | None, Option("As for rank.")] = None
    label_column: Annotated[Text | None, Option("As for rank.")] = None
    fit_data: Annotated[
        Text | None,
        Option("With --predictions: where the images of the ranking are now.", default="as ranked"),
    ] = None
    device: Annotated[DeviceName | None, Option("As for rank.")] = None
    precision: Annotated[
        Precision | None,
        Option("float32, bfloat16, float16.", default="the ranking's on its kind of device"),
    ] = None
    batch_size: Annotated[Count | None, Option("As for rank.")] = None
    workers: Annotated[int | None, Ge(0), Option("As for rank.")] = None
    cache_dir: Annotated[Text | None, Option("With --predictions: as for rank.")] = None
    cache: Annotated[
        bool | None, Option("With --predictions: as for rank.", ("--cache/--no-cache",))
    ] = None
    cache_size: Annotated[Size | None, Option("With --predictions: as for rank.")] = None
    quiet: QuietOption = False

    @property
    def is_of_a_ranking(self) -> bool:
        """Whether `run` is a ranking, and no exported network."""
        return self.run.suffix != ".safetensors" or self.run.is_dir()

    def check_together(self) -> None:
        if self.to.suffix not in SUFFIXES:
            raise OptionError(
                "{0} is {1}; it must end in .safetensors, .npz or .parquet.",
                "to",
                repr(str(self.to)),
            )
        for name in () if self.is_of_a_ranking else ("candidate", "predictions"):
            if getattr(self, name):
                raise OptionError(
                    "{0} is for a ranking; an exported network is one candidate, and holds no probe. "
                    "Give the folder of the ranking.",
                    name,
                )
