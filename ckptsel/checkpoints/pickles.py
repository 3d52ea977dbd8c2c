"""Reading pickles without running them.

A pickle is a program: it names functions and classes, and calls them. Here every name stands for
something of this module that holds data and does nothing: a tensor becomes its description, a
Namespace its attributes. A name without a stand-in is never looked up: it is noted, and what it makes
is an `Unknown`, which holds what the file fills it with. Nothing of torch or NumPy is made from a
file's words, so nothing of theirs can be broken.

How torch.save writes tensors: torch/_utils.py and torch/serialization.py.
"""

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from ckptsel.checkpoints.tensors import (
    MAX_DIMENSIONS,
    NUMPY_TYPES,
    RAW_TYPES,
    Storage,
    StoredTensor,
)

Persistent = Callable[[Any], Any]
"""What a persistent id of the pickle means: a storage, or a class."""


MAX_NUMBER = 16
"""Bytes of one number at most."""


class _Fixed(type):
    """A class that no pickle can change: BUILD sets attributes of whatever it is given."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a class cannot be changed")


class Inert(metaclass=_Fixed):
    """An object of which nothing is kept: made, filled and called without effect."""

    __slots__ = ()

    def __new__(cls, *_arguments: object, **_named: object) -> "Inert":
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *_arguments: object) -> "Inert":
        return Inert()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    add = append


class Unknown(Inert):
    """An object of a class that is not known here: what it holds, and nothing of what it would do.

    full_name: module and name of its class. attributes: what the file fills it with. entries: what is
    put into it as into a dict.
    """

    __slots__ = ("attributes", "entries")
    full_name = ""
    attributes: dict[Any, Any]
    entries: dict[Any, Any]

    def __new__(cls, *_arguments: object, **_named: object) -> "Unknown":
        made = object.__new__(cls)
        made.attributes, made.entries = {}, {}
        return made

    def __setstate__(self, state: object) -> None:
        """state: a dict, or a pair of those with and without slots."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.attributes = {**self.attributes, **part} if self.attributes else part

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value


class Namespace(Inert):
    """argparse.Namespace: its attributes."""

    __slots__ = ("attributes",)
    attributes: dict[Any, Any]

    def __new__(cls, *_arguments: object, **_named: object) -> "Namespace":
        made = object.__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


class PlainDict(dict[Any, Any], metaclass=_Fixed):
    """OrderedDict, defaultdict, Counter: their items."""

    __slots__ = ()

    def __new__(cls, *arguments: object, **_named: object) -> "PlainDict":
        return dict.__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(a for a in arguments if isinstance(a, (dict, list))))

    def __setstate__(self, state: object) -> None:
        """What a dict carries besides, such as a state dict's `_metadata`."""


class NumpyType(Inert):
    """numpy.dtype: the code of a number (f8), and its byte order."""

    __slots__ = ("code", "order")
    code: str
    order: str

    def __new__(cls, code: object = "", *_rest: object) -> "NumpyType":
        made = object.__new__(cls)
        made.code = code if isinstance(code, str) else ""
        made.order = "<"
        return made

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def torch_name(self) -> str | None:
        """torch's name of the type, None where it has none of that kind and order."""
        code = {"b1": "u1"}.get(self.code, self.code)
        if self.order == ">" and not code.endswith("1"):
            return None
        is_bool = self.code == "b1"
        known = {numpy.strip("<"): torch for torch, numpy in NUMPY_TYPES.items() if torch != "bool"}
        return "bool" if is_bool else known.get(code)

    def numbers(self, data: bytes) -> list[Any] | None:
        """The numbers that bytes mean; None for text, records and dates."""
        if not re.fullmatch(r"[?bBhHiIlLqQefdu][0-9]{0,2}", self.code):
            return None
        try:
            found: list[Any] = np.frombuffer(data, self.order.strip("|=") + self.code).tolist()
        except (TypeError, ValueError):
            return None
        return found


