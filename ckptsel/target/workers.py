"""Worker processes that read images: how they are started, and what is said when one dies."""

import contextlib
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader

from ckptsel.errors import DataError

PRELOADED = ("__main__", "timm.data")
"""What a fork server imports once (the first is its default), so that no worker spends seconds on
it. Nothing of this package: the server may be older than the folder that it is imported from."""

TOLD_BY_TORCH = "DataLoader worker"
"""How torch's errors about a dead worker begin; an error of the reading itself begins otherwise."""


def loader_options(n_workers: int) -> dict[str, Any]:
    """Options of torch's `DataLoader` for that many worker processes; 0 reads in this process."""
    if n_workers == 0:
        return {"num_workers": 0}
    return {"num_workers": n_workers, "multiprocessing_context": worker_context()}


def worker_context() -> BaseContext:
    """How workers are started: as this Python or the program has set it, but never by a fork once a
    GPU is in use, since its context does not survive one, nor beside Ray, whose threads do not."""
    method = multiprocessing.get_start_method()
    ray = sys.modules.get("ray")
    if method == "fork" and (torch.cuda.is_initialized() or (ray and ray.is_initialized())):
        method = "forkserver"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(list(PRELOADED))
    return context


def batches_of(loader: DataLoader[Any], task: str) -> Iterator[Any]:
    """Starts the workers and gives their batches. Raises DataError where they do not start.

    task: what the workers do, for the message.
    """
    try:
        return iter(loader)
    except (ConnectionError, EOFError) as error:
        raise _death(task, f"it did not start ({type(error).__name__})") from error
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"these images cannot be passed to the worker processes that are to {task}: {error}. "
            "Read them in this process, with --workers 0."
        ) from error


@contextlib.contextmanager
def worker_deaths_named(task: str) -> Iterator[None]:
    """Raises DataError where a worker process dies during the block.

    It can come up anywhere in the block: torch raises its error when the system tells of the death.
    task: what the workers do, for the message.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(TOLD_BY_TORCH):
            raise
        # torch raises a short error from one that knows the signal or the exit code.
        cause = str(error.__cause__)
        told = cause if cause.startswith(TOLD_BY_TORCH) else str(error)
        raise _death(task, told.split(". ")[0].strip(" .")) from error


def _death(task: str, reason: str) -> DataError:
    return DataError(
        f"a worker process died while it was to {task}: {reason}. Where memory ran out, use fewer "
        "with --workers; --workers 0 reads in this process and shows any other error. A script "
        "must start its work below `if __name__ == '__main__':`."
    )
