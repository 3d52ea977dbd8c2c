"""Where networks run: the device, the number format, and what to do when memory runs out."""

import re

import torch

PRECISIONS = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The type that `torch.autocast` computes in, by name; None for no autocast."""


def default_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_precision(device: str) -> str:
    """float32 on a CPU, bfloat16 on a GPU."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a smaller batch might have worked; frees what can be freed."""
    message = re.search("out of memory|not enough memory", str(error))
    found = isinstance(error, torch.cuda.OutOfMemoryError) or message is not None
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found
