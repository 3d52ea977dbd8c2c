"""How people lay images out in folders: names of splits, suffixes of pictures, files left out."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of split folders, files or values in a column, and the split that each stands for."""

PICTURE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".sgi", ".rgb"),
        *(".jp2", ".j2k", ".j2c", ".ico", ".avif", ".qoi"),
    )
)
"""Not all that Pillow registers: documents, films and tables (.pdf, .mpg, .h5) are among those."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Of lists of images and labels."""

NOT_OURS = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
"""What systems leave in folders, besides names that begin with a dot: archives' forks, thumbnails."""


def list_files(root: Path) -> list[str]:
    """All files below a folder that count, relative to it, in order. Hidden ones are left out, and so
    is what is no file (pipes); links to folders are followed where a split or a class may be."""
    return sorted(_walk(str(root), ""), key=lambda name: name.split("/"))


def is_picture(name: str) -> bool:
    return suffix_of(name) in PICTURE_SUFFIXES


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million of them


def counts_of_suffixes(names: Sequence[str]) -> str:
    """For messages: '.txt 30, .heic 4'."""
    counts: dict[str, int] = {}
    for name in names:
        suffix = suffix_of(name) or "no suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    most = sorted(counts, key=lambda suffix: -counts[suffix])
    return ", ".join(f"{suffix} {counts[suffix]}" for suffix in most[:5])


def split_of_file(name: str) -> str:
    """The split that a file of many images belongs to, by its name, else by its folders; else train.

    name: relative to what was given as data.
    """
    for part in reversed(Path(name).parts):
        for word in re.findall(r"[a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return "train"


def _walk(folder: str, before: str) -> Iterator[str]:
    """before: the folder relative to the root, with a slash at its end."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # may not be read, or is gone
        return
    may_be_link = before == "" or before[:-1].lower() in SPLIT_NAMES
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name in NOT_OURS:
            continue
        if entry.is_dir(follow_symlinks=may_be_link):
            yield from _walk(entry.path, f"{before}{name}/")
        elif entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
            yield before + name
