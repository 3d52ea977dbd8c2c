"""The options of a ranking, each with its one default, and the TOML files that can hold them."""

import dataclasses
import sys
from collections.abc import Sequence
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
CONFIRM_CHOICES = {
    "goal": ("fe", "ft", "both"),
    "schedule": ("cosine", "step"),
    "precision": CHOICES["precision"],
}
AUGMENTATION_NAMES = ("flip", "crop", "resized_crop", "none")
"""As in `ckptsel.training.loop`, which takes torch to import."""


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise UsageError(
            f"{name} is {value!r}; it must be one of {', '.join(choices)}."
            + did_you_mean(str(value), choices)
        )


def _check_at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name} is {value}; it must be at least 1.")


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
            _check_choice(name, getattr(self, name), choices)
        for name, low, high in (("energy", 0.0, 1.0), ("holdout", 0.0, 1.0)):
            value = getattr(self, name)
            if value is not None and not low < value < high:
                raise UsageError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")
        for name in ("max_train_samples", "max_eval_samples", "batch_size", "image_size"):
            _check_at_least_one(name, getattr(self, name))
        if self.n_resamples < 100:
            raise UsageError(f"n_resamples is {self.n_resamples}; it must be at least 100.")


@dataclass(frozen=True)
class ConfirmSettings:
    """Everything that `ckptsel confirm` can be told besides the ranking.

    n_candidates: the best so many; None takes the tie set, at least five, and the last checkpoint
    (see `ckptsel.confirmation.confirm.choose_candidates`).
    goal: fe, ft or both; None takes the ranking's. lr: learning rates to choose from (one of them
    is simply taken). model: a network of one's own, which a ranking may only name. checkpoints, data:
    where they lie now, if they were moved.

    What None stands for depends on the data, the preset or the machine; `confirm.json` records what
    was chosen.
    """

    n_candidates: int | None = None
    goal: str | None = None
    n_seeds: int = 3
    preset: str | None = None
    steps: int | None = None
    epochs: float | None = None
    lr: tuple[float, ...] | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    augment: tuple[str, ...] | None = None
    ema: float | None = None
    full: bool = False
    tolerance: float = 0.01
    tensorboard: bool = False
    model: str | None = None
    checkpoints: str | None = None
    data: str | None = None
    data_root: str | None = None
    device: str | None = None
    precision: str | None = None
    workers: int | None = None
    cache_dir: str | None = None
    cache: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CONFIRM_CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in self.augment or ():
            _check_choice("augment", name, AUGMENTATION_NAMES)
        for name in ("n_candidates", "n_seeds", "steps", "batch_size"):
            _check_at_least_one(name, getattr(self, name))
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs are both given; they say the same thing: give one.")
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"tolerance is {self.tolerance}; it must lie between 0 and 1.")
        if self.epochs is not None and not self.epochs > 0:
            raise UsageError(f"epochs is {self.epochs}; it must be above 0.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema is {self.ema}; it must lie between 0 and 1.")
        if self.lr is not None and (not self.lr or min(self.lr) <= 0):
            raise UsageError(f"lr is {self.lr}; it must be one or more numbers above 0.")


@dataclass(frozen=True)
class Policy:
    """What `ckptsel gate` holds a ranking against; accuracies and differences are fractions.

    current: the checkpoint in use, which may be behind the best by `max_regret`. min_accuracy: what
    the best must reach. baseline: a stored `ranking.json` (or its folder), whose best may be ahead by
    `tolerance`. strict: no checkpoint may have failed to load.
    """

    current: str | None = None
    max_regret: float | None = None
    min_accuracy: float | None = None
    baseline: str | None = None
    tolerance: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("max_regret", "min_accuracy", "tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(
                    f"{name} is {value}; it is a fraction between 0 and 1 (0.85 for 85 %)."
                )
        for name, of in (("max_regret", "current"), ("tolerance", "baseline")):
            if getattr(self, name) is not None and getattr(self, of) is None:
                raise UsageError(f"{name} is given without {of}, which it is about.")
        has_policy = self.current or self.baseline or self.strict or self.min_accuracy is not None
        if not has_policy:
            raise UsageError(
                "the gate has no policy: give one or more of current, min-accuracy, baseline and "
                "strict, as options of `ckptsel gate` or below [gate] of the configuration file."
            )

    @property
    def regret_limit(self) -> float:
        return ALLOWED_BEHIND if self.max_regret is None else self.max_regret

    @property
    def baseline_limit(self) -> float:
        return ALLOWED_BEHIND if self.tolerance is None else self.tolerance


ALLOWED_BEHIND = 0.01
"""One point: differences below it are seldom worth another checkpoint."""

OPTION_NAMES = tuple(f.name for f in dataclasses.fields(RankSettings))

FILE_ONLY_NAMES = ("checkpoints", "data", "out", "format", "gate")
"""Options of the command itself, which a configuration file may hold as well."""

CONFIG_NAME = "ckptsel.toml"


def make_settings(options: dict[str, Any]) -> RankSettings:
    """Settings of a ranking from options by name, those that are None left at their defaults.

    Raises UsageError for a name that is not known or a value that does not fit.
    """
    return RankSettings(**_known_options(options, RankSettings))


def make_confirm_settings(options: dict[str, Any]) -> ConfirmSettings:
    """Settings of `confirm`, as `make_settings`."""
    return ConfirmSettings(**_known_options(options, ConfirmSettings))


def make_policy(options: dict[str, Any]) -> Policy:
    """A policy from its parts by name, as `make_settings`."""
    return Policy(**_known_options(options, Policy))


def _known_options(options: dict[str, Any], cls: Any) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(cls)]
    for name in options:
        if name not in names:
            raise UsageError(f"unknown option {name!r}." + did_you_mean(name, names))
    given = {name: value for name, value in options.items() if value is not None}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def find_config(folder: Path) -> Path | None:
    """The configuration file of a folder: `ckptsel.toml`, else a `pyproject.toml` that has a table
    `[tool.ckptsel]`, else none."""
    own, project = folder / CONFIG_NAME, folder / "pyproject.toml"
    if own.is_file():
        return own
    if project.is_file() and "ckptsel" in _read_toml(project).get("tool", {}):
        return project
    return None


def read_config(path: Path) -> dict[str, Any]:
    """Options of a TOML file: its top level, or `[tool.ckptsel]` of a pyproject.toml. The policy lies
    below `gate`.

    Names may be written with dashes or underscores. Raises UsageError naming what is wrong.
    """
    values = _read_toml(path)
    if path.name == "pyproject.toml":
        values = values.get("tool", {}).get("ckptsel", {})
    options = _named(values, (*OPTION_NAMES, *FILE_ONLY_NAMES), f"{path}: ")
    if "gate" in options:
        if not isinstance(options["gate"], dict):
            raise UsageError(f"{path}: gate is {options['gate']!r}; it must be a table: [gate].")
        names = (*(f.name for f in dataclasses.fields(Policy)), "junit")
        options["gate"] = _named(options["gate"], names, f"{path}, below gate: ")
    return options


def _named(values: dict[str, Any], known: Sequence[str], where: str) -> dict[str, Any]:
    options = {name.replace("-", "_"): value for name, value in values.items()}
    for name in options:
        if name not in known:
            raise UsageError(f"{where}unknown option {name!r}." + did_you_mean(name, known))
    return options


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read --config {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
