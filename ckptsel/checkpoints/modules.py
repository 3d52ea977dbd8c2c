"""Whole pickled modules: their state dict from what the file fills them with, without their classes.

`torch.save(model)` writes each module as its class and its attributes, among them `_parameters`,
`_buffers` and `_modules`; TorchScript writes a module's tensors and modules as its attributes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ckptsel.checkpoints.pickles import Unknown
from ckptsel.checkpoints.tensors import StoredTensor
from ckptsel.errors import CheckpointError

SCRIPT = "__torch__."
"""What names of TorchScript's classes begin with."""

MAX_DEPTH = 100
"""Modules inside modules; more are a circle."""


def is_module(value: Any) -> bool:
    """Whether an object is a module of torch or of TorchScript."""
    if not isinstance(value, Unknown):
        return False
    return _is_script(value) or isinstance(value.attributes.get("_modules"), Mapping)


def state_dict_of(module: Unknown) -> dict[str, Any]:
    """What `module.state_dict()` would give: tensors by name, in its order.

    Raises CheckpointError where modules hold each other in a circle.
    """
    return dict(_entries(module, "", 0))


def contents_of(value: Any) -> Mapping[Any, Any] | None:
    """What an object holds by name: a dict's items, a module's state dict, what another object was
    filled with, the members of a list of several; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if is_module(value):
        return state_dict_of(value)
    if isinstance(value, Unknown):
        return {**value.attributes, **value.entries}
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, Unknown)) for v in value):
        return {str(place): member for place, member in enumerate(value)}
    return None


def _entries(module: Unknown, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH:
        raise CheckpointError("its modules hold each other in a circle: the file is damaged.")
    for name, value in _own(module).items():
        if is_module(value):
            yield from _entries(value, f"{prefix}{name}.", depth + 1)
        elif value is not None:
            yield f"{prefix}{name}", value


def _own(module: Unknown) -> dict[Any, Any]:
    """Tensors, then modules, of one module by name."""
    held = module.attributes
    if _is_script(module):
        tensors = {name: v for name, v in held.items() if isinstance(v, StoredTensor)}
        return {**tensors, **{name: v for name, v in held.items() if is_module(v)}}
    parameters, buffers, modules = (
        part if isinstance(part := held.get(name), Mapping) else {}
        for name in ("_parameters", "_buffers", "_modules")
    )
    left_out = held.get("_non_persistent_buffers_set")
    left_out = left_out if isinstance(left_out, set) else set()
    kept = {name: value for name, value in buffers.items() if name not in left_out}
    return {**parameters, **kept, **modules}


def _is_script(value: Unknown) -> bool:
    return value.full_name.startswith(SCRIPT)
