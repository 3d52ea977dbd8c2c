"""What workers are asked for in other processes or on other machines: plain data, which passes there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.workspace import Workspace
from ckptsel.settings.rank import RankSettings

A = TypeVar("A")

Job = tuple[Candidate, ...]
"""Candidates of one checkpoint."""


@dataclass(frozen=True)
class Opening:
    """What a worker opens once, for all that it is asked for.

    checkpoints: usable ones, whose records of the network count. data: as for `rank`.
    settings: with the encoder's name as `model`.
    """

    checkpoints: tuple[Checkpoint, ...]
    data: str
    settings: RankSettings


def opening_of(workspace: Workspace, checkpoints: Sequence[Checkpoint]) -> Opening:
    """For workers to open what is open here."""
    settings = replace(workspace.settings, model=workspace.encoder.name)
    return Opening(tuple(checkpoints), workspace.target.spec, settings)


@dataclass(frozen=True, eq=False)
class Call(Generic[A]):
    """work: what is done with candidates in an open workspace: a function of a module, with plain data
    bound to it. job: they, as they are on the machine that works."""

    work: Callable[[Job, Workspace], A]
    job: Job


@dataclass(frozen=True)
class Lost:
    """In the place of an answer: whoever worked on it is gone. why: words for a message."""

    why: str


class Crew(Protocol):
    """Workers, each with the same target open."""

    def answers(self, calls: Sequence[Call[A]]) -> Iterator[tuple[Call[A], A | Lost]]:
        """Each call with its answer as soon as that is there; Lost where it cost two workers.

        Raises what the work raises.
        """
        ...


def jobs_of(candidates: Sequence[Candidate]) -> list[Job]:
    """The jobs that make up candidates, which lie by checkpoint."""
    by_checkpoint = groupby(candidates, key=lambda candidate: candidate.checkpoint.name)
    return [tuple(group) for _, group in by_checkpoint]
