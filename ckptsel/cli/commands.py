"""All commands, and how what was typed is run."""

import io
from typing import Any

import typer

from ckptsel.cli import (  # noqa: F401
    cache,
    compare,
    confirm,
    demo,
    extract,
    gate,
    inspect,
    log,
    pick,
    rank,
    report,
    reproduce,
    scores,
    watch,
)
from ckptsel.cli.command import app
from ckptsel.cli.process import EXIT_INTERRUPTED
from ckptsel.common.outlets import shown
from ckptsel.common.streams import say_text

__all__ = ["app", "run"]

ORDER = (
    *("rank", "watch", "gate", "pick", "extract", "confirm", "compare", "report", "log", "inspect"),
    *("scores", "cache", "demo", "reproduce"),
)
"""In which help shows them: importing a command adds it to `app`, in whatever order."""

app.registered_commands.sort(key=lambda command: ORDER.index(command.name or ""))


def run() -> int:
    """Run what was typed; gives the exit code. Expected errors, and an interrupt, are raised."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False) or 0
    except typer.Abort:
        code = EXIT_INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _told(error)
    if code == EXIT_INTERRUPTED:  # typer's own word for it
        raise KeyboardInterrupt
    return int(code)


def _told(error: Any) -> int:
    """Shows an error of typer's (an option that there is not, say), and the usage."""
    is_help = type(error).__name__ == "NoArgsIsHelpError"
    if not is_help:
        error.message = shown(error.message)
    text = io.StringIO()
    error.show(text)
    say_text(text.getvalue())
    return int(error.exit_code)
