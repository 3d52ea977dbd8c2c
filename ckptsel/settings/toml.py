"""Configuration files: `ckptsel.toml`, or the table `[tool.ckptsel]` of a `pyproject.toml`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptsel.errors import UsageError, did_you_mean
from ckptsel.settings.option import Declared, Given, OptionError, Options, declared
from ckptsel.settings.policy import GateFiles, Policy
from ckptsel.settings.rank import RankFiles, RankInputs, RankSettings
from ckptsel.settings.targets import table_options
from ckptsel.settings.wording import found

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_NAME = "ckptsel.toml"
TOP_LEVEL: tuple[type[Options], ...] = (RankInputs, RankSettings, RankFiles)
BELOW_GATE: tuple[type[Options], ...] = (Policy, GateFiles)


@dataclass(frozen=True)
class Config:
    """What a configuration file says: options of `rank`, those of `gate` below `[gate]`, and those of
    each target below a `[[target]]`."""

    rank: Given = field(default_factory=Given)
    gate: Given = field(default_factory=Given)
    targets: tuple[Given, ...] = ()


def find_config(folder: Path) -> Path | None:
    """The configuration file of a folder: `ckptsel.toml`, else a `pyproject.toml` that has a table
    `[tool.ckptsel]`, else none."""
    own, project = folder / CONFIG_NAME, folder / "pyproject.toml"
    if own.is_file():
        return own
    if project.is_file() and "ckptsel" in _table(_read(project), "tool", project):
        return project
    return None


def read_config(path: Path) -> Config:
    """What a configuration file says, every value checked.

    Names may be written with dashes or underscores. Raises UsageError naming what is wrong.
    """
    values = _read(path)
    if path.name == "pyproject.toml":
        values = _table(_table(values, "tool", path), "ckptsel", path)
    policy = _table(values, "gate", path)
    targets = _tables(values, "target", path)
    options = {name: value for name, value in values.items() if name not in ("gate", "target")}
    if targets and "data" in options:
        raise UsageError(
            f"{path}: data and [[target]] both say what is ranked for; give one of them."
        )
    return Config(
        _given(options, known_options(TOP_LEVEL), f"{path}: ", ("gate", "target")),
        _given(policy, known_options(BELOW_GATE), f"{path}, below gate: "),
        tuple(
            _given(table, table_options(), f"{path}, target {number}: ")
            for number, table in enumerate(targets, start=1)
        ),
    )


def known_options(groups: tuple[type[Options], ...]) -> dict[str, Declared]:
    """The options of several classes, by field."""
    return {name: option for group in groups for name, option in declared(group).items()}


def _given(
    table: dict[str, Any],
    known: Mapping[str, Declared],
    where: str,
    tables: tuple[str, ...] = (),
) -> Given:
    """known: the options that may stand there. where: begins messages. tables: names that also may."""
    values, written = {}, {}
    for spelling, value in table.items():
        name = spelling.replace("-", "_")
        if name not in known:
            near = did_you_mean(name, (*known, *tables))
            if "-" in spelling:
                near = near.replace("_", "-")
            raise UsageError(f"{where}unknown option {spelling!r}.{near}")
        if name in values:
            raise UsageError(f"{where}{spelling} is given twice, with a dash and an underscore.")
        written[name] = f"{where}{spelling}"
        try:
            values[name] = known[name].check(value)
        except OptionError as error:
            raise error.written_as(written) from None
    return Given(values, written)


def _table(values: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        said = found(table, type(table).__name__)
        raise UsageError(f"{path}: {name} is {said}; it must be a table: [{name}].")
    return table


def _tables(values: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """Tables of which each has data."""
    tables = values.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        said = found(tables, type(tables).__name__)
        raise UsageError(f"{path}: {name} is {said}; it must be a list of tables: [[{name}]].")
    for number, table in enumerate(tables, start=1):
        if "data" not in table:
            raise UsageError(f"{path}, {name} {number}: it has no data; name the labelled images.")
    return tables


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read --config {path}: {error.strerror}.") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not valid TOML: it is nested too deep.") from error
    except ValueError as error:  # TOMLDecodeError, bytes that are no text, numbers without end
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
