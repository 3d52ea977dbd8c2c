"""`.npz` files: a zip of arrays, each with a header of one line.

The format: `\\x93NUMPY`, a version, the length of the header, the header as a Python literal, the values
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). The header is matched and not
evaluated, so that no type is made of a file's words; only numbers of float are read.
"""

import contextlib
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.tensors import MAX_DIMENSIONS
from ckptsel.errors import CheckpointError

SUFFIX = ".npy"

HEADER = re.compile(
    rb"\x93NUMPY[\x01-\x03]\x00.{2,4}\{'descr': '<(f[248])', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,12}, ?)*\d{0,12})\), \} *\n",
    re.DOTALL,
)


def names_in_npz(path: Path) -> list[str]:
    """Names of its arrays. Raises CheckpointError where it is no whole file."""
    with _opened(path) as archive:
        return [n.removesuffix(SUFFIX) for n in archive.namelist() if n.endswith(SUFFIX)]


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Some of its arrays, by name. Raises CheckpointError."""
    with _opened(path) as archive:
        return {name: _array(name, archive.read(name + SUFFIX)) for name in names}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a damaged zip can end in an error of any type
        raise CheckpointError(
            f"not a whole .npz file ({str(error)[:100]}). Copy it again."
        ) from error


def _array(name: str, data: bytes) -> NDArray[Any]:
    header = HEADER.match(data)
    if header is None:
        raise CheckpointError(f"{name[:100]} in it is no array of float32 or the like.")
    kind, is_fortran, sizes = header[1].decode(), header[2] == b"True", header[3].split(b",")
    shape = tuple(int(size) for size in sizes if size.strip())
    n_bytes = math.prod(shape) * int(kind[1:])
    if len(shape) > MAX_DIMENSIONS or n_bytes != len(data) - header.end():
        raise CheckpointError(f"{name[:100]} in it has another size than it says. Copy it again.")
    values = np.frombuffer(data, f"<{kind}", offset=header.end())
    return values.reshape(shape, order="F" if is_fortran else "C")
