"""Kinds of values that several options have, and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field

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
Age = Annotated[str, Field(pattern=AGE_PATTERN, description="it must be an age such as 30d or 12h")]
Precision = Literal["float32", "bfloat16", "float16"]
Form = Literal["table", "json", "csv", "md"]

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
ReadMemoryOption = Annotated[
    Size, Option("Memory that reading one checkpoint may take besides the file itself.")
]
ReadTimeoutOption = Annotated[
    Positive, Option("Seconds that reading one checkpoint may take, besides one for every 10 MiB.")
]
MaxFileSizeOption = Annotated[Size, Option("A larger checkpoint is not read.")]
