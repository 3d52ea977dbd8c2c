"""The command line: one file a command. Parses, calls, prints; nothing else knows typer.

Results go to stdout, progress and messages to stderr. Heavy imports happen inside the commands, so
that help is instant; and all others inside `main`, so that an interrupt never meets a bare import.
"""

from typing import Any

from ckptsel.cli.process import EXIT_INTERRUPTED, EXIT_TERMINATED, end_process

__all__ = ["EXIT_INTERRUPTED", "EXIT_TERMINATED", "app", "main"]


def main() -> None:
    """Run the command line. Ends in SystemExit."""
    end_process(_work)


def _work() -> int:
    from ckptsel.cli.commands import run

    return run()


def __getattr__(name: str) -> Any:
    if name == "app":
        from ckptsel.cli.commands import app

        return app
    raise AttributeError(f"module 'ckptsel.cli' has no attribute {name!r}")
