"""How prepared samples get to the device that reads them, all of them once or a batch at a time, and how
what it gives comes back. A GPU waits for neither.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.common.devices import is_out_of_memory

Samples = NDArray[Any] | Tensor
"""(N, *shape): an array of the host, which may be mapped from a file, or a tensor on the device."""

ON_DEVICE_BYTES = 4 * 2**30
"""Samples up to this size are moved to a GPU as a whole; larger sets go there batch by batch."""

MOST_OF_FREE = 1 / 4
"""They take no more of the memory that is free there: the network needs some too."""


def place(parts: Sequence[NDArray[Any]], device: str) -> list[Samples]:
    """Samples where all passes over them find them: on a GPU where they fit, else as they are."""
    size = sum(part.nbytes for part in parts)
    if not device.startswith("cuda") or size > _room(device):
        return list(parts)
    try:
        return [_on_host(part).to(device) for part in parts]
    except RuntimeError as error:
        if not is_out_of_memory(error):  # another program may have been faster
            raise
        return list(parts)


def _room(device: str) -> float:
    free, _ = torch.cuda.mem_get_info(device)
    return min(ON_DEVICE_BYTES, MOST_OF_FREE * free)


def is_read_ahead(samples: Samples, device: str) -> bool:
    """Whether batches are copied to a GPU, which need not wait for them."""
    return device.startswith("cuda") and not isinstance(samples, Tensor)


Arrival = Callable[[], Tensor]
"""Gives a batch that was sent to the device, once it may be computed with."""


class Feed:
    """Batches of samples on a device. A GPU gets the next one while it computes with this one."""

    def __init__(self, samples: Samples, device: str) -> None:
        self._samples, self._device = samples, device
        self._is_ahead = is_read_ahead(samples, device)
        self._next: tuple[tuple[int, int], Future[Arrival]] | None = None

    def __enter__(self) -> "Feed":
        self._pool = ThreadPoolExecutor(1) if self._is_ahead else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def batch(self, start: int, size: int) -> Tensor:
        """The samples from `start` on, at most `size`."""
        if isinstance(self._samples, Tensor):
            return self._samples[start : start + size]
        if self._pool is None:
            return _on_host(self._samples[start : start + size]).to(self._device)
        wanted, foreseen = (start, size), self._next
        if foreseen is not None and foreseen[0] == wanted:
            arrival = foreseen[1].result()
        else:
            arrival = self._sent(*wanted)
        after = (start + size, size)
        if after[0] < len(self._samples):
            self._next = after, self._pool.submit(self._sent, *after)
        return arrival()

    def _sent(self, start: int, size: int) -> Arrival:
        """Through pinned memory, and beside what the device computes."""
        part = np.asarray(self._samples[start : start + size])
        like = torch.from_numpy(part[:0].copy())
        pinned = torch.empty(part.shape, dtype=like.dtype, pin_memory=True)
        np.copyto(pinned.numpy(), part)
        with torch.cuda.stream(self._stream):
            batch = pinned.to(self._device, non_blocking=True)
            sent = self._stream.record_event()

        def arrival() -> Tensor:
            computing = torch.cuda.current_stream(torch.device(self._device))
            computing.wait_event(sent)
            batch.record_stream(computing)
            return batch

        return arrival

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(torch.device(self._device))


def begin_to_fetch(found: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Tensors on their way to the host, behind what is computed so far and beside what comes after;
    returns what waits for them."""
    device = next(iter(found.values())).device
    if device.type != "cuda":
        return lambda: {name: part.cpu() for name, part in found.items()}
    there = {
        name: torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(
            part, non_blocking=True
        )
        for name, part in found.items()
    }
    fetched = torch.cuda.current_stream(device).record_event()

    def wait() -> dict[str, Tensor]:
        fetched.synchronize()
        return there

    return wait


def _on_host(samples: NDArray[Any]) -> Tensor:
    # A copy: samples may be a read-only map of a file.
    return torch.from_numpy(np.array(samples))
