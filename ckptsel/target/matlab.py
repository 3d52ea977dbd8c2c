"""The one table of a MATLAB file that ImageNet's devkit needs: an array of structs.

Not by SciPy: its reader ends the process on some damaged files (a bit changed in the place of a size),
so it cannot be given a stranger's. The format is MAT-file level 5: elements of a tag and bytes.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST_BYTES = 2**26
"""Of the file, and of what it unpacks to; the devkit's has less than one hundredth."""

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STRUCT_CLASS, CHAR_CLASS = 2, 4
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
"""Types of elements that hold numbers, as `struct` calls them."""

UTF16, UTF8 = 4, 16
"""Types of elements that hold text; others hold a byte a letter."""

Value = str | float | None
Element = tuple[int, bytes]


def read_structs(path: Path, name: str, fields: Sequence[str]) -> list[dict[str, Value]]:
    """The structs of an array, each with these fields: a text, the first number, or None for others.

    Raises OSError, or ValueError where it is no such file, or has no such array.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("it is too large")
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("it is no MATLAB file of level 5")
    try:
        for kind, content in _elements(data[HEADER:], order):
            if kind == COMPRESSED:
                kind, content = next(_elements(_unpacked(content), order))
            if kind == MATRIX:
                parts = list(_elements(content, order))
                if _class_of(parts, order) == STRUCT_CLASS and parts[2][1] == name.encode():
                    return _structs(parts, order, fields)
    except (struct.error, IndexError, StopIteration, zlib.error, UnicodeError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    raise ValueError(f"it has no table {name!r}")


def _elements(data: bytes, order: str) -> Iterator[Element]:
    """(type, bytes) of the elements that lie one after the other. Raises ValueError where one is cut."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small one: size, type and up to four bytes in eight
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        end = start + size
        if end > len(data) or (start == at + 4 and size > 4):
            raise ValueError("it is cut, or damaged")
        yield kind, data[start:end]
        at = end if kind == COMPRESSED else at + 8 * math.ceil((end - at) / 8)


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(content, MOST_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError("it unpacks to too much")
    return data


def _class_of(parts: Sequence[Element], order: str) -> int:
    """Of a matrix, of which `parts` are flags, dimensions, name and what it holds."""
    flags: int = struct.unpack_from(f"{order}I", parts[0][1])[0] if len(parts) > 2 else 0
    return flags & 0xFF


def _structs(parts: Sequence[Element], order: str, fields: Sequence[str]) -> list[dict[str, Value]]:
    """Its parts go on with the width of names, the names, and the fields of one struct after another."""
    (width,) = struct.unpack_from(f"{order}i", parts[3][1])
    names = parts[4][1]
    if width <= 0 or len(names) < width:
        raise ValueError("its table has no columns")
    columns = [
        names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)
    ]
    cells = parts[5:]
    place = {name: columns.index(name) for name in fields if name in columns}
    if len(place) < len(fields):
        raise ValueError(f"its table has no column {next(f for f in fields if f not in place)!r}")
    return [
        {name: _value(cells[row + i], order) for name, i in place.items()}
        for row in range(0, len(cells) - len(columns) + 1, len(columns))
    ]


def _value(cell: Element, order: str) -> Value:
    parts = list(_elements(cell[1], order))
    if len(parts) < 4:
        return None
    kind, content = parts[3]
    if _class_of(parts, order) == CHAR_CLASS:
        wide = "utf-16-le" if order == "<" else "utf-16-be"
        return content.decode({UTF16: wide, UTF8: "utf-8"}.get(kind, "latin-1"))
    letter = NUMBERS.get(kind)
    return float(struct.unpack_from(order + letter, content)[0]) if letter and content else None
