"""Recipe `imagenet`: a ResNet-50 pre-trained on ImageNet, transferred to nine targets.

Paper: Deng et al., arXiv 2203.04668, Figures 2 and 5.
Command, on one machine with 8 GPUs:
`torchrun --nproc_per_node 8 -m ckptsel reproduce imagenet --preset paper --data-root DATA --out RUN`;
with one GPU: `ckptsel reproduce imagenet --preset paper --data-root DATA --out RUN`.
Data: `DATA/imagenet/train/<class>/*.JPEG` and `DATA/imagenet/val/<class>/*.JPEG` (the layout of the
PyTorch ImageNet example), and the targets (`docs/reproduce.md` says where to get and put them).

paper: ResNet-50, 90 epochs, batch 256, rate 0.1 divided by ten every 30 epochs, weight decay 1e-4 (the
    PyTorch ImageNet example), nine targets. GPUs; not run yet. Expected: source accuracy near 76 %.
small: ResNet-10-T at 64 pixels, 20,000 images of ImageNet's first 100 classes, 20 epochs; CIFAR-10 and
    CIFAR-100. Two CPU cores, about an hour; not run on ImageNet yet.
smoke: a folder of a few images, two epochs; seconds. It is there for tests.

Neither has been run, so there is no spread to tell.
"""

import dataclasses

from ckptsel.reproduce.recipes import Pretraining, Recipe, RecipeTarget, early_dense_epochs

NAME = "imagenet"

_PAPER = Pretraining(
    model="resnet50",
    data="imagenet",
    n_images=None,
    epochs=90,
    batch_size=256,
    lr=0.1,
    weight_decay=1e-4,
    milestones=(30, 60),
    augment=("resized_crop", "flip"),
    checkpoint_epochs=early_dense_epochs(90),
    n_classes=1000,
    streamed=True,
)

_SMALL = dataclasses.replace(
    _PAPER,
    model="resnet10t",
    n_images=20_000,
    n_classes=100,
    epochs=20,
    milestones=(10, 16),
    checkpoint_epochs=early_dense_epochs(20),
    image_size=64,
    weights_dtype="float16",
)

_SMOKE = dataclasses.replace(
    _SMALL,
    n_images=None,
    n_classes=3,
    epochs=2,
    batch_size=8,
    lr=0.01,
    milestones=(1,),
    checkpoint_epochs=(1, 2),
    image_size=32,
)

TARGETS = (
    RecipeTarget("cifar10", "paper/cifar10", preset="paper-cifar"),
    RecipeTarget("cifar100", "paper/cifar100", preset="paper-cifar"),
    RecipeTarget("food101", "paper/food101", preset="paper-natural"),
    RecipeTarget("aircraft", "paper/aircraft", preset="paper-natural"),
    RecipeTarget("cars", "paper/cars", preset="paper-natural"),
    RecipeTarget("cub200", "paper/cub200", preset="paper-natural"),
    RecipeTarget("flowers102", "paper/flowers102", preset="paper-natural"),
    RecipeTarget("indoor67", "paper/indoor67", preset="paper-natural"),
    RecipeTarget("shenzhen", "paper/shenzhen", preset="paper-cxr"),
)

PRESETS = (
    Recipe(
        name=NAME,
        preset="paper",
        about="ResNet-50, ImageNet, 90 epochs, nine targets; wants GPUs",
        pretraining=_PAPER,
        targets=TARGETS,
    ),
    Recipe(
        name=NAME,
        preset="small",
        about="ResNet-10-T at 64 pixels, 20,000 images of 100 classes, 20 epochs; CPU, about an hour",
        pretraining=_SMALL,
        targets=(
            RecipeTarget("cifar10-2000", "paper/cifar10", n_train=2000, n_validation=2000),
            RecipeTarget("cifar100-2000", "paper/cifar100", n_train=2000, n_validation=4000),
        ),
    ),
    Recipe(
        name=NAME,
        preset="smoke",
        about="the same in seconds, on a folder of a few images, for tests",
        pretraining=_SMOKE,
        targets=(
            RecipeTarget("cifar10-50", "paper/cifar10", n_train=50, n_validation=50, epochs=2),
        ),
        n_transfer_seeds=2,
        goals=("fe",),
    ),
)
