"""Reading files of `torch.save` without running what they hold.

A pickle can call any function. torch's restricted reader (`weights_only=True`) calls only those of
an allow-list; this module adds the harmless types that training scripts are known to store, and
says by name what else a file asked for. There is no switch to trust a file.
"""

import argparse
import datetime
import pathlib
import pickle
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckptsel.errors import CheckpointError


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU and mapped from disk where the format allows.

    Raises CheckpointError where the file is empty, cut off, no torch file, or holds other types
    than tensors, plain Python values and the allowed ones.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"cannot open the file: {error}") from error
    if not start:
        raise CheckpointError("the file is empty: was the disk full when it was saved?")
    is_zip = start == b"PK\x03\x04"
    try:
        with _allowing(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, error, is_zip)) from error
    except Exception as error:  # a damaged pickle can end in an error of any type
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        raise CheckpointError(
            f"not a whole file of torch.save ({reason}). It may be cut off or of another kind; "
            "copy it again from its source."
        ) from error


def _refusal(path: Path, error: Exception, is_zip: bool) -> str:
    found = _unsafe_globals(path) if is_zip else []
    found = found or re.findall(r"GLOBAL (\S+)", str(error))
    if not found:
        return (
            "not a file of torch.save: the restricted reader cannot make sense of it. "
            "It may be of another kind, damaged, or saved with pickle_protocol=4 or above."
        )
    return (
        f"refused: it holds {', '.join(found)}, which would have to be run to be read. Nothing was "
        "run. Where you trust the file, load it yourself and save its tensors alone: "
        "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
    )


def _unsafe_globals(path: Path) -> list[str]:
    with _allowing():
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # as above; the names only make the message better
            return []


def _allowing() -> AbstractContextManager[Any]:
    """The allow-list in force; leaving it keeps what the caller's program had allowed before."""
    before = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([item for item in ALLOWED if item not in before])


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Types that hold data and run nothing: argparse's Namespace, paths, numpy, dates."""
    allowed: list[Any] = [argparse.Namespace, (_plain_dict, "collections.defaultdict")]
    # What a defaultdict may name as its factory.
    allowed += [dict, list, set, int, float]
    allowed += [datetime.datetime, datetime.date, datetime.time, datetime.timedelta]
    allowed += [datetime.timezone]
    for module in ("pathlib", "pathlib._local"):
        # Pure paths: a path of the other operating system cannot be made here, and none is opened.
        allowed += [
            (pathlib.PurePosixPath, f"{module}.PosixPath"),
            (pathlib.PurePosixPath, f"{module}.PurePosixPath"),
            (pathlib.PureWindowsPath, f"{module}.WindowsPath"),
            (pathlib.PureWindowsPath, f"{module}.PureWindowsPath"),
        ]
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.zeros(1).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(scalar, f"{module}.scalar"), (reconstruct, f"{module}._reconstruct")]
    allowed += [np.ndarray, np.dtype]
    allowed += [type(np.dtype(code)) for code in "?bBhHiIlLqQefdSUO"]
    return allowed


def _plain_dict(*_factory: object) -> dict[Any, Any]:
    """Stands in for defaultdict: torch's reader fills plain dicts only."""
    return {}


ALLOWED = _allowed()
