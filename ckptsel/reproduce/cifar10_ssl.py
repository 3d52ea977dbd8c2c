"""Recipe `cifar10-ssl`: a ResNet-18 pre-trained on CIFAR-10 without labels, transferred to MNIST and
CIFAR-100.

Paper: what Deng et al., arXiv 2203.04668, leave open: whether inadequately trained models are better
feature extractors in contrastive self-supervised learning too.
Method: SimCLR (Chen et al., arXiv 2002.05709) as in its CIFAR-10 experiments (appendix B.9): NT-Xent at
temperature 0.5, random resized crop, flip, colour jitter of strength 0.5, grey, no blur; a projection
head of two layers, which no checkpoint holds. Not as there: SGD instead of LARS, a smaller network.
Command: `ckptsel reproduce cifar10-ssl --preset small --data-root DATA --out RUN`; with
`--beside runs/cifar10-mnist-small` the supervised run's verdicts stand beside.
Data: `cifar10`, `mnist` and `cifar100` below DATA, as `cifar10-mnist` takes them.

paper: the network, images and epochs of `cifar10-mnist --preset paper`, batches of 512. A GPU; not run
    yet.
small: those of `cifar10-mnist --preset small`, batches of 256, two seeds: two hours each on one CPU
    core. Run: `reference_runs/cifar10-ssl-small`.
smoke: 200 images, three epochs; seconds. It shows nothing and is there for tests.

Source accuracy is that of the 20 nearest training images.
"""

import dataclasses

from ckptsel.reproduce.cifar10_mnist import CIFAR100_2000, MNIST_1000, PRESETS_BY_NAME
from ckptsel.reproduce.recipes import Contrastive, Pretraining, Recipe

NAME = "cifar10-ssl"

AUGMENT = ("small_resized_crop", "flip", "colour_jitter", "grey")

LABEL_FREE = ("rankme", "alpha_req")


RATE_OF_IMAGE = 0.12 / 256
"""Learning rate by images in a batch, as SGD is often used with SimCLR on CIFAR-10."""


def _contrastive(supervised: str, batch_size: int) -> Pretraining:
    """The pre-training of a preset of `cifar10-mnist`, without its labels."""
    return dataclasses.replace(
        PRESETS_BY_NAME[supervised].pretraining,
        batch_size=batch_size,
        lr=RATE_OF_IMAGE * batch_size,
        augment=AUGMENT,
        contrastive=Contrastive(),
        schedule="cosine",
        milestones=(),
    )


_PAPER = _contrastive("paper", batch_size=512)
_SMALL = _contrastive("small", batch_size=256)
_SMOKE = _contrastive("smoke", batch_size=50)

PRESETS = (
    Recipe(
        name=NAME,
        preset="paper",
        about="SimCLR, ResNet-18, all of CIFAR-10, 200 epochs; wants a GPU",
        pretraining=_PAPER,
        targets=(dataclasses.replace(MNIST_1000, balanced=True, epochs=100), CIFAR100_2000),
        closer_targets=(MNIST_1000.name,),
        layer_targets=(MNIST_1000.name, CIFAR100_2000.name),
        after_epochs=(5, 200),
        scores=LABEL_FREE,
    ),
    Recipe(
        name=NAME,
        preset="small",
        about="SimCLR, narrow ResNet-18, 10,000 CIFAR-10 images, 120 epochs; CPU, 4 hours",
        n_seeds=2,
        pretraining=_SMALL,
        targets=(MNIST_1000, CIFAR100_2000),
        closer_targets=(MNIST_1000.name,),
        layer_targets=(MNIST_1000.name, CIFAR100_2000.name),
        after_epochs=PRESETS_BY_NAME["small"].after_epochs,
        scores=LABEL_FREE,
    ),
    dataclasses.replace(PRESETS_BY_NAME["smoke"], name=NAME, pretraining=_SMOKE, scores=LABEL_FREE),
)
