"""`ckptsel inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ckptsel.cli.checks import print_notes
from ckptsel.cli.command import command
from ckptsel.common.streams import put
from ckptsel.settings.kinds import (
    Count,
    EpochRegexOption,
    FormatOption,
    MaxFileSizeOption,
    OrderOption,
    QuietOption,
    ReadMemoryOption,
    ReadTimeoutOption,
    Text,
)
from ckptsel.settings.option import Argument, Given, Option, OptionError, Options


@dataclass(frozen=True)
class InspectOptions(Options):
    """The options of `ckptsel inspect`."""

    checkpoints: Annotated[Path, Argument("Folder of checkpoints, or one file.")]
    weights: Annotated[Text, Option("As for rank.")] = "auto"
    layers: Annotated[bool, Option("List where their network can be read.")] = False
    model: Annotated[Text | None, Option("With --layers: as for rank.", ("--model", "-m"))] = None
    image_size: Annotated[Count | None, Option("With --layers: as for rank.")] = None
    order: OrderOption = None
    epoch_regex: EpochRegexOption = None
    read_memory: ReadMemoryOption = "4GiB"
    read_timeout: ReadTimeoutOption = 60.0
    max_file_size: MaxFileSizeOption = "256GiB"
    format: FormatOption = "table"
    quiet: QuietOption = False


@command(InspectOptions)
def inspect(given: Given) -> None:
    """Show what was found: format, epoch, source accuracy, weights, parameters, digest, problems; or the
    layers of their network.

    Example: ckptsel inspect ckpts/
    """
    options = given.make(InspectOptions)
    if options.layers:
        _show_layers(options)
    else:
        for name in ("model", "image_size"):
            if getattr(options, name) is not None:
                raise OptionError("{0} is for --layers.", name).written_as(given.written)
        _run(options)


def _run(options: InspectOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.checkpoints.guard import limits_of
    from ckptsel.checkpoints.order import Order
    from ckptsel.checkpoints.scan import scan
    from ckptsel.checkpoints.walk import NOT_NEEDED
    from ckptsel.common.remote import local_path
    from ckptsel.report.inspection import checkpoints_text

    order = Order(options.order, options.epoch_regex)
    root = local_path(options.checkpoints, quiet=options.quiet, skip=NOT_NEEDED)
    found = scan(root, options.weights, limits_of(options), options.quiet, order)
    put(checkpoints_text(found.checkpoints, options.format))
    print_notes(found.notes())


def _show_layers(options: InspectOptions) -> None:
    """Names of layers, what comes out of them, and the numbers an image that are read."""
    from ckptsel.checkpoints.guard import limits_of
    from ckptsel.checkpoints.scan import scan_checkpoints
    from ckptsel.features.encoders import ImageEncoder
    from ckptsel.ranking.resolve import open_encoder
    from ckptsel.report.inspection import layers_text
    from ckptsel.settings.rank import RankSettings

    found = scan_checkpoints(
        options.checkpoints, options.weights, limits_of(options), options.quiet
    )
    settings = RankSettings(
        model=options.model, image_size=options.image_size, weights=options.weights
    )
    encoder = open_encoder(settings, found, options.quiet)
    known = [{"layer": name, "output": None, "features": None} for name in encoder.layers]
    table = encoder.layer_table() if isinstance(encoder, ImageEncoder) else known
    put(layers_text(table, options.format))
