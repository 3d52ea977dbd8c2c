"""Pre-training in several processes: `torchrun` starts them, torch's DistributedDataParallel joins
their gradients. Without torchrun there is one process, and nothing here has an effect.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ckptsel.common.devices import default_device
from ckptsel.training.loop import Means


@dataclass(frozen=True)
class World:
    """This process among all of them.

    rank: from 0, whose process writes the files.
    local_size: processes on this machine.
    """

    device: str
    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """As in `TensorBatches`: which samples of a batch are this process's."""
        return self.rank, self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes."""
        if self.size == 1:
            return model
        device_ids = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return DistributedDataParallel(model, device_ids=device_ids)

    def mean(self, means: Means) -> Means:
        """Means over the samples of all processes."""
        if self.size == 1:
            return means
        n = means.n_samples
        sums = torch.tensor(
            [means.loss * n, means.accuracy * n, n], dtype=torch.float64, device=self.device
        )
        dist.all_reduce(sums)
        loss, correct, total = sums.tolist()
        return Means(loss / total, correct / total, int(total))

    def share_buffers(self, model: nn.Module) -> None:
        """The first process's buffers for all: batch norm's statistics are each process's own."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def open_world(device: str | None = None) -> Iterator[World]:
    """The processes that torchrun started, or the single one; its device is `device`, by default a
    GPU of its own where there is one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = device or default_device()
    if size == 1:
        yield World(device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield World(device, dist.get_rank(), size, int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        dist.destroy_process_group()
