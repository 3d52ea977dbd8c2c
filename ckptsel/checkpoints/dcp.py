"""Folders of torch.distributed.checkpoint (DCP), which FSDP, Lightning, Accelerate and Megatron write.

`.metadata` is a pickle of names, shapes, and of where the pieces of each value lie: a file of the
folder, the first byte, how many. A piece is what torch.save writes. A tensor that was shared among
processes has several pieces (torch/distributed/checkpoint/filesystem.py and metadata.py).
"""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.pickles import Unknown
from ckptsel.checkpoints.tensors import MAX_DIMENSIONS, Storage, StoredTensor, numpy_type
from ckptsel.checkpoints.torch_files import TorchFile, read_torch_file, read_torch_part
from ckptsel.errors import CheckpointError

METADATA = ".metadata"

Check = Callable[[Path], None]
"""Raises CheckpointError where a file may not be opened."""


@dataclass(frozen=True)
class PiecedTensor(StoredTensor):
    """A tensor in pieces, which are put together when its values are asked for.

    pieces: (where the first value of a piece lies in the whole, the piece).
    """

    pieces: tuple[tuple[tuple[int, ...], StoredTensor], ...] = ()

    def values(self) -> NDArray[Any]:
        self.check()
        whole = np.zeros(self.shape, numpy_type(self.dtype))
        for first, piece in self.pieces:
            whole[_inside(first, piece.shape)] = piece.values()
        return whole

    def check(self) -> None:
        for first, piece in self.pieces:
            piece.check()
            sizes = zip(first, piece.shape, self.shape, strict=False)
            fits = len(first) == len(piece.shape) == len(self.shape)
            if not fits or piece.dtype != self.dtype or any(a + n > m for a, n, m in sizes):
                raise CheckpointError("has a piece that does not fit it: the folder is damaged.")
        starts = {first for first, _ in self.pieces}
        n_there = sum(piece.n_values for _, piece in self.pieces)
        if n_there != self.n_values or len(starts) < len(self.pieces):
            raise CheckpointError(
                f"has {n_there:,} of {self.n_values:,} values: files of some processes are missing. "
                "Copy all files of the folder."
            )


def read_dcp(folder: Path, check: Check) -> TorchFile:
    """What a folder holds, keys below keys as they were saved.

    check: of a file before it is opened. Raises CheckpointError where the folder is damaged, or a file
    that is named is not in it.
    """
    check(folder / METADATA)
    about = _attributes(read_torch_file(folder / METADATA).value)
    known, stored = (_dict(about.get(key)) for key in ("state_dict_metadata", "storage_data"))
    if not known or not stored:
        raise CheckpointError(f"{METADATA} names no tensors and where they lie: it is damaged.")
    pieces = _pieces_by_name(stored, _Files(folder, check))
    paths = _dict(about.get("planner_data"))
    nested: dict[str, Any] = {}
    unknown: dict[str, None] = {}
    for name, entry in known.items():
        parts = pieces.get(name, [])
        unknown |= dict.fromkeys(each for _, part in parts for each in part.unknown)
        _place(nested, paths.get(name), str(name), _value(_attributes(entry).get("size"), parts))
    return TorchFile(nested, tuple(unknown))


class _Files:
    """Files of a folder, each mapped once."""

    def __init__(self, folder: Path, check: Check) -> None:
        self._folder, self._check = folder, check
        self._mapped: dict[str, memoryview] = {}

    def part(self, place: Mapping[Any, Any]) -> memoryview:
        """The bytes that an entry of the metadata means."""
        name, first, length = (place.get(key) for key in ("relative_path", "offset", "length"))
        if not isinstance(name, str) or not isinstance(first, int) or not isinstance(length, int):
            raise CheckpointError(f"{METADATA} does not say where a piece lies: it is damaged.")
        if place.get("transform_descriptors"):
            raise CheckpointError(
                "its pieces are compressed. Load it with torch.distributed.checkpoint, and save it "
                "without extensions."
            )
        mapped = self._mapped.get(name)
        if mapped is None:
            mapped = self._mapped[name] = self._map(name)
        if not 0 <= first <= first + length <= mapped.nbytes:
            raise CheckpointError(f"{name[:100]} is cut off. Copy it again.")
        return mapped[first : first + length]

    def _map(self, name: str) -> memoryview:
        path = self._folder / name
        if Path(name).name != name:
            raise CheckpointError(
                f"{METADATA} names {name[:100]!r}, which is no file of its own folder."
            )
        self._check(path)
        try:
            with path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot open {name[:100]}: {error}") from error


def _pieces_by_name(
    stored: Mapping[Any, Any], files: _Files
) -> dict[Any, list[tuple[tuple[int, ...], TorchFile]]]:
    """(where it lies in the whole, what it holds) of the pieces of each name."""
    found: dict[Any, list[tuple[tuple[int, ...], TorchFile]]] = {}
    for index, place in stored.items():
        about = _attributes(index)
        name, first = about.get("fqn"), about.get("offset")
        if isinstance(name, str):
            start = _whole(first) if isinstance(first, tuple) else ()
            piece = read_torch_part(files.part(_attributes(place)))
            found.setdefault(name, []).append((start, piece))
    return found


def _value(size: Any, parts: list[tuple[tuple[int, ...], TorchFile]]) -> Any:
    """A tensor of one piece or several; what torch.save wrote where it is no tensor."""
    tensors = [(first, part.value) for first, part in parts if isinstance(part.value, StoredTensor)]
    if not isinstance(size, tuple):
        return parts[0][1].value if len(parts) == 1 else None
    if len(tensors) == 1 and tensors[0][1].shape == size:
        return tensors[0][1]
    dtype = tensors[0][1].dtype if tensors else "float32"
    return PiecedTensor(dtype, _whole(size), Storage(dtype), pieces=tuple(tensors))


def _whole(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    is_possible = len(sizes) <= MAX_DIMENSIONS
    if not is_possible or not all(type(each) is int and 0 <= each < 2**62 for each in sizes):
        raise CheckpointError(f"{METADATA} names a tensor of an impossible shape: it is damaged.")
    return sizes


def _inside(first: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(first, shape, strict=True))


def _place(nested: dict[str, Any], path: Any, name: str, value: Any) -> None:
    """Puts a value under the keys that it was saved under, or its name where they are not told."""
    keys = [str(key) for key in path] if isinstance(path, tuple) and path else [name]
    for key in keys[:-1]:
        below = nested.setdefault(key, {})
        if not isinstance(below, dict):
            return
        nested = below
    nested[keys[-1]] = value


def _attributes(value: Any) -> Mapping[Any, Any]:
    return value.attributes if isinstance(value, Unknown) else {}


def _dict(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
