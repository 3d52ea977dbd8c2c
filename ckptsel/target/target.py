"""The target: the labelled images that a checkpoint is wanted for, and how scores see them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.errors import DataError, UsageError, listed
from ckptsel.target.images import ImageSet, Source, digest_of
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


@dataclass(frozen=True)
class Target:
    """Image sets to extract, in order (training first), their labels as one sequence, and the plan.

    labels: (N,) int64 in 0 .. n_classes - 1, renumbered so that every class has images.
    """

    spec: str
    kind: str
    image_sets: tuple[ImageSet, ...]
    labels: NDArray[np.int64]
    objective: Classes
    evaluation: Evaluation

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.objective.names

    @property
    def n_classes(self) -> int:
        return self.objective.n_outputs

    def describe(self) -> dict[str, Any]:
        """What the ranking records about its data."""
        return {
            "data": self.spec,
            "kind": self.kind,
            "splits": [images.split for images in self.image_sets],
            "n_classes": self.n_classes,
            "class_names": list(self.class_names),
            "evaluation": self.evaluation.describe(),
            "fingerprint": digest_of(*(images.fingerprint for images in self.image_sets)),
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
) -> Target:
    """Open the images and decide what is fitted on and what is evaluated.

    Evaluated is `eval_split` where it is named, else the validation split where there is one, else
    the training images: by cross-validation, or by holding out a part (`holdout`, or a fifth of
    them where they are many). The test split is read only where it is named.
    Raises DataError where images, classes or splits are missing.
    """
    source = open_source(data, data_root, image_column, label_column)
    splits = source.splits()
    train = _read_split(source, train_split, splits, data)
    if max_train_samples is not None:
        train = train.subset(stratified_sample(train.labels, max_train_samples, (seed, 1)))
    if eval_split is None and holdout is None and "validation" in splits:
        eval_split = "validation"
    image_sets: tuple[ImageSet, ...] = (train,)
    if eval_split is not None:
        if eval_split == train_split:
            raise UsageError(
                f"--eval-split {eval_split} is the training split: leave it out to cross-validate."
            )
        held = _read_split(source, eval_split, splits, data)
        if max_eval_samples is not None:
            held = held.subset(stratified_sample(held.labels, max_eval_samples, (seed, 2)))
        image_sets = (train, held)
    _check_classes(image_sets, data)
    given = np.concatenate([images.labels for images in image_sets])
    objective, labels = Classes.of(given, train.class_names)
    return Target(
        spec=data,
        kind=source.kind,
        image_sets=image_sets,
        labels=labels,
        objective=objective,
        evaluation=_plan(data, labels, objective, len(train), eval_split, holdout, seed),
    )


def _plan(
    data: str,
    labels: NDArray[np.int64],
    objective: Classes,
    n_train: int,
    eval_split: str | None,
    holdout: float | None,
    seed: int,
) -> Evaluation:
    """What is fitted on and what is evaluated, of the first n_train images and those after them."""
    strata = objective.strata(labels)
    if eval_split is not None:
        return plan_validation(n_train, len(labels) - n_train, f"{eval_split} split")
    if holdout is None and n_train <= HOLDOUT_ABOVE:
        return plan_cross_validation(strata, seed)
    evaluation = plan_holdout(strata, holdout or 0.2, seed)
    _check_every_class_held(labels, evaluation, objective.names, data)
    return evaluation


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


def _check_classes(image_sets: tuple[ImageSet, ...], data: str) -> None:
    train = image_sets[0]
    names = max((images.class_names for images in image_sets), key=len)
    in_train = set(np.unique(train.labels).tolist())
    if len(in_train) < 2:
        only = names[next(iter(in_train))]
        raise DataError(
            f"split {train.split} of {data} has one class only ({only!r}): there is nothing to tell "
            "apart. An image folder needs one sub-folder for each of two or more classes."
        )
    for held in image_sets[1:]:
        in_held = set(np.unique(held.labels).tolist())
        for missing, has, lacks in (
            (in_train - in_held, train.split, held.split),
            (in_held - in_train, held.split, train.split),
        ):
            if missing:
                absent = listed(sorted(names[i] for i in missing))
                raise DataError(
                    f"{len(missing)} classes of {data} have images in {has} but none in {lacks}: "
                    f"{absent}. Both splits need all classes; "
                    "add images, or remove the class, or cross-validate with one split."
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
