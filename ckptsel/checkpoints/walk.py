"""Which files below a folder could be checkpoints."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.formats import HUGGING_FACE_FILES, is_inside
from ckptsel.errors import InputError

SUFFIXES = (".pth.tar", ".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar", ".npz")

SKIPPED = re.compile(
    r"(recovery-|tmp|\.|optimizer|scheduler|scaler|rng_state|random_states|training_args"
    r"|training_state)",
    re.IGNORECASE,
)
"""Names of files that lie beside checkpoints and are none; timm's recovery files repeat others."""


def find_checkpoint_files(root: Path) -> list[Path]:
    """Files, and Hugging Face `checkpoint-N/` folders, that hold weights, in natural order.

    Folders that are links are not followed; those that lead out of `root` are listed, and cannot be
    read. Raises InputError where there is no such folder, or nothing in it
    that could be a checkpoint.
    """
    if not root.exists():
        raise InputError(f"no such file or folder: {root}. Give the folder of your checkpoints.")
    found = [root] if not root.is_dir() else sorted(_walk(root), key=lambda p: natural_key(str(p)))
    if not found:
        raise InputError(
            f"no checkpoints below {root}: looked for files ending in {', '.join(SUFFIXES)} and "
            "for Hugging Face checkpoint-N/ folders. Give the folder that your training wrote to."
        )
    return found


def natural_key(name: str) -> list[tuple[int, Any]]:
    """Sort key in which numbers count as numbers: checkpoint-9 comes before checkpoint-10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, _number(part)) if part.isdecimal() else (1, part) for part in parts]


def short_name(root: Path, path: Path) -> str:
    """A file's path below `root` without its suffix, as text that every file format can hold."""
    name = path.absolute().name if path == root else path.relative_to(root).as_posix()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return as_text(name if path.is_dir() else name.removesuffix(suffix))


def as_text(name: str) -> str:
    """A file's name, with bytes that are no UTF-8 written as `\\udcNN`: names are keys of files that
    take Unicode alone."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder; 0 where it cannot be told."""
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def total_size(paths: Sequence[Path]) -> int:
    """Bytes of several."""
    return sum(map(size_of, paths))


def _number(digits: str) -> int:
    """Python refuses to read numbers of thousands of digits; no epoch has so many."""
    return int(digits) if len(digits) < 1000 else 0


def _walk(root: Path) -> Iterator[Path]:
    folders = [root]
    while folders:
        folder = folders.pop()
        is_hugging_face = any((folder / name).is_file() for name in HUGGING_FACE_FILES)
        if is_hugging_face:
            yield folder  # of its files; the Trainer's checkpoint-N/ may lie below its final model
        for entry in _entries(folder):
            if SKIPPED.match(entry.name):
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif _is_folder(entry):
                if not is_inside(path, root):
                    yield path  # to be said; a link to a folder inside is found where that lies
            elif entry.name.endswith(SUFFIXES) and not is_hugging_face:
                yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """None of a folder that may not be listed, or lies too deep for the system."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder; False for one in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False
