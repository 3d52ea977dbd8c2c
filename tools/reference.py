"""Writes the generated part of the documentation, `docs/reference/`: the command line, the schema
of `ckptsel.toml`, and that of `ranking.json` with a page that shows it.

    python -m tools.reference            # write
    python -m tools.reference --check    # exit 1 where a file is not current
"""

import dataclasses
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

from ckptsel import cli, errors
from ckptsel.common.streams import EXIT_READER_LEFT
from ckptsel.results import confirmation, ranking
from ckptsel.results import targets as targets_result
from ckptsel.results.confirmation import ConfirmationRecord
from ckptsel.results.estimate import Estimate
from ckptsel.results.ranking import Ranking
from ckptsel.results.targets import TargetsRecord
from ckptsel.settings import toml
from ckptsel.settings.schema import config_schema
from ckptsel.settings.targets import table_options
from tools.docstrings import split_docstring

FOLDER = Path(__file__).parents[1] / "docs/reference"
GENERATED = "<!-- Written by `python -m tools.reference`; edits are lost. -->\n"


def pages() -> dict[str, str]:
    """Text of every generated file, by its name."""
    schema, confirmed, targets = ranking_schema(), confirmation_schema(), targets_schema()
    written = "What `ckptsel rank --out` writes and `--format json` prints"
    return {
        "cli.md": cli_page(),
        "ckptsel.schema.json": _json_text(config_schema()),
        "ranking.md": schema_page(schema, "ranking.json", written),
        "ranking.schema.json": _json_text(schema),
        "confirm.md": schema_page(confirmed, "confirm.json", "What `ckptsel confirm` writes"),
        "confirm.schema.json": _json_text(confirmed),
        "targets.md": schema_page(
            targets, "targets.json", "What `ckptsel rank --out` writes of several targets"
        ),
        "targets.schema.json": _json_text(targets),
    }


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def cli_page() -> str:
    """Every command with its arguments, options, defaults and example, what a configuration file may
    hold, and the exit codes."""
    parts = [GENERATED, "# Command line\n", f"{cli.app.info.help}\n"]
    for name, command in commands().items():
        parts += [f"## ckptsel {name}\n", _command_text(name, command)]
    parts += ["## Configuration file\n", _config_text()]
    parts += ["## Exit codes\n", _table(("code", "meaning"), _exit_codes())]
    return "\n".join(parts)


def commands() -> dict[str, Any]:
    """The commands of the command line, by name."""
    group: Any = typer.main.get_command(cli.app)
    return group.commands


def _command_text(name: str, command: Any) -> str:
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(
        ["ckptsel", name, *(_argument_name(p) for p in arguments), "[OPTIONS]" if options else ""]
    )
    about, *examples = re.split(r"^Example: ", inspect.cleandoc(command.help), flags=re.MULTILINE)
    parts = [f"```text\n{usage.strip()}\n```\n", about.strip() + "\n"]
    if examples:
        parts += ["```sh\n" + "\n".join(text.strip() for text in examples) + "\n```\n"]
    if arguments:
        rows = [(f"`{_argument_name(p)}`", _cell(p.help or "")) for p in arguments]
        parts.append(_table(("argument", "meaning"), rows))
    if options:
        rows = [_option_row(p) for p in options]
        parts.append(_table(("option", "default", "meaning"), rows))
    return "\n".join(parts)


def _argument_name(parameter: Any) -> str:
    name = parameter.name.rstrip("_").upper()
    return name if parameter.required else f"[{name}]"