class NumpyArray(Inert):
    """numpy.ndarray: its only number where it holds one; a tensor where its numbers are of a type that
    torch has."""

    __slots__ = ("number", "tensor")
    number: Any
    tensor: StoredTensor | None

    def __new__(cls, *_arguments: object) -> "NumpyArray":
        made = object.__new__(cls)
        made.number = made.tensor = None
        return made

    def __setstate__(self, state: object) -> None:
        match state:
            case (_, tuple() as shape, NumpyType() as kind, order, bytes() as data):
                self._fill(shape, kind, bool(order), data)

    def _fill(self, shape: Any, kind: NumpyType, is_fortran: bool, data: bytes) -> None:
        if len(data) <= MAX_NUMBER:
            numbers = kind.numbers(data)
            self.number = numbers[0] if numbers is not None and len(numbers) == 1 else None
        dtype = kind.torch_name()
        if dtype is not None:
            sizes = _whole_numbers(shape)
            strides = _column_strides(sizes) if is_fortran else None
            self.tensor = StoredTensor(dtype, sizes, Storage(dtype, memoryview(data)), strides)


def _array_from_buffer(
    data: Any = b"", kind: Any = None, shape: Any = (), order: Any = "C", *_rest: Any
) -> NumpyArray:
    """numpy's _frombuffer, which pickles of protocol 5 write arrays with."""
    made = NumpyArray()
    made.__setstate__((1, shape, kind, order == "F", bytes(data)))
    return made


def _column_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of an array whose first index runs fastest."""
    return tuple(math.prod(sizes[:i]) for i in range(len(sizes)))


class _Function(metaclass=_Fixed):
    """A function of this module, under a foreign name."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a function cannot be changed")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function has no state")


class _Type(_Function):
    """A type of tensors' numbers (torch.float32), by its name."""

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def __call__(self, *_arguments: object) -> Inert:
        return Inert()


class Reader(pickle.Unpickler):
    """Reads one pickle. refused: names that stand for nothing here, in the order of the file.

    persistent: what a persistent id means.
    """

    def __init__(self, file: IO[bytes], persistent: Persistent) -> None:
        # Python 2 wrote text and bytes alike; Latin-1 gives every byte back.
        super().__init__(file, encoding="latin1")
        self._unknown: dict[str, Any] = {}
        self._persistent = persistent

    @property
    def refused(self) -> list[str]:
        return list(self._unknown)

    def find_class(self, module: str, name: str) -> Any:
        known = _stand_in(module, name)
        if known is None:
            full = f"{module}.{name}"
            if full not in self._unknown:
                body = {"__slots__": (), "full_name": full}
                self._unknown[full] = _Fixed("Unknown", (Unknown,), body)
            known = self._unknown[full]
        return known

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid)


def storage_type(value: object) -> str | None:
    """The type of numbers of a storage class that a persistent id names; None for untyped ones."""
    name = value.name if isinstance(value, _Type) else ""
    return name or None


def _tensor(storage: Any, offset: Any, size: Any, stride: Any = None, *rest: Any) -> StoredTensor:
    """torch._utils._rebuild_tensor and _v2: (..., requires_grad, hooks, metadata)."""
    marks = rest[2] if len(rest) > 2 and isinstance(rest[2], Mapping) else {}
    return _view(storage, storage.dtype, offset, size, stride, marks)


def _tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *rest: Any,
) -> StoredTensor:
    marks = rest[0] if rest and isinstance(rest[0], Mapping) else {}
    return _view(storage, storage_type(dtype), offset, size, stride, marks)


def _view(
    storage: Any, dtype: str | None, offset: Any, size: Any, stride: Any, marks: Mapping[Any, Any]
) -> StoredTensor:
    if not isinstance(storage, Storage) or dtype is None:
        raise pickle.UnpicklingError("a tensor without a storage")
    strides = None if stride is None else _whole_numbers(stride)
    return StoredTensor(
        dtype,
        _whole_numbers(size),
        storage,
        strides,
        _whole_numbers((offset,))[0],
        conj=bool(marks.get("conj")),
        negative=bool(marks.get("neg")),
    )


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor without a shape")
    if not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise pickle.UnpicklingError("a tensor of an impossible shape")
    return tuple(values)


def _unusable(kind: str) -> Callable[..., StoredTensor]:
    """Sparse, quantised, nested tensors: named where they are among the weights, else no obstacle."""
    return lambda *_arguments: StoredTensor("float32", (), Storage(None), kind=kind)


def _first(value: Any = None, *_rest: Any) -> Any:
    """A parameter is its tensor."""
    return value


