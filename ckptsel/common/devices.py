"""Where networks run: the device, the number format, and what to do when memory runs out."""

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import Tensor

PRECISIONS = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The type that `torch.autocast` computes in, by name; None for no autocast."""

SMALL_PROBLEM = 5_000_000
"""Values of a feature matrix below which linear models are fitted on one thread."""


def default_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def why_missing(device: str) -> str | None:
    """Why this machine does not have a device, and what it has; None where it has it."""
    if device == "mps":
        missing = not torch.backends.mps.is_available()
        return "torch finds no Apple GPU here: give cpu." if missing else None
    if not device.startswith("cuda"):
        return None
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n_devices == 0:
        return "torch finds no CUDA device here: give cpu."
    if int(device.partition(":")[2] or 0) >= n_devices:
        return f"the last that torch finds here is cuda:{n_devices - 1}."
    return None


def default_precision(device: str) -> str:
    """float32 on a CPU, bfloat16 on a GPU."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def exact_dtype(device: torch.device) -> torch.dtype:
    """What sums are kept in: float64, or float32 on a device that has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. A GPU gets it in its turn: nothing waits until it has done what it was told
    before."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a smaller batch might have worked; frees what can be freed."""
    message = re.search("out of memory|not enough memory", str(error))
    found = isinstance(error, torch.cuda.OutOfMemoryError) or message is not None
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


@contextlib.contextmanager
def few_threads(n_values: float) -> Iterator[None]:
    """One thread for small problems: waking the others for each of many small products costs
    several times what they save."""
    n_threads = torch.get_num_threads()
    if n_values < SMALL_PROBLEM:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
