"""Kinds of values that several options have, and options that several commands share."""

import re
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, Field

from ckptsel.common.quantities import AGE_PATTERN, SIZE_PATTERN
from ckptsel.settings.option import Argument, Option

LIBRARIES = ("torchvision", "hf", "open_clip")
"""What stands before the colon in the name of a network that a library builds from names of its own."""

Text = Annotated[str, Field(pattern=r"\S")]
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""The range that every generator of random numbers takes."""

Fraction = Annotated[
    float, Ge(0), Le(1), Field(description="it is a fraction between 0 and 1 (0.85 for 85 %)")
]
DeviceName = Annotated[
    str,
    Field(
        pattern=r"^(cpu|mps|cuda(:[0-9]{1,4})?)$",
        description="it must be cpu, cuda, cuda:N (such as cuda:1) or mps",
    ),
]
Size = Annotated[
    str, Field(pattern=SIZE_PATTERN, description="it must be a size such as 5GiB or 500MB")
]
ShardName = Annotated[
    str,
    Field(
        pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$",
        description="it must be a part and the number of parts, such as 3/16",
    ),
]
Age = Annotated[str, Field(pattern=AGE_PATTERN, description="it must be an age such as 30d or 12h")]
Budget = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(
        pattern=rf"^auto$|^[1-9][0-9]{{0,5}}$|{AGE_PATTERN}",
        description="it must be auto, a number of checkpoints such as 30, or a time such as 10min",
    ),
]
Repository = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="it must be ORG/NAME, such as my-lab/my-backbone",
    ),
]
FolderName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        description="it must be a name for a folder: letters, digits, dots, dashes",
    ),
]
Precision = Literal["float32", "bfloat16", "float16"]
Form = Literal["table", "json", "csv", "md"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]

RunArgument = Annotated[Path, Argument("Folder that `ckptsel rank --out` wrote.")]
FormatOption = Annotated[Form, Option("table, json, csv or md.", ("--format", "-f"))]
ConfigOption = Annotated[
    Path | None,
    Option(
        "TOML file of options.",
        ("--config", "-c"),
        default="ckptsel.toml, or [tool.ckptsel] of pyproject.toml",
    ),
]
QuietOption = Annotated[bool, Option("No progress on stderr.", ("--quiet", "-q"))]
OwnModelOption = Annotated[
    Text | None,
    Option("package.module:function, where it was ranked with one.", ("--model", "-m")),
]
LogToOption = Annotated[
    tuple[Tracker, ...] | None,
    MinLen(1),
    Option(
        "Log the results to tensorboard, mlflow or wandb, as `ckptsel log` does; several separated by "
        "commas."
    ),
]
ReadMemoryOption = Annotated[
    Size, Option("Memory that reading one checkpoint may take besides the file itself.")
]
ReadTimeoutOption = Annotated[
    Positive,
    Option(
        "Seconds of computing that reading one checkpoint may take, besides one for every 10 MiB; by "
        "the clock five times as long."
    ),
]


def _with_group(pattern: str) -> str:
    """Raises ValueError where it is no regular expression with a group."""
    try:
        n_groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if n_groups < 1:
        raise ValueError("it has no group")
    return pattern


OrderOption = Annotated[
    Literal["name", "epoch", "step", "mtime"] | None,
    Option(
        "What tells the order of training: name, epoch, step, mtime (when the file was written).",
        default="the epochs that the files record, else those in their names, else the names",
    ),
]
EpochRegexOption = Annotated[
    Annotated[
        str,
        AfterValidator(_with_group),
        Field(
            min_length=1,
            description="it must be a regular expression whose first group is the epoch, such as "
            "ep([0-9]+)",
        ),
    ]
    | None,
    Option(
        "Regular expression whose first group is the epoch in a checkpoint's path below the folder; "
        "what the files record does not count then.",
        example="ep([0-9]+)",
    ),
]
MaxFileSizeOption = Annotated[Size, Option("A larger checkpoint is not read.")]
