"""The errors that a user can meet, each with the exit code of the command line.

    CkptselError (1)
    ├── UsageError (2)        an option that is not known or does not fit
    ├── InputError (3)        nothing can be ranked, or data cannot be read
    │   ├── NothingToRank     every checkpoint has a problem
    │   ├── CheckpointError   one checkpoint cannot be used
    │   ├── ModelError        the architecture cannot be built
    │   ├── DataError         the labelled images cannot be used
    │   ├── FeatureError      features cannot be scored
    │   └── OutputError       a result cannot be written
    ├── GateFailed (4)        the gate says no
    └── GateUndecided (5)     the gate cannot tell

A message says what is wrong, where, what was found, and what to do.
"""

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED = 10
"""Names that a message lists before it counts the rest."""


class CkptselError(Exception):
    """Base of all errors that ckptsel raises on purpose.

    lines: the message, a line each; names in it are as they are. A line break inside a line is part of a
    name, and is shown as such (`ckptsel.common.outlets`).
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join(self.lines)


class UsageError(CkptselError):
    """An option is not known or does not fit the others."""

    exit_code = 2


class InputError(CkptselError):
    """What was given cannot be ranked."""

    exit_code = 3


class NothingToRank(InputError):
    """There are checkpoints, and none of them can be used."""


class CheckpointError(InputError):
    """A checkpoint cannot be read, or does not fit the model."""


class ModelError(InputError):
    """The architecture is not known or cannot be built."""


class DataError(InputError):
    """The labelled images cannot be found, read or split."""


class FeatureError(InputError):
    """Features cannot be scored (not finite, constant, or of the wrong shape)."""


class OutputError(InputError):
    """A result cannot be written where it was asked for."""


class GateFailed(CkptselError):
    """The policy of the gate is not met."""

    exit_code = 4


class GateUndecided(CkptselError):
    """There is not enough evidence to pass or fail the gate."""

    exit_code = 5


def reason_of(error: Exception) -> str:
    """Why one checkpoint cannot be used: the message of an error of this package; of any other its
    type besides, since nobody wrote that message for this place."""
    if isinstance(error, CkptselError):
        return str(error)
    first_line = str(error).strip().split("\n")[0][:160]
    return (
        f"unexpected {type(error).__name__}: {first_line}"
        if first_line
        else (f"unexpected {type(error).__name__}")
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Near names for a message: ' Did you mean a, b?', or '' where none is near."""
    # Of two letters nothing is near: fine would be fe, and means ft.
    longer = [each for each in known if len(each) > 2]
    near = difflib.get_close_matches(name, longer, n=4, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def listed(names: Sequence[str], most: int = MAX_LISTED) -> str:
    """Names for a message, the first `most` of them: 'a, b and 3 more'."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def subject(names: Sequence[str], most: int = 3) -> str:
    """Who a sentence is about: a name, or '14 files (first, second, third and 11 more)'."""
    return names[0] if len(names) == 1 else f"{len(names)} files ({listed(names, most)})"


def listed_below(lines: Sequence[str], most: int = MAX_LISTED) -> list[str]:
    """The same with a line of the message for each: '  a', '  b', '  ... and 3 more'."""
    more = len(lines) - most
    shown = [*lines[:most], *([f"... and {more} more"] if more > 0 else [])]
    return [f"  {line}" for line in shown]
