"""From declared options to the parameters that typer shows, and from what it parsed to values."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ckptsel.common.streams import say
from ckptsel.settings.option import Argument, Declared, Given, OptionError

METAVARS = {"integer": "<int>", "number": "<float>"}
"""In typer's own form; all other values are texts."""


def typer_signature(options: Mapping[str, Declared]) -> inspect.Signature:
    """The signature from which typer makes its parameters.

    All but flags are texts to typer, so that one wording speaks of wrong values, wherever they came
    from; options are lists of texts, so that none is lost without a word where it is given twice; and
    all are None where they are not given, since a configuration file may hold them.
    """
    return inspect.Signature([_parameter(option) for option in options.values()])


def _parameter(option: Declared) -> inspect.Parameter:
    is_place = isinstance(option.option, Argument)
    kind: Any = bool if option.kind == "boolean" else str if is_place else list[str]
    if isinstance(option.option, Argument):
        shown: Any = typer.Argument(help=option.option.help)
    else:
        shown = typer.Option(
            *option.flags,
            help=help_text(option),
            metavar=_metavar(option),
            autocompletion=_completion(option),
        )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.is_required else None,
        annotation=Annotated[kind if option.is_required else kind | None, shown],
    )


def _completion(option: Declared) -> Callable[[str], list[str]] | None:
    """What a shell offers for the value; None where any text may stand."""
    if option.kind == "boolean":
        return None
    known: list[str] = option.schema.get("items", option.schema).get("enum", [])

    def complete(incomplete: str) -> list[str]:
        # Of several separated by commas the last is being typed.
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete if known else None


def help_text(option: Declared) -> str:
    """What help shows of an option: what it does, and what it comes to where it is not given."""
    default = option.default_text
    return option.option.help + (f" [default: {default}]" if default else "")


def _metavar(option: Declared) -> str | None:
    if option.kind == "boolean":
        return None
    by_format = "<path>" if option.schema.get("format") == "path" else "<str>"
    return METAVARS.get(option.kind, by_format)


def read_arguments(options: Mapping[str, Declared], arguments: Mapping[str, Any]) -> Given:
    """The options that were given, checked. Raises OptionError for a value that does not fit."""
    written = {name: option.written(arguments.get(name)) for name, option in options.items()}
    values = {}
    for name, value in arguments.items():
        if value is None or value == []:
            continue
        option = options[name]
        try:
            values[name] = option.check(_value_of(option, value))
        except OptionError as error:
            raise error.written_as(written) from None
    return Given(values, written)


def _value_of(option: Declared, given: Any) -> Any:
    """What was given as one value: a flag, the text of an argument, the texts of an option."""
    if option.option.repeats or not isinstance(given, list):
        return option.parse(given) if isinstance(given, str) else given
    if option.kind == "array":
        return option.parse(",".join(given))
    if len(set(given)) > 1:
        say(f"note: {option.flags[0]} is given {len(given)} times; the last counts: {given[-1]}")
    return option.parse(given[-1])
