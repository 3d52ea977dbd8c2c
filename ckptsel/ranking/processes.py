"""Candidates scored in several processes of this machine, side by side.

Each process opens the target for itself; decoded pixels, features and scores pass through the store.
A process that dies (killed, out of memory) takes down those beside it: what they had not done is tried
again, at last each checkpoint alone, and only what then dies too has failed.
"""

import multiprocessing
import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import groupby

import torch

from ckptsel.features.candidate import Candidate
from ckptsel.ranking.scoring import Outcome, ScoringSpec, score_candidates
from ckptsel.ranking.workspace import Workspace, open_workspace

START = "spawn"
"""Not forked: this process has threads, and may have a GPU open."""

DIED = "the process that scored it died, twice (killed, or out of memory?)"

Job = tuple[Candidate, ...]
"""All candidates of one checkpoint: they share its pass through the network."""


def jobs_of(candidates: Sequence[Candidate]) -> list[Job]:
    """The jobs that make up candidates, which lie by checkpoint."""
    by_checkpoint = groupby(candidates, key=lambda candidate: candidate.checkpoint.name)
    return [tuple(group) for _, group in by_checkpoint]


def score_in_processes(spec: ScoringSpec, devices: Sequence[str]) -> Iterator[Outcome]:
    """The outcome of each candidate as soon as it is there; one process a device, which may be named
    more than once.

    Raises what `score_candidates` raises.
    """
    left = yield from _tried(spec, jobs_of(spec.candidates), devices)
    for job in left:
        dead = yield from _tried(spec, [job], devices[:1])
        for candidate in (candidate for job in dead for candidate in job):
            yield Outcome(candidate.name, problem=DIED)


def _tried(
    spec: ScoringSpec, jobs: Sequence[Job], devices: Sequence[str]
) -> Generator[Outcome, None, list[Job]]:
    """Outcomes of jobs; returns the jobs that were not done when a process died."""
    context = multiprocessing.get_context(START)
    waiting = context.SimpleQueue()
    for device in devices:
        waiting.put(device)
    n_threads = max(1, (os.cpu_count() or 1) // len(devices))
    pool = ProcessPoolExecutor(len(devices), context, _start, (spec, waiting, n_threads))
    done: set[int] = set()
    with pool:
        futures = {pool.submit(_score, job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield from future.result()
                done.add(futures[future])
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(cancel_futures=True)
    return [job for i, job in enumerate(jobs) if i not in done]


_opened: tuple[ScoringSpec, Workspace] | None = None
"""What a process has opened; it serves all of its jobs."""


def _start(spec: ScoringSpec, waiting: "multiprocessing.SimpleQueue[str]", n_threads: int) -> None:
    global _opened
    torch.set_num_threads(n_threads)
    settings = replace(spec.settings, devices=(waiting.get(),), processes=1)
    found = [candidate.checkpoint for candidate in spec.candidates]
    there = [checkpoint for checkpoint in found if checkpoint.path.exists()] or found
    _opened = spec, open_workspace(settings, there, spec.data, quiet=True)


def _score(job: Job) -> list[Outcome]:
    assert _opened is not None
    spec, workspace = _opened
    return list(score_candidates(replace(spec, candidates=job), workspace))
