"""Which column of a table holds the images and which the labels."""

from collections.abc import Sequence
from pathlib import Path

from ckptsel.errors import DataError, did_you_mean, listed

IMAGE_COLUMNS = (
    *("image", "img", "path", "file", "file_name", "filename", "image_path", "img_path"),
    *("image_name", "filepath", "file_path"),
)
LABEL_COLUMNS = (
    *("label", "fine_label", "labels", "class", "target"),
    *("class_name", "label_name", "category"),
)
"""Usual names, whether large letters or small."""

MOST_COMPARED = 1000
"""Columns that a wrong name is compared with."""


def choose_column(
    where: str | Path, columns: Sequence[str], asked: str | None, usual: Sequence[str], role: str
) -> str:
    """The column that was asked for, else the first of the usual ones that is there.

    role: `image` or `label`. Raises DataError where there is none, naming those that are there.
    """
    if asked is not None:
        if asked in columns:
            return asked
        raise DataError(
            f"{where} has no column {asked!r}; it has {listed(columns)}."
            + did_you_mean(asked, columns[:MOST_COMPARED])
        )
    found = usual_column(columns, usual)
    if found is None:
        raise DataError(
            f"{where} has no {role} column that ckptsel knows; it has {listed(columns) or 'none'}. "
            f"Name it with --{role}-column."
        )
    return found


def usual_column(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    small = {name.lower(): name for name in reversed(columns)}
    return next(
        (
            name if name in columns else small[name.lower()]
            for name in usual
            if name.lower() in small
        ),
        None,
    )
