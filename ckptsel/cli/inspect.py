"""`ckptsel inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ckptsel.cli.checks import print_notes
from ckptsel.cli.command import command
from ckptsel.common.streams import put
from ckptsel.settings.kinds import (
    EpochRegexOption,
    FormatOption,
    MaxFileSizeOption,
    OrderOption,
    QuietOption,
    ReadMemoryOption,
    ReadTimeoutOption,
    Text,
)
from ckptsel.settings.option import Argument, Given, Option, Options


@dataclass(frozen=True)
class InspectOptions(Options):
    """The options of `ckptsel inspect`."""

    checkpoints: Annotated[Path, Argument("Folder of checkpoints, or one file.")]
    weights: Annotated[Text, Option("As for rank.")] = "auto"
    order: OrderOption = None
    epoch_regex: EpochRegexOption = None
    read_memory: ReadMemoryOption = "4GiB"
    read_timeout: ReadTimeoutOption = 60.0
    max_file_size: MaxFileSizeOption = "256GiB"
    format: FormatOption = "table"
    quiet: QuietOption = False


@command(InspectOptions)
def inspect(given: Given) -> None:
    """Show what was found: format, epoch, source accuracy, weights, parameters, digest, problems.

    Example: ckptsel inspect ckpts/
    """
    _run(given.make(InspectOptions))


def _run(options: InspectOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.checkpoints.guard import limits_of
    from ckptsel.checkpoints.order import Order
    from ckptsel.checkpoints.scan import scan
    from ckptsel.report.inspection import checkpoints_text

    order = Order(options.order, options.epoch_regex)
    found = scan(options.checkpoints, options.weights, limits_of(options), options.quiet, order)
    put(checkpoints_text(found.checkpoints, options.format))
    print_notes(found.notes())