def _option_row(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    text, _, stated = (parameter.help or "").partition("[default: ")
    default = _cell(stated.rstrip("] .")) if stated else _default_text(parameter.default)
    return names, default, _cell(text)


def _default_text(default: Any) -> str:
    return "" if default is None or default is False else f"`{default}`"


def _config_text() -> str:
    names = [
        ", ".join(f"`{name.replace('_', '-')}`" for name in toml.known_options(groups))
        for groups in (toml.TOP_LEVEL, toml.BELOW_GATE)
    ]
    own = ", ".join(f"`{name.replace('_', '-')}`" for name in table_options())
    return (
        f"`{toml.CONFIG_NAME}`, or the table `[tool.ckptsel]` of a `pyproject.toml`, may hold "
        f"{names[0]}; below `[gate]` {names[1]}; and below each `[[target]]` {own}. Numbers stand "
        "without quotes, and several values as a list. Editors can check the file with its "
        "[JSON Schema](ckptsel.schema.json).\n"
    )


def _exit_codes() -> Iterator[tuple[str, str]]:
    yield "0", "Done."
    for error in (errors.CkptselError, *_subclasses(errors.CkptselError)):
        if "exit_code" in vars(error):
            about = "A crash: please report it." if error.exit_code == 1 else error.__doc__ or ""
            yield str(error.exit_code), about
    yield str(cli.EXIT_INTERRUPTED), "Interrupted; what was finished is kept."
    yield str(EXIT_READER_LEFT), "Whoever read stdout left, as `head` does."
    yield str(cli.EXIT_TERMINATED), "Terminated (SIGTERM); what was finished is kept."


def _subclasses(cls: type) -> Iterator[type[errors.CkptselError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def ranking_schema() -> dict[str, Any]:
    """JSON Schema of `ranking.json`."""
    return _result_schema(Ranking, ranking.SCHEMA)


def confirmation_schema() -> dict[str, Any]:
    """JSON Schema of `confirm.json`."""
    return _result_schema(ConfirmationRecord, confirmation.SCHEMA)


def targets_schema() -> dict[str, Any]:
    """JSON Schema of `targets.json`."""
    return _result_schema(TargetsRecord, targets_result.SCHEMA)


def _result_schema(cls: type, name: str) -> dict[str, Any]:
    """The schema of a file, from the classes and their docstrings."""
    schema = TypeAdapter(cls).json_schema()
    for definition in (schema, *schema["$defs"].values()):
        _explain(definition)
    properties = schema["properties"]
    properties["ckptsel"] = {**properties.pop("version"), "title": "Ckptsel"}
    properties["schema"] = {"const": name, "description": properties["schema"]["description"]}
    schema["required"] = ["schema", *(n.replace("version", "ckptsel") for n in schema["required"])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _explain(definition: dict[str, Any]) -> None:
    """Move what a class's docstring says of each field to the field; of fields that it inherits, what
    the docstring of the class below says."""
    properties = definition["properties"]
    about, fields = split_docstring(definition["description"], properties)
    definition["description"] = " ".join(about.split())
    for base in (Estimate, confirmation.GoalConfirmation):
        if {f.name for f in dataclasses.fields(base)} <= set(properties):
            fields = split_docstring(inspect.getdoc(base) or "", properties)[1] | fields
    for name, text in fields.items():
        properties[name]["description"] = text[0].upper() + text[1:]


def schema_page(schema: dict[str, Any], file: str, about: str) -> str:
    """A table of keys for each object of the schema. about: what writes the file."""
    name = schema["properties"]["schema"]["const"]
    parts = [
        GENERATED,
        f"# {file}\n",
        f"{about}: schema `{name}`, as [JSON Schema]({file.replace('.json', '.schema.json')}). Within "
        "a schema number keys are only ever added; files of older numbers are read.\n",
    ]
    for title, definition in {schema["title"]: schema, **schema["$defs"]}.items():
        parts += [
            f"## {title}\n",
            definition["description"] + "\n",
            _table(("key", "type", "meaning"), _key_rows(definition["properties"])),
        ]
    return "\n".join(parts)


def _key_rows(properties: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Neighbours that are explained together share a row."""
    about = {k: (_type_text(v), _cell(v.get("description", ""))) for k, v in properties.items()}
    for explained, keys in itertools.groupby(about, about.__getitem__):
        yield ", ".join(f"`{key}`" for key in keys), *explained


def _type_text(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_type_text(option) for option in value["anyOf"])
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_type_text(value['items'])}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type_text(value['additionalProperties'])}"
    return value.get("type", "any")


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def outdated() -> list[str]:
    """Names of generated files that are not what would be written now."""
    return [name for name, text in pages().items() if _stored(FOLDER / name) != text]


def _stored(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if names := outdated():
            sys.exit(
                f"docs/reference: {', '.join(names)} not current; run python -m tools.reference"
            )
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
