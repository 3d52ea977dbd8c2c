"""Recipes: frozen descriptions of the paper's experiments, one module each, and their registry."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ckptsel.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Pretraining:
    """How the checkpoints of a trajectory are made: SGD with a step schedule.

    model: timm name. data: folder below the data root. n_images: how many training images are
    used, None for all. milestones: epochs after which the rate is multiplied by `gamma`.
    augment: names of `ckptsel.training.AUGMENTATIONS`. checkpoint_epochs: epochs whose weights
    are kept. weights_dtype: how matrices and convolutions are stored; vectors stay float32.
    """

    model: str
    data: str
    n_images: int | None
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float
    augment: tuple[str, ...]
    checkpoint_epochs: tuple[int, ...]
    weights_dtype: str = "float32"

    def learning_rate(self, epoch: int) -> float:
        """The rate during `epoch`, counted from 1."""
        n_steps = sum(epoch > milestone for milestone in self.milestones)
        return self.lr * self.gamma**n_steps


@dataclass(frozen=True)
class TargetSample:
    """A target drawn from a data set's training split: the same number of images from each class.

    n_train, n_validation: images in each split; both are drawn without overlap.
    """

    data: str
    n_train: int
    n_validation: int


@dataclass(frozen=True)
class Recipe:
    """One experiment at one size."""

    name: str
    preset: str
    about: str
    pretraining: Pretraining
    target: TargetSample

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def list_recipes() -> list[Recipe]:
    """All recipes at all sizes."""
    from ckptsel.reproduce import cifar10_mnist

    return [*cifar10_mnist.PRESETS]


def find_recipe(name: str, preset: str) -> Recipe:
    """The recipe of that name and preset. Raises UsageError naming the known ones."""
    recipes = list_recipes()
    names = sorted({recipe.name for recipe in recipes})
    if name not in names:
        raise UsageError(
            f"unknown recipe {name!r}. Known: {', '.join(names)}." + did_you_mean(name, names)
        )
    presets = {recipe.preset: recipe for recipe in recipes if recipe.name == name}
    if preset not in presets:
        raise UsageError(
            f"recipe {name} has no preset {preset!r}. Known: {', '.join(presets)}."
            + did_you_mean(preset, presets)
        )
    return presets[preset]


def early_dense_epochs(last: int) -> tuple[int, ...]:
    """1, 2, 3, 5, 7, 10, 15, 20, 30, then every tenth of the run, and the last.

    Features change most in the first epochs, and there the paper finds the best extractor.
    """
    early = [epoch for epoch in (1, 2, 3, 5, 7, 10, 15, 20, 30) if epoch < last]
    step = math.ceil(last / 6 / 10) * 10
    late = [epoch for epoch in range(step, last, step) if epoch > 30]
    return (*early, *late, last)
