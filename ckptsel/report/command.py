"""The command that makes a ranking again, from what the ranking recorded."""

import dataclasses
import shlex
from typing import Any

from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import RankSettings

OF_THE_MACHINE = (
    "device",
    "workers",
    "batch_size",
    "cache_dir",
    "cache",
    "cache_size",
    "verify",
    "memory",
)
"""Options that say where work runs, and change no number."""


def rank_command(ranking: Ranking) -> str:
    """`ckptsel rank ...` with every option that is not at its default, quoted for a shell."""
    defaults = RankSettings()
    settings = ranking.settings
    words = ["ckptsel", "rank", settings["checkpoints"], "--data", ranking.target["data"]]
    for name in (f.name for f in dataclasses.fields(defaults) if f.name in settings):
        if name in OF_THE_MACHINE:
            continue
        value: Any = settings[name]  # type: ignore[literal-required]
        value = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        if name == "precision":
            by_default = "float32" if settings["device"] == "cpu" else "bfloat16"
        else:
            by_default = getattr(defaults, name)
        if value in (None, by_default):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, str(value)]
    return shlex.join(words)
