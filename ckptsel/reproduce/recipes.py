"""Recipes: frozen descriptions of the paper's experiments, one module each."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contrastive:
    """Pre-training without labels, as SimCLR (arXiv 2002.05709): the part that is not the network.

    temperature: of the loss.
    hidden, width: of the projection head's two layers.
    """

    temperature: float = 0.5
    hidden: int = 512
    width: int = 128


@dataclass(frozen=True)
class Pretraining:
    """How the checkpoints of a trajectory are made: SGD with momentum, one learning rate an epoch.

    model: timm name.
    data: folder below the data root.
    n_images: how many training images are used, None for all.
    batch_size: over all processes.
    augment: names of `ckptsel.training.loop.AUGMENTATIONS`.
    checkpoint_epochs: epochs whose checkpoints are analysed; the weights of the others are kept
    beside them.
    schedule: `step` multiplies the rate by `gamma` after each epoch of `milestones`, `cosine` lets
    it fall to zero.
    n_classes: classes of the source.
    image_size: pixels a side, None for the model's own.
    streamed: images are read from their files in every epoch, for data that does not fit into
    memory.
    weights_dtype: how matrices and convolutions are stored; vectors stay float32.
    contrastive: None learns the source's classes.
    """

    model: str
    data: str
    n_images: int | None
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    augment: tuple[str, ...]
    checkpoint_epochs: tuple[int, ...]
    momentum: float = 0.9
    schedule: str = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    n_classes: int = 10
    image_size: int | None = None
    streamed: bool = False
    weights_dtype: str = "float32"
    contrastive: Contrastive | None = None


@dataclass(frozen=True)
class RecipeTarget:
    """A target that the checkpoints are transferred to.

    name: of its results.
    data: what `--data` takes, below the data root.
    n_train, n_validation: images of two splits that are drawn from one without overlap; None takes the
    training images and the test images as they are.
    balanced: as many of each class are drawn, not classes in their proportions.
    drawn_from: the split that both are drawn from. inverted: as negatives: each value v is 255 - v.
    epochs: passes of FE and FT.
    preset: transfer settings of `ckptsel.confirmation.protocols.PRESETS`. Without either the
    defaults of `ckptsel confirm` hold.
    only_epochs: the checkpoints that are transferred, all by default.
    """

    name: str
    data: str
    n_train: int | None = None
    n_validation: int | None = None
    balanced: bool = False
    drawn_from: str = "train"
    inverted: bool = False
    epochs: float | None = None
    preset: str | None = None
    only_epochs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One experiment at one size.

    n_seeds: pre-training seeds.
    n_transfer_seeds: FE and FT runs of each checkpoint.
    goals: which of them are run.
    closer_targets: targets whose components are taken apart in all readings, before and after
    fine-tuning.
    scores: those of a ranking besides the ones that `rank` computes by default.
    layer_targets: targets on which components of every layer are read.
    after_epochs: the checkpoints whose features are looked at after fine-tuning; the first and the
    last of them stand for the paper's epochs 5 and 200.
    """

    name: str
    preset: str
    about: str
    pretraining: Pretraining
    targets: tuple[RecipeTarget, ...]
    n_seeds: int = 1
    n_transfer_seeds: int = 3
    goals: tuple[str, ...] = ("fe", "ft")
    closer_targets: tuple[str, ...] = ()
    layer_targets: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    after_epochs: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def early_dense_epochs(last: int) -> tuple[int, ...]:
    """1, 2, 3, 5, 7, 10, 15, 20, 30, then every tenth of the run, and the last.

    Features change most in the first epochs, and there the paper finds the best extractor.
    """
    early = [epoch for epoch in (1, 2, 3, 5, 7, 10, 15, 20, 30) if epoch < last]
    step = math.ceil(last / 6 / 10) * 10
    late = [epoch for epoch in range(step, last, step) if epoch > 30]
    return (*early, *late, last)
