"""Tensors as files store them: bytes and a description, without torch.

Files are read by processes that must start at once and must not be hurt by what they read, so nothing
here is made by torch: a tensor is a type's name, a shape, strides, and a piece of the file.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import CheckpointError

NUMPY_TYPES = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "complex128": "<c16",
    "complex64": "<c8",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "u1",
    "bool": "u1",
}
"""torch's types that NumPy has too."""

RAW_TYPES = {
    "bfloat16": "<u2",
    "complex32": "<u4",
    "float8_e4m3fn": "u1",
    "float8_e5m2": "u1",
    "float8_e4m3fnuz": "u1",
    "float8_e5m2fnuz": "u1",
    "float8_e8m0fnu": "u1",
    "float4_e2m1fn_x2": "u1",
}
"""torch's types that NumPy has not, by one of the same width that holds their bits."""

NOT_FINITE = {
    "bfloat16": (0x7F80, 0x7F80),
    "float8_e4m3fn": (0x7F, 0x7F),
    "float8_e5m2": (0x7C, 0x7C),
    "float8_e4m3fnuz": (0xFF, 0x80),
    "float8_e5m2fnuz": (0xFF, 0x80),
    "float8_e8m0fnu": (0xFF, 0xFF),
}
"""(mask, bits): a value is NaN or infinite where the masked bits are these (IEEE 754; Micikevicius et
al., arXiv 2209.05433; the OCP specification of microscaling formats)."""

PART = 1 << 22
"""Values that are looked at together, so that no large tensor needs its size again."""

MAX_DIMENSIONS = 64
"""As in NumPy."""

SHARE = (
    "is one process's share of a distributed tensor (FSDP). Save with "
    "torch.distributed.checkpoint.save, whose folders are read, or whole: get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)). docs/formats.md shows how to join what is there."
)

NOT_DENSE = {
    "wrapped": SHARE,
    "quantised": "is quantised: give the checkpoint of float numbers that it was made from.",
    "meta": "has no values (it was saved on the device meta): save it after it was loaded.",
}
"""What is said of tensors that are stored otherwise than dense, after their names."""

FLOATING = ("float", "bfloat")


@dataclass
class Storage:
    """A run of bytes in a file that tensors are views of.

    dtype: of its elements, None where each view says its own.
    data: the bytes; None until the file says where they lie.
    """

    dtype: str | None
    data: memoryview | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    dtype: torch's name (float32). shape: sizes. strides, offset: in elements of the storage; strides
    None for C order. kind: how it is stored; anything but `dense` cannot be used. conj, negative: its
    values are the conjugates, or negatives, of those that are stored.
    """

    dtype: str
    shape: tuple[int, ...]
    storage: Storage
    strides: tuple[int, ...] | None = None
    offset: int = 0
    kind: str = "dense"
    conj: bool = False
    negative: bool = False

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_values * item_size(self.dtype)

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(FLOATING)

    def values(self) -> NDArray[Any]:
        """Its values in C order, (*shape), in the NumPy type of `NUMPY_TYPES` or `RAW_TYPES`.

        Raises as `check` does.
        """
        self.check()
        assert self.storage.data is not None
        data = self.storage.data
        whole = len(data) - len(data) % item_size(self.dtype)  # a storage may end within a value
        stored = np.frombuffer(data[:whole], numpy_type(self.dtype))
        if self.strides is None or self.n_values == 0:
            found = stored[self.offset : self.offset + self.n_values].reshape(self.shape)
        else:
            strides = [stride * stored.itemsize for stride in self.strides]
            found = np.lib.stride_tricks.as_strided(
                stored[self.offset :], self.shape, strides, writeable=False
            )
        found = np.ascontiguousarray(found).reshape(self.shape)
        found = found.conj() if self.conj else found
        return -found if self.negative else found

    def item(self) -> Any:
        """The one value of a tensor of one, None where it is of a type that NumPy has not."""
        return self.values().reshape(-1)[0].item() if self.dtype in NUMPY_TYPES else None

    def check(self) -> None:
        """Raises CheckpointError where the file does not hold its values, or not as a dense array; the
        message goes on after its name."""
        if self.kind != "dense":
            raise CheckpointError(NOT_DENSE.get(self.kind, f"is {self.kind}: save it dense."))
        if self.storage.data is None:
            raise CheckpointError("names a storage that is not in the file.")
        if self.n_bytes > self.storage.data.nbytes:
            raise CheckpointError(
                f"asks for {self.n_values:,} values and the file stores fewer: it is an expanded view. "
                "Save it with .contiguous()."
            )
        if self.n_values and not 0 <= self.offset <= self._last() < self._n_stored():
            raise CheckpointError("lies outside of what the file stores: the file is damaged.")

    def _last(self) -> int:
        """The place of its last value in the storage."""
        if self.strides is None:
            return self.offset + self.n_values - 1
        if len(self.strides) != len(self.shape) or any(stride < 0 for stride in self.strides):
            return -1
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in steps)

    def _n_stored(self) -> int:
        assert self.storage.data is not None
        return self.storage.data.nbytes // item_size(self.dtype)


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type that holds a torch type. Raises CheckpointError for one that is not known."""
    known = NUMPY_TYPES.get(dtype) or RAW_TYPES.get(dtype)
    if known is None:
        raise CheckpointError(
            f"holds {dtype} numbers, a type that is not read. Save it as float32."
        )
    return np.dtype(known)


def item_size(dtype: str) -> int:
    """Bytes of one value."""
    return numpy_type(dtype).itemsize


def n_not_finite(dtype: str, values: NDArray[Any]) -> int:
    """How many values are NaN or infinite."""
    flat = values.reshape(-1)
    parts = (flat[i : i + PART] for i in range(0, flat.size, PART))
    if dtype in NOT_FINITE:
        mask, bits = NOT_FINITE[dtype]
        return sum(int(np.count_nonzero((part & mask) == bits)) for part in parts)
    if dtype in NUMPY_TYPES and values.dtype.kind in "fc":
        return sum(part.size - int(np.count_nonzero(np.isfinite(part))) for part in parts)
    return 0


class Digest:
    """SHA-256 over names, types, shapes and bytes of tensors, fed in order of name."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, dtype: str, shape: tuple[int, ...], values: NDArray[Any]) -> None:
        """values: (*shape), in C order."""
        self._digest.update(f"{name} torch.{dtype} {shape}\n".encode())
        self._digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def is_parameter(name: str, dtype: str) -> bool:
    """Whether a tensor counts as parameters: floating, and no statistics of batch norm."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return dtype.startswith(FLOATING) and not name.endswith(statistics)
