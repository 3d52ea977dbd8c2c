"""The two containers of torch.save: a zip archive, and before torch 1.6 pickles one after the other;
and a pickle alone, as `pickle.dump` writes it.

Sizes are read from the container first, and nothing is made that the file does not hold. A file is
mapped, not read: tensors are pieces of the map.
"""

import dataclasses
import io
import mmap
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ckptsel.checkpoints.pickles import Reader, is_harmful, storage_type
from ckptsel.checkpoints.tensors import Storage, item_size
from ckptsel.errors import CheckpointError, listed

ZIP_START = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip entry: its mark, and the lengths of the name and of what follows it."""


@dataclass(frozen=True)
class TorchFile:
    """What torch.save wrote.

    value: plain Python values, tensors as `StoredTensor`, objects of other classes as `Unknown`.
    unknown: names of those classes, and of functions. is_plain: a pickle that torch.save did not write.
    """

    value: Any
    unknown: tuple[str, ...] = ()
    is_plain: bool = False


def read_torch_file(path: Path) -> TorchFile:
    """What torch.save, torch.jit.save or pickle.dump wrote.

    Raises CheckpointError where the file is empty, cut off, of another kind, or holds names by which it
    would do harm where it is loaded.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise CheckpointError("the file is empty: was the disk full when it was saved?")
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            file.seek(0)
            return _read(file, mapped)
    except OSError as error:
        raise CheckpointError(f"cannot open the file: {error}") from error


def read_torch_part(part: memoryview) -> TorchFile:
    """The same of a part of a mapped file that torch.save wrote. Raises CheckpointError."""
    return _read(_Part(part), part)


class _Part(io.RawIOBase):
    """A file of the bytes of a part of another, without a copy of them."""

    def __init__(self, part: memoryview) -> None:
        self._part, self._at = part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, to + (0, self._at, self._part.nbytes)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._part[self._at : self._at + len(buffer)]
        buffer[: found.nbytes] = found
        self._at += found.nbytes
        return found.nbytes


def _read(file: Any, mapped: memoryview) -> TorchFile:
    """file: at its start. mapped: its bytes."""
    try:
        is_zip = bytes(mapped[:4]) == ZIP_START
        return _read_zip(file, mapped) if is_zip else _read_legacy(file, mapped)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can end in an error of any type
        raise _text_in(mapped) or _damaged(error) from error


def _read_zip(file: IO[bytes], mapped: memoryview) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        folder = next((n[: -len("data.pkl")] for n in entries if _is_pickle_of_torch(n)), None)
        if folder is None:
            raise CheckpointError(
                "a zip archive that torch.save did not write. Where checkpoints are packed in it, "
                "unpack it."
            )
        records = [
            e for n, e in entries.items() if n.startswith((f"{folder}data/", f"{folder}data.pkl"))
        ]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in records):
            raise CheckpointError(
                "a zip archive whose records are compressed, which torch.save never does. Load it "
                "yourself and save it again."
            )
        order = entries.get(f"{folder}byteorder")
        if order is not None and bytes(_content(order, mapped)) == b"big":
            raise CheckpointError("its numbers are big-endian. Save it on a machine of today.")

        def meant(pid: Any) -> Storage:
            storage, key = _declared(pid)
            entry = entries.get(f"{folder}data/{key}")
            if entry is not None:
                storage.data = _content(entry, mapped)
            return storage

        with archive.open(f"{folder}data.pkl") as stream:
            reader = Reader(stream, meant)
            value = reader.load()
            return TorchFile(value, _unknown_to(reader))


def _is_pickle_of_torch(name: str) -> bool:
    return name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)


def _content(entry: zipfile.ZipInfo, mapped: memoryview) -> memoryview:
    """The bytes of an entry that is not compressed."""
    mark, n_name, n_extra = LOCAL_HEADER.unpack_from(mapped, entry.header_offset)
    start = entry.header_offset + LOCAL_HEADER.size + n_name + n_extra
    if mark != ZIP_START or start + entry.file_size > mapped.nbytes:
        raise CheckpointError("not a whole file of torch.save: it is cut off. Copy it again.")
    return mapped[start : start + entry.file_size]


def _read_legacy(file: IO[bytes], mapped: memoryview) -> TorchFile:
    """Magic number, protocol, system; the pickle; the storages' keys; their sizes and bytes."""
    storages: dict[Any, Storage] = {}

    def meant(pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # a class, with its source
        storage, key = _declared(pid)
        return storages.setdefault(key, storage)

    def load() -> TorchFile:
        reader = Reader(file, meant)
        return TorchFile(reader.load(), _unknown_to(reader))

    first = load()
    if first.value != LEGACY_MAGIC:
        return dataclasses.replace(first, is_plain=True)
    if load().value != LEGACY_PROTOCOL:
        raise CheckpointError("a file of torch.save in an unknown version.")
    load()
    payload = load()
    for key in load().value:
        storage = storages[key]
        (n_values,) = struct.unpack("<q", file.read(8))
        size = n_values * (1 if storage.dtype is None else item_size(storage.dtype))
        start = file.tell()
        if size < 0 or start + size > mapped.nbytes:
            raise CheckpointError("not a whole file of torch.save: it is cut off. Copy it again.")
        storage.data = mapped[start : start + size]
        file.seek(start + size)
    return payload


def _declared(pid: Any) -> tuple[Storage, Any]:
    """(storage, key) of a persistent id: ("storage", type, key, location, number of values, ...)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise pickle.UnpicklingError("a reference to nothing")
    dtype, key, n_values = storage_type(pid[1]), pid[2], pid[4]
    if not isinstance(n_values, int) or not isinstance(key, (str, int)):
        raise pickle.UnpicklingError("a storage without a size")
    if len(pid) > 5 and pid[5] is not None:
        raise CheckpointError(
            "its storages are views of others, which torch before 1.0 wrote. Save it again."
        )
    return Storage(dtype), key


def _unknown_to(reader: Reader) -> tuple[str, ...]:
    """Raises CheckpointError where one of them would do harm."""
    harmful = [name[:100] for name in reader.refused if is_harmful(name)]
    if harmful:
        raise CheckpointError(
            f"refused: it holds {listed(harmful)}, by which it would run commands or open files where "
            "it is loaded in the usual way. Nothing was run. Load it nowhere, unless you know who wrote "
            "it and why."
        )
    return tuple(reader.refused)


def _text_in(mapped: memoryview) -> CheckpointError | None:
    """That it is text, such as an error that was downloaded in its place; None for anything else."""
    beginning = " ".join(bytes(mapped[:60]).decode("ascii", "replace").split())
    if not (beginning and beginning.isascii() and beginning.isprintable()):
        return None
    return CheckpointError(
        f"text, not weights: it begins {beginning!r}. Perhaps an error came in the place of a download; "
        "download it again."
    )


def _damaged(error: Exception) -> CheckpointError:
    if isinstance(error, (zipfile.BadZipFile, EOFError, struct.error, IndexError, KeyError)):
        return CheckpointError(
            "not a whole file of torch.save, or of another kind. It may be cut off; copy it again "
            "from its source."
        )
    reason = str(error).split("\n")[0][:160] or type(error).__name__
    return CheckpointError(
        f"not a file of torch.save ({reason}). It may be damaged or of another kind; copy it again "
        "from its source."
    )
