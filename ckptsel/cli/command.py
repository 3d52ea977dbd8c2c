"""The typer application, and what makes a function a command of it."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ckptsel.cli.arguments import read_arguments, typer_signature
from ckptsel.common.streams import put
from ckptsel.settings.option import Given, Options
from ckptsel.settings.toml import known_options

app = typer.Typer(
    name="ckptsel",
    help="Which checkpoint of a pre-training run to use on your data, how sure that is, and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ckptsel.common.environment import package_version

        put(f"{package_version('ckptsel') or 'unknown (not installed)'}\n")
        raise typer.Exit


def command(*groups: type[Options]) -> Callable[[Callable[[Given], None]], Callable[[Given], None]]:
    """Makes a function a command of `app`, with the options of these classes; it gets those given."""
    options = known_options(groups)

    def add(function: Callable[[Given], None]) -> Callable[[Given], None]:
        def run(**arguments: Any) -> None:
            function(read_arguments(options, arguments))

        run.__doc__ = function.__doc__
        run.__signature__ = typer_signature(options)  # type: ignore[attr-defined]
        app.command(function.__name__)(run)
        return function

    return add