def _call(function: Any, _type: Any = None, arguments: Any = (), *_state: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes, which are left out."""
    if not isinstance(function, _Function) or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a tensor of an unknown kind")
    return function(*arguments)


def _encode(text: Any = "", encoding: Any = "latin1", *_rest: Any) -> bytes:
    """_codecs.encode, which older pickles write bytes with; no other encoding than theirs."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("utf-8" if encoding == "utf-8" else "latin1")


def _bytes(data: Any = b"", *_rest: Any) -> bytes:
    """bytearray: of bytes, never of a length, which would be allocated."""
    return bytes(data) if isinstance(data, (bytes, bytearray)) else b""


def _set(items: Any = ()) -> Any:
    return set(items) if isinstance(items, list) else Inert()


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(_number(real), _number(imaginary))


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    """torch.Size."""
    return tuple(sizes) if isinstance(sizes, (tuple, list)) else ()


def _scalar(kind: Any = None, data: Any = b"") -> Any:
    """numpy's scalar: a plain number."""
    numbers = (
        kind.numbers(data) if isinstance(kind, NumpyType) and isinstance(data, bytes) else None
    )
    return numbers[0] if numbers else Inert()


def _empty(cls: Any = Inert, *_rest: Any) -> Any:
    """copyreg._reconstructor: an object that is filled later."""
    return cls() if isinstance(cls, _Fixed) else Inert()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": _unusable("quantised"),
    "torch._utils._rebuild_sparse_tensor": _unusable("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _unusable("sparse"),
    "torch._utils._rebuild_nested_tensor": _unusable("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unusable("meta"),
    "torch._utils._rebuild_wrapper_subclass": _unusable("wrapped"),
    "torch._utils._rebuild_device_tensor_from_numpy": _unusable("of another device"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _call,
    "torch.jit._pickle.restore_type_tag": _first,
    "torch.serialization._get_layout": Inert,
    "torch.Size": _size,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytes,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.complex": _complex,
    "copyreg._reconstructor": _empty,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": NumpyArray,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
}

CLASSES: dict[str, type] = {
    "collections.OrderedDict": PlainDict,
    "collections.defaultdict": PlainDict,
    "collections.Counter": PlainDict,
    "argparse.Namespace": Namespace,
    "numpy.dtype": NumpyType,
    "numpy.ndarray": NumpyArray,
}

HARMLESS = {
    "builtins": {"dict", "list", "set", "tuple", "int", "float", "str", "bool", "bytes", "object"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "pathlib": {
        "Path",
        "PosixPath",
        "PurePosixPath",
        "WindowsPath",
        "PureWindowsPath",
    },
    "torch": {"Tensor", "device", "per_tensor_affine", "per_tensor_symmetric"}
    | {"per_channel_affine", "per_channel_symmetric", "per_channel_affine_float_qparams"},
    "torch.nn.parameter": {"Parameter", "Buffer"},
}
"""Names that hold data, of which nothing is needed here: what they make is empty."""

HARMFUL = {
    *("os", "posix", "nt", "subprocess", "commands", "pty", "socket", "shutil", "ctypes", "sys"),
    *("importlib", "runpy", "code", "webbrowser", "pip", "urllib", "requests", "http"),
}
HARMFUL_BUILTINS = {"eval", "exec", "execfile", "compile", "__import__", "open", "input"}
"""Modules and functions that no checkpoint of a training names. Nothing of them is looked up either: a
file that has one is refused for the sake of who would load it in the usual way."""

STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Untyped": "",
    "Typed": "",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt8": "quint8",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
"""torch's storage classes, without `Storage`, by the type of their numbers."""

TYPES = {*NUMPY_TYPES, *RAW_TYPES, *(name for name in STORAGES.values() if name)}
"""Names of torch's types of numbers."""

MOVED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "pathlib._local": "pathlib",
    "torch.storage": "torch",
    "torch.cuda": "torch",
}
"""Modules by the name that they have, or had, elsewhere."""


def _stand_in(module: str, name: str) -> Any:
    """What a name of a pickle stands for here; None where it stands for nothing."""
    module = MOVED.get(module, module)
    full = f"{module}.{name}"
    if full in FUNCTIONS:
        return _Function(FUNCTIONS[full])
    if full in CLASSES:
        return CLASSES[full]
    if name in HARMLESS.get(module, ()):
        return Inert
    if module == "torch":
        prefix = name.removesuffix("Storage")
        if prefix != name and prefix in STORAGES:
            return _Type(STORAGES[prefix])
        if name in TYPES:
            return _Type(name)
    return None


def is_harmful(full_name: str) -> bool:
    """Whether a name is one by which a file would run commands or open files where it is loaded."""
    module, _, name = full_name.rpartition(".")
    if MOVED.get(module, module) == "builtins":
        return name in HARMFUL_BUILTINS
    return module.partition(".")[0] in HARMFUL
