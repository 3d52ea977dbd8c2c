"""Several targets of one run: `--data` more than once, or tables `[[target]]` of a file."""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated

from ckptsel.settings.kinds import FolderName, Text
from ckptsel.settings.option import Declared, Given, Option, OptionError, Options, declared
from ckptsel.settings.rank import RankInputs, RankSettings

OWN = (
    *("image_column", "label_column", "train_split", "eval_split", "holdout"),
    *("max_train_samples", "max_eval_samples"),
)
"""Options of `ckptsel rank` that each target may have of its own."""

TAKEN = ("report.html", "targets.json")
"""What lies beside the folders of the targets."""

FILES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".tar", ".zip", ".npz")
"""Endings that a folder's name goes without."""

LONGEST = 80
"""Characters of a folder's name that is made."""


@dataclass(frozen=True)
class TargetTable(Options):
    """What a table `[[target]]` says besides the options in OWN."""

    data: Annotated[Text, Option("Its labelled images, as for --data.")]
    name: Annotated[
        FolderName | None,
        Option("Its name, and that of its folder.", default="made from the name of the data"),
    ] = None


@dataclass(frozen=True)
class WantedTarget:
    """A target that is ranked for. name: that of its folder. given: what its settings come from."""

    name: str
    data: str
    settings: RankSettings
    given: Given


def table_options() -> dict[str, Declared]:
    """What a table `[[target]]` may hold."""
    return declared(TargetTable) | {name: declared(RankSettings)[name] for name in OWN}


def wanted_targets(given: Given, stored: Given, tables: Sequence[Given]) -> list[WantedTarget]:
    """The targets that are asked for; none where no data are given.

    given: the command line's options. stored: those of a configuration file. tables: what the file says
    of each target, which comes before what it says of all, and after the command line.
    Raises OptionError for two targets of one name.
    """
    over_all = given.over(stored)
    datas = over_all.make(RankInputs).data
    if datas is not None:
        if twice := [data for data in datas if datas.count(data) > 1]:
            raise OptionError(f"{{0}} {twice[0]} is given twice.", "data").written_as(given.written)
        own = [Given({"data": data}) for data in datas]
        options = [over_all] * len(datas)
    else:
        own = list(tables)
        options = [given.over(table).over(stored) for table in tables]
    asked = [table.make(TargetTable) for table in own]
    names = folder_names([each.data for each in asked], [each.name for each in asked])
    return [
        WantedTarget(name, each.data, option.make(RankSettings), option)
        for name, each, option in zip(names, asked, options, strict=True)
    ]


def check_for_several(given: Given, names: Sequence[str]) -> None:
    """Raises OptionError for an option that is for one ranking, where there are several targets."""
    instead = {
        "confirm": f"rank, then run `ckptsel confirm OUT/{names[0]}`",
        "gate": f"rank, then run `ckptsel gate OUT/{names[0]}`",
        "log_to": f"rank, then run `ckptsel log OUT/{names[0]} --to ...`",
        "shard": "score the parts of one target after the other",
        "budget": "search for one target after the other",
    }
    for option, how in instead.items():
        if given.values.get(option):
            text = f"{{0}} is for one target, and {len(names)} are given: {how}."
            raise OptionError(text, option).written_as(given.written)


def folder_names(datas: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """A folder's name for each target: the one that was given, else the last part of its data's, with
    the parts before it where others have the same, with a number where that does not help.

    Raises OptionError where two were given the same, or one that is taken.
    """
    fixed = [name.casefold() for name in given if name is not None]
    if twice := [name for name in given if name is not None and fixed.count(name.casefold()) > 1]:
        raise OptionError(f"two targets have the {{0}} {twice[0]}: give each its own.", "name")
    if taken := [name for name in fixed if name in TAKEN]:
        raise OptionError(f"{{0}} {taken[0]} is taken by a file: give another.", "name")
    used = {*fixed, *TAKEN}
    names = []
    for data, name in zip(datas, given, strict=True):
        if name is None:
            name = _numbered(_told_apart(data, datas), used)
            used.add(name.casefold())
        names.append(name)
    return names


def _told_apart(data: str, datas: Sequence[str]) -> str:
    """The least of the last parts of a name that no other has."""
    depth = 1
    while (
        depth < len(_parts(data)) and sum(_tail(d, depth) == _tail(data, depth) for d in datas) > 1
    ):
        depth += 1
    same = sum(_tail(d, depth) == _tail(data, depth) for d in datas) > 1
    return _tail(data, 1 if same else depth)


def _parts(data: str) -> list[str]:
    """Of a path or a dataset's name, as they may stand in a folder's name."""
    path = PurePath(data)
    name = path.stem if path.suffix.lower() in FILES else path.name
    clean = [re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in (*path.parts[:-1], name)]
    return [part for part in clean if part] or ["target"]


def _tail(data: str, depth: int) -> str:
    return "-".join(_parts(data)[-depth:])[-LONGEST:].lstrip("-.")


def _numbered(name: str, used: Collection[str]) -> str:
    numbered = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(each for each in numbered if each.casefold() not in used)
