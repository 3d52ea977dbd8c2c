"""Copies of the best checkpoints, which the trainer cannot delete: `kept/<digest>/<name>`."""

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from ckptsel.watching.arrivals import State, folder_of, state_of

KEPT_NAME = "kept"
N_DIGITS = 16
"""Of the digest, in the name of a folder."""

OWN = re.compile(rf"\.?[0-9a-f]{{{N_DIGITS}}}(\.tmp)?")
"""Names that are made here; nothing else is ever removed."""


def keep(folder: Path, wanted: Mapping[str, tuple[Path, State] | None]) -> list[str]:
    """Make a folder hold copies of these checkpoints and no others; what went wrong, a sentence each.

    wanted: path and state by digest; None where no file is left, and an earlier copy is all there is.
    """
    problems = _remove_others(folder, [digest[:N_DIGITS] for digest in wanted])
    for digest, source in wanted.items():
        if source is not None and kept_path(folder, digest) is None:
            try:
                _copy(folder / digest[:N_DIGITS], *source)
            except OSError as error:
                problems.append(f"{source[0]} could not be kept: {error.strerror or error}")
    return problems


def kept_path(folder: Path, digest: str) -> Path | None:
    """Where the copy of a checkpoint lies."""
    place = folder / digest[:N_DIGITS]
    return next(iter(sorted(place.iterdir())), None) if place.is_dir() else None


def _remove_others(folder: Path, names: Collection[str]) -> list[str]:
    problems = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if OWN.fullmatch(path.name) and path.name not in names:
            try:
                shutil.rmtree(path)
            except OSError as error:
                problems.append(f"{path} could not be removed: {error.strerror or error}")
    return problems


def _copy(place: Path, path: Path, state: State) -> None:
    """Raises OSError; what is copied is then gone again."""
    temporary = place.with_name(f".{place.name}.tmp")
    folder, target = folder_of(path), temporary / path.name if path.is_dir() else temporary
    try:
        for name, _, _ in state:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, target / name)
        if not set(state) <= set(state_of(path)):
            raise OSError("it changed after it was ranked")
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
