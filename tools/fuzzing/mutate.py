"""Broken inputs from whole ones: bytes, JSON, tables, tars and pickles in archives."""

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff" * 8,
        b"\x7f\xff\xff\xff",
        b"9" * 400,
        b"-1",
        b"1e999",
        b"NaN",
        b"\xed\xa0\x80",
    ),
    *(
        b"null",
        b"[]",
        b"{}",
        b"true",
        b'"',
        b"\n",
        b"\r\n",
        b"../../etc/passwd",
        b"\xf0\x9f\x92\xa9",
    ),
)

ODD_VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.choice([True, False]),
    lambda r: r.choice([0, -1, 1, 2**31, 2**63, -(2**70), 10**30, 10**400]),
    lambda r: r.choice([0.0, -0.0, 1e308, -1e308, 1e-320, 0.5, 2.5, float("nan"), float("inf")]),
    lambda r: r.choice(
        ["", " ", "x" * 3000, "\ud800", "\0", "a\nb", "nan", "é", "1", "../x", "{0}"]
    ),
    lambda r: r.choice([[], {}, [[]], {"": 1}, [None], [1, "a"], {"value": None}]),
    lambda r: nested(r.choice([5, 200])),
)


ODD_CELLS = (
    *(
        b"",
        b" ",
        b"\0",
        b"0",
        b"-1",
        b"0.5",
        b"1e5",
        b"nan",
        b"9" * 30,
        b"9" * 5000,
        b"cat",
        b"True",
    ),
    *(b'"', b'"a\nb"', b"../0.png", b"/etc/passwd", b"/dev/zero", b"/proc/self/mem", b"x" * 5000),
    *(
        b"\xff",
        b"caf\xe9",
        b"\xef\xbb\xbf",
        b"\xf0\x9f\x92\xa9",
        b"label",
        b"split",
        b"https://x/1.png",
    ),
)

TAR_FIELDS = (
    (
        0,
        100,
        (b"", b"/etc/passwd", b"../../x.png", b"a/../b.cls", b"\xff.png", b"x" * 100, b".png"),
    ),
    (
        124,
        12,
        (b"77777777777", b"0", b"-1", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"00000001000", b"x"),
    ),
    (156, 1, (b"1", b"2", b"3", b"5", b"6", b"L", b"K", b"x", b"g", b"S", b"z")),
    (157, 100, (b"/etc/passwd", b"../..", b"")),
    (257, 8, (b"", b"ustar  \0", b"ustar\00000")),
    (345, 155, (b"a/b", b"../" * 40, b"\xff" * 155)),
    (386, 24, (b"77777777777", b"0" * 24)),
)
"""Place, width, odd values: name, size, type, target of a link, magic, prefix, map of a sparse file."""


def mutate_bytes(data: bytes, r: random.Random) -> bytes:
    """One to five changes: bits, bytes, pieces moved, doubled, cut off or put in."""
    out = bytearray(data)
    for _ in range(r.randint(1, 5)):
        i, j = sorted(r.randrange(len(out) + 1) for _ in range(2))
        kind = r.randrange(7)
        if kind == 0 and i < len(out):
            out[i] ^= 1 << r.randrange(8)
        elif kind == 1 and i < len(out):
            out[i] = r.randrange(256)
        elif kind == 2:
            out[i : i + r.choice([0, 1, 4])] = r.choice(TOKENS)
        elif kind == 3:
            del out[i : min(j, i + r.choice([1, 8, 200]))]
        elif kind == 4:
            out[i:i] = out[i : min(j, i + 200)]
        elif kind == 5 and r.random() < 0.3:
            del out[i:]
        elif kind == 6:
            piece = out[i : min(j, i + 50)]
            k = r.randrange(len(out) + 1)
            out[k : k + len(piece)] = piece
    return bytes(out)


def mutate_json(data: bytes, r: random.Random) -> bytes:
    """One to three nodes of the tree replaced, removed, renamed or moved; now and then bytes."""
    if r.random() < 0.2:
        return mutate_bytes(data, r)
    value = json.loads(data)
    for _ in range(r.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = r.choice(places)
        _change(holder, key, r, places)
    return json.dumps(value).encode()


def mutate_torch_zip(data: bytes, r: random.Random) -> bytes:
    """The pickle inside, or some of the arrays, changed and packed again, so that no checksum gives it
    away; or bytes."""
    if r.random() < 0.25:
        return mutate_bytes(data, r)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as whole,
        zipfile.ZipFile(buffer, "w") as broken,
    ):
        for entry in whole.infolist():
            content = whole.read(entry)
            is_array = entry.filename.endswith(".npy") and r.random() < 0.1
            is_broken = entry.filename.endswith("data.pkl") or is_array
            name = entry.filename if r.random() < 0.99 else entry.filename + "x"
            broken.writestr(name, mutate_bytes(content, r) if is_broken else content)
    return buffer.getvalue()


def mutate_table(data: bytes, r: random.Random) -> bytes:
    """Cells replaced by odd ones, rows doubled, cut or made long; or bytes."""
    if r.random() < 0.4:
        return mutate_bytes(data, r)
    lines = data.split(b"\n")
    for _ in range(r.randint(1, 3)):
        i = r.randrange(len(lines))
        cells = re.split(rb"([,;\t])", lines[i])
        kind = r.randrange(6)
        if kind == 0:
            lines.insert(i, lines[r.randrange(len(lines))])
        elif kind == 1:
            lines[i] = b""
        elif kind == 2:
            lines[i] += r.choice([b",x", b";", b"\t", b"," * 5000, b",x" * 5000])
        else:
            cells[r.randrange(len(cells))] = r.choice(ODD_CELLS)
            lines[i] = b"".join(cells)
    return b"\n".join(lines)


def mutate_json_lines(data: bytes, r: random.Random) -> bytes:
    """Nodes of some lines changed; or the whole as a table's."""
    if r.random() < 0.3:
        return mutate_table(data, r)
    lines = data.splitlines()
    for i in r.sample(range(len(lines)), 2):
        lines[i] = b"[" * 5000 if r.random() < 0.05 else mutate_json(lines[i], r)
    return b"\n".join(lines)


def mutate_tar(data: bytes, r: random.Random) -> bytes:
    """Fields of headers changed, with checksums made right; or bytes."""
    if r.random() < 0.3:
        return mutate_bytes(data, r)
    out = bytearray(data)
    headers = [i for i in range(0, len(out) - 511, 512) if out[i + 257 : i + 262] == b"ustar"]
    for start in r.sample(headers, min(len(headers), r.randint(1, 3))):
        place, width, values = r.choice(TAR_FIELDS)
        value = r.choice(values)[:width]
        out[start + place : start + place + width] = value.ljust(width, b"\0")
        out[start + 148 : start + 156] = b" " * 8
        checksum = sum(out[start : start + 512])
        out[start + 148 : start + 156] = b"%06o\0 " % checksum
    return bytes(out)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _places(value: Any) -> Any:
    """(holder, key) of every node below."""
    stack = [value]
    while stack:
        holder = stack.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])


def _change(holder: Any, key: Any, r: random.Random, places: list[Any]) -> None:
    kind = r.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[r.choice(["", "x", key + "_", "value", "name"])] = holder.pop(key)
    elif kind == 2:
        other, place = r.choice(places)
        try:
            holder[key] = json.loads(json.dumps(other[place]))
        except (KeyError, IndexError):
            return
    else:
        holder[key] = r.choice(ODD_VALUES)(r)
