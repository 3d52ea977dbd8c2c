"""Classes of several parts of the data, matched by their names and not by their numbers."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import DataError, listed
from ckptsel.target.images import ImageSet

Names = tuple[str, ...]


def match_classes(splits: Sequence[ImageSet], data: str) -> tuple[list[ImageSet], tuple[str, ...]]:
    """The splits with one list of class names, that of the first and then what others have besides;
    and what a reader should know of it.

    Numbers in place of names, where a file holds none, are taken in the order of the others' names;
    where the others are called by those numbers too, in whatever order, by name.
    Raises DataError where a name stands for two classes.
    """
    known = next((images for images in splits if not are_numbers(images.class_names)), None)
    matched: list[ImageSet] = []
    notes: list[str] = []
    for images in splits:
        if known is not None and _are_places(images.class_names, known.class_names):
            names = known.class_names
            images = dataclasses.replace(images, class_names=names)
            notes.append(
                f"split {images.split} of {data} calls its classes by numbers: they were taken as "
                f"places in the order of split {known.split} ({listed(names, 4)})"
            )
        matched.append(images)
    common = common_names([images.class_names for images in matched], data)
    return [_renamed(images, common) for images in matched], tuple(notes)


def are_numbers(names: Names) -> bool:
    """Whether classes are called 0, 1, 2, ..., as where no names are known."""
    return names == tuple(str(i) for i in range(len(names)))


def _are_places(names: Names, known: Names) -> bool:
    """Whether names are numbers that stand for the places of the known ones."""
    return are_numbers(names) and len(names) <= len(known) and not set(names) <= set(known)


def common_names(parts: Sequence[Names], where: str) -> Names:
    """All names, in the order of the first part, then of the others. Raises DataError for a name that
    one part has twice, unless all parts are the same."""
    if all(names == parts[0] for names in parts):
        return parts[0]
    for names in parts:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"the parts of {where} name their classes differently, and {listed(twice)} stands for "
                "two classes in one of them: they cannot be matched by name. Name the classes apart."
            )
    return tuple(dict.fromkeys(name for names in parts for name in names))


def renumber(labels: NDArray[np.int64], names: Names, common: Names) -> NDArray[np.int64]:
    """Labels (N,), numbers in `names`, as numbers in `common`, which holds those names."""
    if names == common[: len(names)]:
        return labels
    place = {name: i for i, name in enumerate(common)}
    return np.array([place[name] for name in names], dtype=np.int64)[labels]


def _renamed(images: ImageSet, common: Names) -> ImageSet:
    if images.class_names == common:
        return images
    labels = renumber(images.labels, images.class_names, common)
    return dataclasses.replace(images, labels=labels, class_names=common)
