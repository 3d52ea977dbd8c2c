"""The options of a ranking, each with its one default, and the TOML files that can hold them."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptsel.errors import UsageError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHOICES = {
    "goal": ("fe", "ft"),
    "probe": ("logistic", "paper"),
    "precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class RankSettings:
    """Everything that `ckptsel rank` can be told besides the checkpoints and the data.

    None stands for a choice that depends on the data, the checkpoints or the machine; the ranking
    records what was chosen.
    """

    goal: str = "fe"
    model: str | None = None
    weights: str = "auto"
    pool: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data_root: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    holdout: float | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    scores: tuple[str, ...] | None = None
    probe: str = "logistic"
    energy: float = 0.8
    n_resamples: int = 2000
    seed: int = 0
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    cache_dir: str | None = None
    cache: bool = True
    strict: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(
                    f"{name} is {value!r}; it must be one of {', '.join(choices)}."
                    + did_you_mean(str(value), choices)
                )
        for name, low, high in (("energy", 0.0, 1.0), ("holdout", 0.0, 1.0)):
            value = getattr(self, name)
            if value is not None and not low < value < high:
                raise UsageError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")
        for name in ("max_train_samples", "max_eval_samples", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1.")
        if self.n_resamples < 100:
            raise UsageError(f"n_resamples is {self.n_resamples}; it must be at least 100.")


OPTION_NAMES = tuple(f.name for f in dataclasses.fields(RankSettings))

FILE_ONLY_NAMES = ("checkpoints", "data", "out", "format")
"""Options of the command itself, which a configuration file may hold as well."""


def make_settings(options: dict[str, Any]) -> RankSettings:
    """Settings from options by name, those that are None left at their defaults.

    Raises UsageError for a name that is not known or a value that does not fit.
    """
    for name in options:
        if name not in OPTION_NAMES:
            raise UsageError(f"unknown option {name!r}." + did_you_mean(name, OPTION_NAMES))
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("mean", "std", "scores"):
        if isinstance(given.get(name), list):
            given[name] = tuple(given[name])
    return RankSettings(**given)


def read_config(path: Path) -> dict[str, Any]:
    """Options of a TOML file: its top level, or `[tool.ckptsel]` of a pyproject.toml.

    Names may be written with dashes or underscores. Raises UsageError naming what is wrong.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read --config {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    if path.name == "pyproject.toml":
        values = values.get("tool", {}).get("ckptsel", {})
    options = {name.replace("-", "_"): value for name, value in values.items()}
    known = (*OPTION_NAMES, *FILE_ONLY_NAMES)
    for name in options:
        if name not in known:
            raise UsageError(f"{path}: unknown option {name!r}." + did_you_mean(name, known))
    return options
