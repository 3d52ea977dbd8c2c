"""Which files below a folder could be checkpoints, and how many others there are."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.formats import folder_kind, is_inside, is_part
from ckptsel.checkpoints.kinds import READ, REFUSED, kind_of
from ckptsel.errors import InputError, listed

SURE_SUFFIXES = (".pth.tar", ".safetensors", ".ckpt", ".pyth", ".pth", ".pt", ".th")
"""Of files that are listed whatever they hold: one that cannot be read is worth a sentence."""

SUFFIXES = (
    *SURE_SUFFIXES,
    *(
        ".bin",
        ".tar",
        ".t7",
        ".torch",
        ".pkl",
        ".pickle",
        ".model",
        ".weights",
        ".npz",
        ".onnx",
        ".h5",
    ),
    *(".hdf5", ".keras", ".pdparams", ".msgpack", ".gguf", ".pb", ".tflite", ".index"),
)
"""Those that are taken off a name. A file whose suffix is not sure, or is not here at all, is listed if
its first bytes are those of weights."""

NOT_OPENED = {
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".log", ".json", ".jsonl", ".yaml", ".yml", ".toml"),
    *(".py", ".ipynb", ".sh", ".cfg", ".ini", ".xml", ".html", ".css", ".js", ".c", ".cpp", ".h"),
    *(".cu", ".so", ".pyc", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".svg", ".tif"),
    *(".tiff", ".pdf", ".mp4", ".avi", ".wav", ".mp3", ".npy", ".parquet", ".arrow", ".gz"),
}
"""Suffixes of files that are counted without a look inside: there can be millions."""

SKIPPED = re.compile(
    r"(recovery-|tmp|\.|optimizer|scheduler|scaler|rng_state|random_states|training_args"
    r"|training_state|custom_checkpoint|sampler|dl_state_dict|.*_optim_states\.pt$|.*\.distcp$)",
    re.IGNORECASE,
)
"""Names of files that lie beside checkpoints and are none; timm's recovery files repeat others."""

ARCHIVES = {".tar", ".gz", ".tgz", ".zip", ".xz", ".zst", ".7z", ".bz2"}

NOT_NEEDED = re.compile(
    r"(recovery-|optimizer|scheduler|scaler|rng_state|random_states|training_args"
    r"|.*_optim_states\.pt$)",
    re.IGNORECASE,
)
"""Names of files that are part of no checkpoint, as far as weights go: not fetched from elsewhere."""

NO_CHECKPOINTS = {"site-packages", "dist-packages", "node_modules", "__pycache__"}
"""Folders of installed programs, whose .pth files say where Python looks for modules."""

MAX_KINDS = 6


@dataclass
class Below:
    """What lies below a folder. paths: what could be checkpoints. others: how many files there are
    besides, by suffix."""

    paths: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def look_below(root: Path) -> Below:
    """Files, and folders that hold one checkpoint, below a folder, in natural order.

    Folders that are links are not followed; those that lead out of `root` are listed, and cannot be
    read. Raises InputError where there is no such folder.
    """
    if not root.exists():
        raise InputError(f"no such file or folder: {root}. Give the folder of your checkpoints.")
    if not root.is_dir():
        return Below([root])
    below = Below()
    for path, is_checkpoint in _walk(root):
        if is_checkpoint:
            below.paths.append(path)
        else:
            below.others[suffix_of(path)] += 1
    below.paths.sort(key=lambda path: natural_key(str(path)))
    return below


def find_checkpoint_files(root: Path) -> list[Path]:
    """What could be checkpoints below a folder. Raises InputError as `look_below`, and where there is
    nothing."""
    below = look_below(root)
    if not below.paths:
        raise nothing_below(root, below.others)
    return below.paths


def nothing_below(root: Path, others: Mapping[str, int]) -> InputError:
    """That no file is a checkpoint, with what was there."""
    there = f"{others_text(others)}, none with weights in it" if others else "it is empty"
    if not others and any(path.is_file() for path in root.rglob("*")):
        there = (
            "what is there is skipped (optimisers, random states, names with tmp or a dot in front)"
        )
    packed = ARCHIVES & set(others)
    unpack = " Where checkpoints are packed in an archive, unpack it." if packed else ""
    return InputError(
        f"no checkpoints below {root}: {there}.{unpack} Files are known by their first bytes, whatever "
        f"their suffix ({', '.join(SURE_SUFFIXES)} and others), and folders as Hugging Face's "
        "checkpoint-N/. Give the folder that your training wrote to."
    )


def others_text(others: Mapping[str, int]) -> str:
    """How many files are no checkpoints: '12 other files: 10 .txt, 2 .npz'."""
    total = sum(others.values())
    kinds = [f"{n} {kind}" for kind, n in Counter(others).most_common()]
    files = "file" if total == 1 else "files"
    return f"{total:,} other {files}: {listed(kinds, MAX_KINDS)}"


def suffix_of(path: Path) -> str:
    """As files are counted by it."""
    return as_text(path.suffix.lower()[:20]) or "without a suffix"


def is_sure(path: Path) -> bool:
    """Whether a path is listed whatever it holds."""
    return path.name.endswith(SURE_SUFFIXES) or not path.is_file()


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


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """(path, whether it could be a checkpoint) of everything that is not skipped."""
    folders = [root]
    while folders:
        folder = folders.pop()
        kind = folder_kind(folder)
        if kind is not None:
            yield folder, True  # the Trainer's checkpoint-N/ may lie below its final model
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if not SKIPPED.match(entry.name) and kind != "Orbax":
                    folders.append(path)
            elif _is_folder(entry):
                if not SKIPPED.match(entry.name) and not is_inside(path, root):
                    yield (
                        path,
                        True,
                    )  # to be said; a link to a folder inside is found where that lies
            elif not SKIPPED.match(entry.name) and not is_part(entry.name, kind):
                is_installed = not NO_CHECKPOINTS.isdisjoint(folder.relative_to(root).parts)
                yield path, not is_installed and _could_be(path, entry, root)


def _could_be(path: Path, entry: os.DirEntry[str], root: Path) -> bool:
    """By its suffix where that is sure, else by its first bytes; of a link that leads out of the folder
    not a byte is read."""
    name = entry.name.lower()
    if entry.name.endswith(SURE_SUFFIXES):
        return True
    if path.suffix.lower() in NOT_OPENED:
        return False
    try:
        if not entry.is_file() or not is_inside(path, root):
            return False
        kind = kind_of(path)
    except OSError:
        return False
    by_name = kind not in ("lfs", "html") or name.endswith(SUFFIXES)
    return kind in READ or (kind in REFUSED and by_name)


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
