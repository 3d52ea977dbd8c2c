"""Sizes and ages as people write them: 5GiB, 30d."""

import re

SIZE_PATTERN = r"^\d+(\.\d+)?\s*([kKMGT]i?)?B$"
AGE_PATTERN = r"^\d+(\.\d+)?\s*(s|m|min|h|d|w)$"

BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "kiB": 2**10,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def bytes_of(size: str) -> int:
    """Bytes of a size that fits SIZE_PATTERN."""
    return int(_times(size, BYTES))


def seconds_of(age: str) -> float:
    """Seconds of an age that fits AGE_PATTERN."""
    return _times(age, SECONDS)


def size_text(n_bytes: int) -> str:
    """'1.5 GB', in powers of 1,000 as disks are sold."""
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.95:
            break
        size, unit = size / 1000, larger
    return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


def _times(text: str, units: dict[str, int]) -> float:
    number, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", text.strip()).groups()  # type: ignore[union-attr]
    return float(number) * units[unit]
