"""Checkpoints that cannot be used: they are named with the reason, and end a run only where none is left
or `--strict` is given."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from ckptsel.errors import InputError, NothingToRank, subject


class Usable(Protocol):
    """A checkpoint or a candidate, which may have a problem."""

    @property
    def name(self) -> str: ...

    @property
    def problem(self) -> str | None: ...

    @property
    def copy_of(self) -> str | None: ...

    def failed(self, problem: str) -> Any: ...


U = TypeVar("U", bound=Usable)


def fail_copies(items: Sequence[U], strict: bool) -> list[U]:
    """A copy of what cannot be used cannot be used either.

    Raises InputError where none is left, or any failed and `strict`.
    """
    problems = {c.name: c.problem for c in items}
    marked = [c.failed(problem) if (problem := problems.get(c.copy_of or "")) else c for c in items]
    failed = [c for c in marked if c.problem is not None]
    if len(failed) == len(marked):
        raise nothing_to_rank(marked)
    if failed and strict:
        raise InputError(
            f"{len(failed)} of {len(marked)} checkpoints cannot be used, and --strict asks for "
            "all of them:",
            *_problems(failed),
        )
    return marked


def nothing_to_rank(checkpoints: Sequence[Usable]) -> NothingToRank:
    """The error that says why none of them can be used."""
    return NothingToRank(
        f"none of the {len(checkpoints)} checkpoints can be used, so there is nothing to rank:",
        *_problems([c for c in checkpoints if c.problem]),
    )


def _problems(failed: Sequence[Usable]) -> list[str]:
    """A line for each problem, with whom it concerns."""
    names: dict[str, list[str]] = {}
    for each in failed:
        if not each.copy_of:
            names.setdefault(str(each.problem), []).append(each.name)
    return [f"  {subject(those)}: {problem}" for problem, those in names.items()]
