"""The target: the labelled images that a checkpoint is wanted for, and how scores see them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.common.cache import CacheFolder
from ckptsel.errors import DataError, UsageError, listed
from ckptsel.target.classes import match_classes
from ckptsel.target.duplicates import Duplicates
from ckptsel.target.images import ImageSet, Source, digest_of
from ckptsel.target.layout import TABLE_SUFFIXES, suffix_of
from ckptsel.target.objective import Classes
from ckptsel.target.sources import open_source
from ckptsel.target.splits import (
    HOLDOUT_ABOVE,
    Evaluation,
    plan_cross_validation,
    plan_holdout,
    plan_validation,
    stratified_sample,
)

MIN_LEFT = 5
"""Held-out images that must be left once those are out that are fitted on as well."""

N_EXAMPLES = 3


@dataclass(frozen=True)
class Division:
    """What was asked of the division into fitted and held-out images; None leaves it to the data."""

    eval_split: str | None
    holdout: float | None
    seed: int


@dataclass(frozen=True)
class Target:
    """Image sets to extract, in order (training first), their labels as one sequence, and the plan.

    labels: (N,) int64 in 0 .. n_classes - 1, renumbered so that every class has images.
    notes: what a reader of the ranking should know of the data.
    duplicates: images that are left out; None where none were looked for.
    """

    spec: str
    kind: str
    image_sets: tuple[ImageSet, ...]
    labels: NDArray[np.int64]
    objective: Classes
    division: Division
    evaluation: Evaluation
    notes: tuple[str, ...] = ()
    duplicates: Duplicates | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.objective.names

    @property
    def n_classes(self) -> int:
        return self.objective.n_outputs

    def locate(self, index: int) -> str:
        """Where an image lies, by its place in the whole sequence."""
        for images in self.image_sets:
            if index < len(images):
                return images.locate(index)
            index -= len(images)
        raise IndexError(index)

    def without(self, duplicates: Duplicates) -> "Target":
        """The same target, planned anew without the images that an earlier one stands for.

        Of cross-validated or drawn images all but one are left out, not put into one fold: a copy is
        no further evidence, and intervals count images as independent.
        Raises DataError where too few are left.
        """
        kept = np.setdiff1d(np.arange(len(self.labels)), duplicates.left_out)
        target = dataclasses.replace(self, duplicates=duplicates)
        if len(duplicates):
            _check_left(target, kept)
            n_train = int((kept < len(self.image_sets[0])).sum())
            plan = _plan(self.spec, self.labels[kept], self.objective, n_train, self.division)
            target = dataclasses.replace(target, evaluation=plan.at(kept))
        return target

    def readable(self, unreadable: Sequence[NDArray[np.int64]]) -> "Target":
        """The same target as if the files of some images were not there, which is noted.

        unreadable: of each image set, the indices of what cannot be read. Raises DataError where what is
        left is no target.
        """
        if not any(map(len, unreadable)):
            return self
        pairs = list(zip(self.image_sets, unreadable, strict=True))
        notes = tuple(_skipped(images, indices) for images, indices in pairs if len(indices))
        kept = tuple(
            images.subset(np.setdiff1d(np.arange(len(images)), indices))
            for images, indices in pairs
        )
        try:
            return _make(self.spec, self.kind, kept, self.division, self.notes + notes)
        except DataError as error:
            raise DataError(*(f"{note}." for note in notes), *error.lines) from error

    def describe(self) -> dict[str, Any]:
        """What the ranking records about its data."""
        counts = np.bincount(self.labels[self.evaluation.evaluated], minlength=self.n_classes)
        largest = int(counts.argmax())
        return {
            "data": self.spec,
            "kind": self.kind,
            "splits": [images.split for images in self.image_sets],
            "n_classes": self.n_classes,
            "class_names": list(self.class_names),
            "largest_class": {
                "name": self.class_names[largest],
                "share": float(counts[largest] / counts.sum()),
            },
            "evaluation": self.evaluation.describe(),
            "duplicates": self._describe_duplicates(),
            "fingerprint": digest_of(*(images.fingerprint for images in self.image_sets)),
        }

    def _describe_duplicates(self) -> dict[str, Any] | None:
        found = self.duplicates
        if found is None:
            return None
        pairs = list(zip(found.left_out.tolist(), found.originals.tolist(), strict=True))
        other_class = self.labels[found.left_out] != self.labels[found.originals]
        return {
            "n": len(found),
            "n_of": len(self.image_sets[-1]),
            "n_exact": int(found.exact.sum()),
            "n_other_class": int(other_class.sum()),
            "examples": [[self.locate(i) for i in pair] for pair in pairs[:N_EXAMPLES]],
        }


def load_target(
    data: str,
    data_root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str = "train",
    eval_split: str | None = None,
    holdout: float | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 0,
    cache: CacheFolder | None = None,
) -> Target:
    """Open the images and decide what is fitted on and what is evaluated.

    Evaluated is `eval_split` where it is named, else the validation split where there is one, else
    the training images: by cross-validation, or by holding out a part (`holdout`, or a fifth of
    them where they are many). The test split is read only where it is named. cache: of `ImageSet`.
    Raises DataError where images, classes or splits are missing.
    """
    source = open_source(data, data_root, image_column, label_column)
    splits = source.splits()
    if eval_split is None and holdout is None and "validation" in splits:
        eval_split = "validation"
    if eval_split == train_split:
        raise UsageError(
            f"--eval-split {eval_split} is the training split: leave it out to cross-validate."
        )
    read = [_read_split(source, train_split, splits, data)]
    if eval_split is not None:
        read.append(_read_split(source, eval_split, splits, data))
    if cache is not None:
        read = [dataclasses.replace(images, cache=cache) for images in read]
    said = tuple(dict.fromkeys(note for images in read for note in images.notes))
    read, notes = match_classes(read, data)
    sizes = (max_train_samples, max_eval_samples)
    image_sets = tuple(
        images.subset(stratified_sample(images.labels, size, (seed, 1 + i))) if size else images
        for i, (images, size) in enumerate(zip(read, sizes, strict=False))
    )
    return _make(data, source.kind, image_sets, Division(eval_split, holdout, seed), said + notes)


def _make(
    data: str,
    kind: str,
    image_sets: tuple[ImageSet, ...],
    division: Division,
    notes: tuple[str, ...],
) -> Target:
    """The target of image sets whose classes are matched. Raises DataError where classes are missing."""
    _check_classes(image_sets, data)
    given = np.concatenate([images.labels for images in image_sets])
    objective, labels = Classes.of(given, image_sets[0].class_names)
    return Target(
        spec=data,
        kind=kind,
        image_sets=image_sets,
        labels=labels,
        objective=objective,
        division=division,
        evaluation=_plan(data, labels, objective, len(image_sets[0]), division),
        notes=notes,
    )


def _plan(
    data: str, labels: NDArray[np.int64], objective: Classes, n_train: int, division: Division
) -> Evaluation:
    """What is fitted on and what is evaluated, of the first n_train images and those after them."""
    strata = objective.strata(labels)
    if division.eval_split is not None:
        return plan_validation(n_train, len(labels) - n_train, f"{division.eval_split} split")
    if division.holdout is None and n_train <= HOLDOUT_ABOVE:
        return plan_cross_validation(strata, division.seed)
    evaluation = plan_holdout(strata, division.holdout or 0.2, division.seed)
    _check_every_class_held(labels, evaluation, objective.names, data)
    return evaluation


def _check_left(target: Target, kept: NDArray[np.int64]) -> None:
    """Raises DataError where the images that are left, `kept`, are too few to tell anything."""
    found = target._describe_duplicates() or {}
    example = " is ".join(found["examples"][0])
    how = f"({found['n_exact']} exactly, for example {example})"
    train, held = target.image_sets[0], target.image_sets[-1]
    if held is not train:
        n_left = int((kept >= len(train)).sum())
        if n_left < MIN_LEFT:
            raise DataError(
                f"the images of split {held.split} of {target.spec} are those of split {train.split}: "
                f"{found['n']} of {len(held)} are the same {how}, and {n_left} are left. Accuracy on "
                "images that were fitted on tells nothing. Give others, or remove the split to "
                "cross-validate; --duplicates says what counts as the same."
            )
        return
    counts = np.bincount(target.labels[kept], minlength=target.n_classes)
    if (counts < 2).any():
        few = listed([target.class_names[i] for i in np.flatnonzero(counts < 2)])
        raise DataError(
            f"{found['n']} of {len(train)} images of {target.spec} are the same as others {how}. "
            "Without them these classes have fewer than two images, one to fit on and one to hold out: "
            f"{few}. Add images or remove these classes; --duplicates says what counts as the same."
        )


def _skipped(images: ImageSet, indices: NDArray[np.int64]) -> str:
    """What is said of images that are left out since they cannot be read."""
    counts = np.bincount(images.labels[indices], minlength=len(images.class_names))
    by_class = [f"{counts[c]} of class {images.class_names[c]}" for c in np.flatnonzero(counts)]
    return (
        f"{len(indices)} of {len(images)} images of split {images.split} cannot be read and were "
        f"skipped: {listed(by_class)}; for example {images.locate(int(indices[0]))}"
    )


def _read_split(source: Source, split: str, splits: list[str], data: str) -> ImageSet:
    if split not in splits:
        raise DataError(
            f"{data} has no split {split!r}; it has {', '.join(splits)}. "
            "Choose with --train-split and --eval-split."
        )
    images = source.read(split)
    if len(images) == 0:
        raise DataError(f"split {split} of {data} holds no images.")
    return images


def _lists_in(data: str) -> str:
    """A sentence that names the lists of images which lie in a folder; "" where there are none."""
    folder = Path(data)
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    found = sorted(name for name in names if suffix_of(name) in TABLE_SUFFIXES)
    if not found:
        return ""
    return (
        f" Lists lie in it ({listed(found)}): give one of them, as in --data {folder / found[0]}."
    )


def _check_classes(image_sets: tuple[ImageSet, ...], data: str) -> None:
    """Raises DataError where a class cannot be both fitted on and held out."""
    for images in image_sets:
        if len(images) == 0:
            raise DataError(f"split {images.split} of {data} has no image that is left.")
    train, names = image_sets[0], image_sets[0].class_names
    in_train = set(np.unique(train.labels).tolist())
    if len(in_train) < 2:
        only = names[next(iter(in_train))]
        raise DataError(
            f"split {train.split} of {data} has one class only ({only!r}): there is nothing to tell "
            "apart. An image folder needs one sub-folder for each of two or more classes."
            + _lists_in(data)
        )
    for held in image_sets[1:]:
        in_held = set(np.unique(held.labels).tolist())
        sentences = [
            f"{len(missing)} classes of {data} have images in {has} but none in {lacks}: "
            f"{listed(sorted(names[i] for i in missing))}."
            for missing, has, lacks in (
                (in_train - in_held, train.split, held.split),
                (in_held - in_train, held.split, train.split),
            )
            if missing
        ]
        if sentences:
            raise DataError(
                " ".join(sentences)
                + " Both splits need all classes, by the same names; add images, "
                "or remove the class, or cross-validate with one split."
            )
    if len(image_sets) == 1:
        classes, counts = np.unique(train.labels, return_counts=True)
        single = [names[c] for c in classes[counts < 2]]
        if single:
            raise DataError(
                f"{len(single)} classes of {data} have a single image, which cannot be both fitted "
                f"on and held out: {listed(single)}. Add images or remove these classes."
            )


def _check_every_class_held(
    labels: NDArray[np.int64],
    evaluation: Evaluation,
    names: tuple[str, ...],
    data: str,
) -> None:
    missing = np.setdiff1d(labels, labels[evaluation.fit_part])
    if len(missing):
        absent = listed([names[i] for i in missing])
        raise DataError(
            f"the hold-out leaves no training image for {len(missing)} classes of {data}: {absent}. "
            "Hold out less with --holdout, or leave it out to cross-validate."
        )
