"""The options of `ckptsel gate`: the policy, and what is written of the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ckptsel.settings.kinds import ConfigOption, FormatOption, Fraction, RunArgument, Text
from ckptsel.settings.option import Option, OptionError, Options, make

ALLOWED_BEHIND = 0.01
"""One point: differences below it are seldom worth another checkpoint."""


@dataclass(frozen=True)
class GateInput(Options):
    """The ranking that is held against the policy."""

    run: RunArgument


@dataclass(frozen=True)
class Policy(Options):
    """What `ckptsel gate` holds a ranking against; accuracies and differences are fractions.

    current: the checkpoint in use, which may be behind the best by `max_regret`.
    min_accuracy: what the best must reach.
    baseline: a stored `ranking.json` (or its folder), whose best may be ahead by `tolerance`.
    strict: no checkpoint may have failed to load.
    """

    current: Annotated[Text | None, Option("The checkpoint in use, by its name or path.")] = None
    max_regret: Annotated[
        Fraction | None,
        Option("How far it may be behind the best, a fraction.", default=str(ALLOWED_BEHIND)),
    ] = None
    min_accuracy: Annotated[Fraction | None, Option("What the best must reach, a fraction.")] = None
    baseline: Annotated[Text | None, Option("A stored ranking.json, or its folder.")] = None
    tolerance: Annotated[
        Fraction | None,
        Option(
            "How far the best may be behind the baseline's.",
            default=str(ALLOWED_BEHIND),
        ),
    ] = None
    strict: Annotated[bool, Option("No checkpoint may have failed.", ("--strict/--no-strict",))] = (
        False
    )

    def check_together(self) -> None:
        for name, of in (("max_regret", "current"), ("tolerance", "baseline")):
            if getattr(self, name) is not None and getattr(self, of) is None:
                raise OptionError("{0} is given without {1}, which it is about.", name, of)
        has_policy = self.current or self.baseline or self.strict or self.min_accuracy is not None
        if not has_policy:
            raise OptionError(
                "the gate has no policy: give one or more of current, min-accuracy, baseline and "
                "strict, as options of `ckptsel gate` or below [gate] of the configuration file."
            )

    @property
    def regret_limit(self) -> float:
        return ALLOWED_BEHIND if self.max_regret is None else self.max_regret

    @property
    def baseline_limit(self) -> float:
        return ALLOWED_BEHIND if self.tolerance is None else self.tolerance


@dataclass(frozen=True)
class GateFiles(Options):
    """What is written of a verdict; a configuration file may name it beside the policy."""

    junit: Annotated[Path | None, Option("Write JUnit XML to this file.")] = None


@dataclass(frozen=True)
class GateCall(Options):
    """What holds for one call of `ckptsel gate`."""

    format: FormatOption = "table"
    config: ConfigOption = None


def make_policy(options: Mapping[str, Any]) -> Policy:
    """A policy from its parts by name, as `ckptsel.settings.rank.make_settings`."""
    return make(Policy, options)
