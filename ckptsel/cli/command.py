"""The typer application, and what makes a function a command of it."""

import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ckptsel.cli.arguments import read_arguments, typer_signature
from ckptsel.errors import CkptselError
from ckptsel.settings.option import Given, Options
from ckptsel.settings.toml import known_options

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="ckptsel",
    help="Which checkpoint of a pre-training run to use on your data, how sure that is, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ckptsel.common.environment import package_version

        print(package_version("ckptsel") or "unknown (not installed)")
        raise typer.Exit


def command(*groups: type[Options]) -> Callable[[Callable[[Given], None]], Callable[[Given], None]]:
    """Makes a function a command of `app`, with the options of these classes; it gets those given.

    An expected error ends in one message and its exit code.
    """
    options = known_options(groups)

    def add(function: Callable[[Given], None]) -> Callable[[Given], None]:
        @_ends_plainly
        def run(**arguments: Any) -> None:
            function(read_arguments(options, arguments))

        run.__doc__ = function.__doc__
        run.__signature__ = typer_signature(options)  # type: ignore[attr-defined]
        app.command(function.__name__)(run)
        return function

    return add


def _ends_plainly(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def guarded(**arguments: Any) -> None:
        try:
            function(**arguments)
        except CkptselError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print(
                "interrupted: what was finished is kept; the same command goes on from there.",
                file=sys.stderr,
            )
            sys.exit(EXIT_INTERRUPTED)

    return guarded
