"""Work on checkpoints in several processes of this machine, side by side.

Each process opens the target for itself; decoded pixels, features, scores and runs pass through the
store. A process that dies (killed, out of memory) takes down those beside it: what they had not done is
tried again, each call alone, and only what then dies too is lost.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch

from ckptsel.ranking.calls import A, Call, Lost, Opening
from ckptsel.ranking.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from typing_extensions import Self

START = "spawn"
"""Not forked: this process has threads, and may have a GPU open."""

DIED = "the process that worked on it died, twice (killed, or out of memory?)"


class Processes:
    """One process a device, which may be named more than once. They start with what is first asked for,
    and end with the block: at once where it ends by an error or an interrupt."""

    def __init__(self, opening: Opening, devices: Sequence[str]) -> None:
        self._opening, self._devices = opening, devices
        # The same for a call that is tried again alone: on other numbers of threads sums differ.
        n_threads = max(1, (os.cpu_count() or 1) // len(devices))
        self._n_threads = min(n_threads, torch.get_num_threads())
        self._open = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def answers(self, calls: Sequence[Call[A]]) -> Iterator[tuple[Call[A], A | Lost]]:
        """As `Crew` has it."""
        if self._pool is None:
            self._pool = self._open.enter_context(self._start(self._devices))
        left = yield from _tried(self._pool, calls)
        if left:
            self._pool = None
        for call in left:
            with self._start(self._devices[:1]) as lone:
                dead = yield from _tried(lone, [call])
            yield from ((each, Lost(DIED)) for each in dead)

    @contextmanager
    def _start(self, devices: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
        context = multiprocessing.get_context(START)
        waiting = context.SimpleQueue()
        for device in devices:
            waiting.put(device)
        told, tell = context.Pipe(duplex=False)
        here = _Here(self._opening, waiting, told, self._n_threads)
        pool = ProcessPoolExecutor(len(devices), context, _begin, (here,))
        try:
            yield pool
        except BaseException:
            tell.send("end")  # a call may take hours
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            told.close()
            tell.close()


def _tried(
    pool: ProcessPoolExecutor, calls: Sequence[Call[A]]
) -> Generator[tuple[Call[A], A], None, list[Call[A]]]:
    """Answers; returns the calls that were not done when a process, and with it the pool, died."""
    done: set[int] = set()
    futures = {pool.submit(_answer, call): i for i, call in enumerate(calls)}
    try:
        for future in as_completed(futures):
            answer = future.result()
            done.add(futures[future])
            yield calls[futures[future]], answer
    except BrokenProcessPool:
        pass
    return [call for i, call in enumerate(calls) if i not in done]


@dataclass(frozen=True)
class _Here:
    """What a process begins with. waiting: devices that no process has taken. told: has something to
    read, or an end, when the process is to end."""

    opening: Opening
    waiting: "multiprocessing.SimpleQueue[str]"
    told: "Connection[Any, Any]"
    n_threads: int


_opened: Workspace | None = None
"""What a process has opened; it serves all calls that it gets."""


def _begin(here: _Here) -> None:
    global _opened
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal asks all, and the first tells the others
    threading.Thread(target=_end_when_told, args=(here.told,), daemon=True).start()
    torch.set_num_threads(here.n_threads)
    settings = replace(here.opening.settings, device=here.waiting.get(), devices=None, processes=1)
    found = here.opening.checkpoints
    there = [checkpoint for checkpoint in found if checkpoint.path.exists()] or found
    _opened = open_workspace(settings, there, here.opening.data, quiet=True)


def _end_when_told(told: "Connection[Any, Any]") -> None:
    """Also where the process that began this one is gone, whatever this one is at."""
    wait([told])
    os._exit(1)


def _answer(call: Call[A]) -> A:
    assert _opened is not None
    return call.work(call.job, _opened)
