"""The command line: one file a command. Parses, calls, prints; nothing else knows typer.

Results go to stdout, progress and messages to stderr. Heavy imports happen inside the commands, so
that help is instant.
"""

from ckptsel.cli.command import EXIT_INTERRUPTED, app, main

# Importing a command adds it to `app`; help shows them in this order.
from ckptsel.cli import rank, gate, pick, confirm, report, inspect, cache, reproduce  # noqa: F401  # isort: skip

__all__ = ["EXIT_INTERRUPTED", "app", "main"]
