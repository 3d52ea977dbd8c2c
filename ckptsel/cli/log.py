"""`ckptsel log`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from ckptsel.cli.command import command
from ckptsel.common.outlets import shown
from ckptsel.common.streams import put
from ckptsel.errors import OutputError
from ckptsel.settings.kinds import RunArgument, Tracker
from ckptsel.settings.option import Given, Option, Options


@dataclass(frozen=True)
class LogOptions(Options):
    """The options of `ckptsel log`."""

    run: RunArgument
    to: Annotated[
        tuple[Tracker, ...],
        MinLen(1),
        Option("tensorboard, mlflow or wandb; several separated by commas."),
    ] = ("tensorboard",)


@command(LogOptions)
def log(given: Given) -> None:
    """Log a ranking, and what confirmed it, to an experiment tracker; prints where.

    Servers, projects and runs are those that the tracker's own environment variables name.

    Example: ckptsel log ranking/ --to tensorboard
    """
    _run(given.make(LogOptions))


def _run(options: LogOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.trackers.log import check_installed, log_run

    check_installed(options.to)
    problems: list[str] = []
    for tracker in options.to:
        try:
            put(f"{shown(log_run(options.run, tracker))}\n")
        except OutputError as error:  # the others may take it
            problems += error.lines
    if problems:
        raise OutputError(*problems)
