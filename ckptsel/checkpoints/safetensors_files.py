"""safetensors files: the header first, then pieces of the mapped file.

The format: eight bytes that give the length of a JSON header, the header, the tensors' bytes without
gaps (https://huggingface.co/docs/safetensors).
"""

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.tensors import MAX_DIMENSIONS, Storage, StoredTensor, item_size
from ckptsel.errors import CheckpointError

MAX_HEADER = 100_000_000
"""Bytes of a header, as the format's own library allows."""

TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
"""The format's names of types by torch's."""


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """(tensors by name, metadata). Raises CheckpointError where it is no whole file of the format."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if not start:
                raise CheckpointError("the file is empty: was the disk full when it was saved?")
            if len(start) < 8:
                raise _not_whole("it ends in its first line")
            (length,) = struct.unpack("<Q", start)
            size = path.stat().st_size
            if length > min(MAX_HEADER, size - 8):
                raise _not_whole("its header would be longer than the file")
            header = _header(file.read(length))
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"cannot open the file: {error}") from error
    metadata = header.pop("__metadata__", {})
    data = mapped[8 + length :]
    tensors = {name: _tensor(name, entry, data) for name, entry in header.items()}
    return tensors, metadata if isinstance(metadata, dict) else {}


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _not_whole("its header is no JSON") from error
    if not isinstance(header, dict):
        raise _not_whole("its header is no JSON object")
    return header


def _tensor(name: str, entry: Any, data: memoryview) -> StoredTensor:
    match entry:
        case {
            "dtype": str() as kind,
            "shape": [*sizes],
            "data_offsets": [int() as first, int() as last],
        }:
            pass
        case _:
            raise _not_whole(f"the entry of {name!r} in its header is damaged")
    fits = len(sizes) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < 2**62 for n in sizes)
    if not fits:
        raise _not_whole(f"{name} has an impossible shape")
    if kind not in TYPES:
        raise CheckpointError(f"{name} holds {kind} numbers, a type that is not read.")
    n_bytes = math.prod(sizes) * item_size(TYPES[kind])
    if not 0 <= first <= last <= data.nbytes or last - first != n_bytes:
        raise _not_whole(f"{name} lies outside of the file")
    return StoredTensor(TYPES[kind], tuple(sizes), Storage(TYPES[kind], data[first:last]))


def _not_whole(reason: str) -> CheckpointError:
    return CheckpointError(
        f"not a whole safetensors file ({reason}). It may be cut off; copy it again."
    )
