"""The options of `ckptsel watch` besides those of `rank`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from ckptsel.settings.kinds import ConfigOption, Count, Positive, QuietOption, Text
from ckptsel.settings.option import Option, Options


@dataclass(frozen=True)
class WatchSettings(Options):
    """When `ckptsel watch` looks, what it does besides ranking, and when it ends."""

    poll: Annotated[Positive, Option("Seconds between two looks at the folder.")] = 10.0
    nice: Annotated[
        int, Ge(0), Le(19), Option("How far it steps back for the trainer, as nice does.")
    ] = 10
    keep_best: Annotated[
        Count | None, Option("Keep copies of so many of the best, in kept/ of --out.")
    ] = None
    on_best: Annotated[
        Text | None,
        Option(
            "Command that is run when another checkpoint is the best, without a shell: its path is "
            "added, or stands where {path} is."
        ),
    ] = None
    on_peak: Annotated[
        Text | None,
        Option("The same, when the best is well ahead and later ones are unlikely to pass it."),
    ] = None
    until: Annotated[Count | None, Option("End when so many checkpoints are ranked.")] = None
    stop_after: Annotated[
        float | None,
        Ge(0),
        Option("End when nothing new came for so many seconds; 0: rank what is there, and end."),
    ] = None
    attached: Annotated[
        bool,
        Option(
            "End, after a last round, when stdin ends or holds a word: for the program that starts it."
        ),
    ] = False


@dataclass(frozen=True)
class WatchCall(Options):
    """What holds for one call of `ckptsel watch`."""

    config: ConfigOption = None
    quiet: QuietOption = False
