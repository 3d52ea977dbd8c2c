"""Arrays, tensors and plain values as bytes and back, without pickle.

The bytes are those of a safetensors file. Its metadata holds the values as JSON, in which each array
stands by its name; what JSON does not tell apart (a tuple, keys that are numbers) is written out.
"""

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save


def pack(value: Any) -> bytes:
    """value: dicts, lists, tuples, texts, numbers, booleans, None, NumPy arrays and tensors.

    Raises TypeError for anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    plain = _plain(value, tensors)
    return bytes(save(tensors, {"value": json.dumps(plain)}))


def unpack(data: bytes | bytearray) -> Any:
    """What was packed; tensors on the CPU, contiguous."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return _restored(json.loads(header["__metadata__"]["value"]), load(bytes(data)))


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value for JSON, its arrays put into `tensors`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_plain(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, tensors) for item in value]}
    if isinstance(value, dict):
        items = [[_plain(k, tensors), _plain(v, tensors)] for k, v in value.items()]
        return {"dict": items}
    name = str(len(tensors))
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value, order="C"))
        return {"array": name}
    if isinstance(value, torch.Tensor):
        # A copy: safetensors takes no two tensors that share memory, and none that is strided.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    raise TypeError(f"a {type(value).__name__} is none of what is packed")


def _restored(plain: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(plain, list):
        return [_restored(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "tuple":
        return tuple(_restored(item, tensors) for item in value)
    if kind == "dict":
        return {_restored(k, tensors): _restored(v, tensors) for k, v in value}
    return tensors[value].numpy() if kind == "array" else tensors[value]
