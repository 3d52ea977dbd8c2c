"""Candidates scored in several processes of this machine, side by side.

Each process opens the target for itself; decoded pixels, features and scores pass through the store.
A process that dies (killed, out of memory) takes down those beside it: what they had not done is tried
again, at last each checkpoint alone, and only what then dies too has failed.
"""

import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
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


def score_in_processes(
    spec: ScoringSpec, devices: Sequence[str], turns: Iterable[Sequence[Candidate]]
) -> Iterator[Outcome]:
    """The outcome of each candidate as soon as it is there; one process a device, which may be named
    more than once.

    turns: what of the spec is scored; the next is asked for when all outcomes of the last were taken.
    Raises what `score_candidates` raises.
    """
    with ExitStack() as stack:
        pool: ProcessPoolExecutor | None = None
        for turn in turns:
            pool = pool or stack.enter_context(_open_pool(spec, devices))
            left = yield from _tried(pool, jobs_of(turn))
            if left:
                pool = None
            for job in left:
                with _open_pool(spec, devices[:1]) as lone:
                    dead = yield from _tried(lone, [job])
                for candidate in (candidate for job in dead for candidate in job):
                    yield Outcome(candidate.name, problem=DIED)


@contextmanager
def _open_pool(spec: ScoringSpec, devices: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context(START)
    waiting = context.SimpleQueue()
    for device in devices:
        waiting.put(device)
    n_threads = max(1, (os.cpu_count() or 1) // len(devices))
    pool = ProcessPoolExecutor(len(devices), context, _start, (spec, waiting, n_threads))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _tried(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Generator[Outcome, None, list[Job]]:
    """Outcomes of jobs; returns those that were not done when a process, and with it the pool, died."""
    done: set[int] = set()
    futures = {pool.submit(_score, job): i for i, job in enumerate(jobs)}
    try:
        for future in as_completed(futures):
            yield from future.result()
            done.add(futures[future])
    except BrokenProcessPool:
        pass
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
