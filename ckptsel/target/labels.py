"""Labels as people write them: whole numbers from 0, or words; and what is neither."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import DataError

Labels = NDArray[np.int64]
Names = tuple[str, ...]

MOST_NUMBERED = 1_000_000
"""Numbers from here on are no numbering of classes, but names of some, such as 20240131."""

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")

HOW = (
    "A label is the name of a class (cat) or its number (0, 1, 2, ...). Remove rows without one (often "
    "-1); numbers to be foretold, such as 0.5, are no classes."
)


def encode_labels(values: Sequence[Any], place: Callable[[int], str]) -> tuple[Labels, Names]:
    """Labels (N,) as numbers of classes, and the names of these.

    Numbers stay as they are, and are their own names; words are numbered in the order of the alphabet.
    place: where the value with that index lies, for messages. Raises DataError for what is no class,
    and where some are numbers and some are words.
    """
    first = _first_places(values, place)
    read = {value: _number_or_word(value, i, place) for value, i in first.items()}
    numbers = [value for value, label in read.items() if isinstance(label, int)]
    words = [value for value, label in read.items() if isinstance(label, str)]
    if numbers and words:
        raise DataError(
            f"some labels are numbers and some are words: {_shown(numbers[0])} in "
            f"{place(first[numbers[0]])}, {_shown(words[0])} in {place(first[words[0]])}. Name every "
            "class by a word, or number them all."
        )
    known: list[Any] = sorted(set(read.values()))
    if words or known[-1:] >= [MOST_NUMBERED]:
        number = {label: i for i, label in enumerate(known)}
        names = tuple(str(label) for label in known)
    else:
        number = {label: label for label in known}
        names = numbered(known[-1] + 1 if known else 0)
    of = {value: number[label] for value, label in read.items()}
    return np.fromiter((of[value] for value in values), np.int64, len(values)), names


def whole_numbers(values: Sequence[Any], where: str) -> Labels:
    """Labels as int64. Raises DataError where one is not a whole number from 0."""
    labels = np.empty(len(values), dtype=np.int64)
    for i, value in enumerate(values):
        try:
            labels[i] = int(value)
            whole = float(value) == labels[i] and 0 <= labels[i] < MOST_NUMBERED
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise DataError(
                f"label {_shown(value)} in {where} (row {i}) is not a whole number from 0. Number the "
                "classes 0, 1, 2, ..., or sort the images into one folder a class."
            )
    return labels


def numbered(n_classes: int) -> Names:
    """Names of classes that have none: 0, 1, 2, ..."""
    return tuple(str(i) for i in range(n_classes))


def names_or_numbers(names: Names, labels: Labels) -> Names:
    """The names of the classes, or 0, 1, 2, ... where there are fewer than labels ask for."""
    n_classes = int(labels.max(initial=-1)) + 1
    return names if len(names) >= n_classes else numbered(n_classes)


def _first_places(values: Sequence[Any], place: Callable[[int], str]) -> dict[Any, int]:
    """The values that there are, each with the first index that it has."""
    first: dict[Any, int] = {}
    for i, value in enumerate(values):
        try:
            first.setdefault(value, i)
        except TypeError as error:  # a list or an object of JSON
            raise DataError(
                f"label {_shown(value)} in {place(i)} is not one class. ckptsel ranks on one class an "
                "image: give one."
            ) from error
    return first


def _number_or_word(value: Any, row: int, place: Callable[[int], str]) -> int | str:
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "" or (isinstance(text, float) and math.isnan(text)):
        raise DataError(f"there is no label in {place(row)} ({value!r}). {HOW}")
    if isinstance(text, str) and not NUMBER.fullmatch(text):
        return text
    try:
        number = int(float(text)) if isinstance(text, float) or "." in str(text) else int(text)
        is_class = number >= 0 and float(text) == number
    except (TypeError, ValueError, OverflowError):
        is_class = False
    if not is_class:
        raise DataError(
            f"label {_shown(value)} in {place(row)} is not a whole number from 0, nor a word. {HOW}"
        )
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
