"""How files are, without reading them: what was learnt of a file counts while it is as it was.

A state is size, inode, and the times of the last write and of the last change of any kind. The
last one is the system's own: no program sets it back, as copying with times, `touch` and archives do
with the time of writing. The device is not in it: each machine that sees a shared folder has its own
number for it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ckptsel.common.environment import PACKAGES, package_version

SETTLED_NS = 2 * 10**9
"""Clocks of file systems tick slowly (FAT's every two seconds): a file that was changed so shortly ago
could be changed again within one tick, and would look the same."""


def state_of(path: str | Path) -> str | None:
    """The state of a file, links followed; None where nothing may be concluded from it: there is no
    file, or it was changed a moment ago."""
    try:
        about = os.stat(path)  # noqa: PTH116 - a million of them
    except (OSError, ValueError):
        return None
    if max(about.st_mtime_ns, about.st_ctime_ns) > time.time_ns() - SETTLED_NS:
        return None
    numbers = (about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns)
    return " ".join(map(str, numbers))


def states_of(paths: Iterable[str | Path]) -> str | None:
    """A line for each file: its state and its path; None where one has no state."""
    lines = []
    for path in paths:
        state = state_of(path)
        if state is None:
            return None
        lines.append(f"{state} {path}")
    return "\n".join(lines)


def known_by(states: str, *what: str) -> str:
    """The key of what was learnt of files in these states. what: what it depends on besides, this
    package's own code left aside."""
    return hashlib.sha256(json.dumps([program_state(), states, *what]).encode()).hexdigest()


@cache
def program_state() -> str:
    """The same while this package, and those that numbers depend on, are the same."""
    folder = Path(__file__).parent.parent
    own = [
        f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}"
        for path in sorted(folder.rglob("*.py"))
        if (about := path.stat())
    ]
    return "\n".join([*own, *(f"{name} {package_version(name)}" for name in PACKAGES)])
