"""Code of the user's: imported and called, and what goes wrong in it said with the line of theirs."""

import importlib
import inspect
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckptsel.common.devices import is_out_of_memory
from ckptsel.errors import CkptselError, ModelError, did_you_mean
from ckptsel.features.matching import shape_text

OWN_FOLDER = str(Path(__file__).resolve().parent.parent) + os.sep

LIBRARIES = (
    OWN_FOLDER,
    str(Path(torch.__file__).resolve().parent.parent) + os.sep,
    *(os.path.realpath(sysconfig.get_paths()[k]) + os.sep for k in ("stdlib", "purelib")),
)
"""Where code lies that the user did not write."""


@contextmanager
def own_code(name: str, step: str, fed: Tensor | None = None) -> Iterator[None]:
    """What is raised inside becomes a ModelError that names the last line of the user's own code.

    step: what was being done, in words. fed: what the code was given. Errors of this package, and a
    lack of memory, pass as they are.
    """
    try:
        yield
    except CkptselError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises
        if is_out_of_memory(error):
            raise
        message = " ".join(str(error).split())[:500]
        given = (
            "" if fed is None else f" It was given images of shape {shape_text(fed)}, {fed.dtype}."
        )
        raise ModelError(
            f"{name} failed while it was {step}: {type(error).__name__}: {message}"
            f"{_place(error)}.{given}"
        ) from error


def import_factory(name: str) -> Callable[[], Any]:
    """The function that `package.module:function` names. Raises ModelError."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name or ":" in function_name:
        raise ModelError(
            f"{name!r} names no function: write package.module:function, or a name of timm or "
            "torchvision."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()  # a file of this very second is not known yet
    try:
        with own_code(name, "imported"):
            module = importlib.import_module(module_name)
    except ModelError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and _is_part(
            error.__cause__.name, module_name
        ):
            raise ModelError(
                f"cannot import {module_name!r} for model {name}: {error.__cause__}. It must be "
                "installed or lie below the current folder."
            ) from error
        raise
    factory = getattr(module, function_name, None)
    if factory is None:
        raise ModelError(
            f"module {module_name} has no function {function_name!r}."
            + did_you_mean(function_name, dir(module))
        )
    return factory


def call_factory(name: str) -> nn.Module:
    """The module that the user's function gives. Raises ModelError."""
    factory = import_factory(name)
    if isinstance(factory, nn.Module):
        raise ModelError(
            f"{name} is a network, not a function that makes one. Name a function that takes nothing "
            "and returns it."
        )
    missing = _missing_arguments(factory)
    if missing:
        raise ModelError(
            f"{name} wants the arguments {', '.join(missing)}, and is called without any. Name a "
            f"function that takes nothing, such as: def make(): return {name.partition(':')[2]}(...)"
        )
    with own_code(name, "called"):
        model = factory()
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}() returned a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _is_part(missing: str | None, module_name: str) -> bool:
    """Whether it is the user's module that is missing, not one that it imports."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _missing_arguments(factory: Callable[..., Any]) -> list[str]:
    """Arguments without which it cannot be called."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _place(error: BaseException) -> str:
    """' (file:line: code)' of the last line of the user's own; '' where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno}: {(error.text or '').strip()[:120]})"
    frames = [
        (os.path.realpath(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    others = [frame for frame in frames if not frame[0].startswith(OWN_FOLDER)]
    theirs = [frame for frame in frames if not frame[0].startswith(LIBRARIES)] or others
    if not theirs:
        return ""
    file, line = theirs[-1]
    code = linecache.getline(file, line or 0).strip()[:120]
    return f" ({file}:{line}: {code})"
