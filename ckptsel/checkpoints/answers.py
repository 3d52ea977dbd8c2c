"""What guarded processes said of files, kept while the files are as they were.

Kept is what a file holds, or that it is no checkpoint. A problem is not: it may be the machine's.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.guard import Limits
from ckptsel.checkpoints.parts import RANK
from ckptsel.common.cache import CacheFolder
from ckptsel.common.states import known_by, states_of

KIND = "inspections"


class Answers:
    """Answers about paths below a folder, by path. weights, limits: as for `inspect_all`."""

    def __init__(
        self,
        paths: Sequence[Path],
        root: Path,
        weights: str,
        limits: Limits,
        cache: CacheFolder | None,
    ) -> None:
        self._cache = cache or CacheFolder(None)
        # Before a file is read: what changes meanwhile has another state than that which is kept.
        self._keys = {path: _key_of(path, root, weights, repr(limits)) for path in paths}
        self.known = {path: answer for path in paths if (answer := self._find(path)) is not None}

    def keep(self, path: Path, answer: dict[str, Any]) -> None:
        """If it is one that may be kept."""
        key = self._keys[path]
        if key is not None and ("found" in answer or answer.get("is_other")):
            self._cache.write(KIND, key, json.dumps(answer).encode())

    def _find(self, path: Path) -> dict[str, Any] | None:
        key = self._keys[path]
        data = None if key is None else self._cache.recall(KIND, key)
        answer: dict[str, Any] | None = None if data is None else json.loads(data)
        return answer


def _key_of(path: Path, root: Path, *options: str) -> str | None:
    """None where the state of the path is not all that an answer depends on."""
    if any(RANK.search(part.name) for part in (path, path.parent)):
        return None  # names of files beside it count
    try:
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else []
    except OSError:
        return None
    states = states_of([path, *files])
    if states is None:
        return None
    # Where links lead, out of the folder or not, and names, from which epochs come.
    places = [os.path.realpath(each) for each in (root, path, *files)]
    return known_by(states, *options, str(root.absolute()), *places)
