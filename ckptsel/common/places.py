"""Places: paths of this machine, and addresses in object storage (`s3://bucket/run`).

What an address names is fetched by `ckptsel.common.remote`, which says here into which folders.
"""

import re
from pathlib import Path

URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
"""A path library makes one slash of two, so one is enough. A drive's letter is no protocol."""

mirrors: set[Path] = set()
"""Folders that this process has fetched into: what is said of files in them names the addresses."""


def is_url(place: str | Path) -> bool:
    """Whether a place is an address, and nothing on this machine."""
    return URL.fullmatch(str(place)) is not None and not Path(place).exists()


def place_text(place: str | Path) -> str:
    """A place as it is recorded: an address in its usual form, anything else as it is."""
    if not is_url(place):
        return str(place)
    protocol, rest = split_url(place)
    return f"{protocol}://{'/' if protocol == 'file' else ''}{rest}"


def as_urls(text: str) -> str:
    """A text in which files of mirrors are named by their addresses."""
    for folder in mirrors:
        text = re.sub(re.escape(f"{folder}/") + r"([a-z][a-z0-9+.-]+)/", _address, text)
    return text


def _address(found: re.Match[str]) -> str:
    return f"{found[1]}://{'/' if found[1] == 'file' else ''}"


def split_url(url: str | Path) -> tuple[str, str]:
    """(protocol, the rest without slashes around it) of what `is_url`."""
    found = URL.fullmatch(str(url))
    assert found is not None
    return found[1], found[2].strip("/")
