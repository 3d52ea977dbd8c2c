"""Recipe `cifar10-mnist`: a ResNet-18 pre-trained on CIFAR-10, transferred to MNIST.

Paper: Deng et al., arXiv 2203.04668, Figures 1, 3, 4 and Table 1.
Command: `ckptsel reproduce cifar10-mnist --preset small --data-root DATA --out RUN`.

`small` trains a narrow network (0.7 M parameters) on 10,000 CIFAR-10 images for 120 epochs with
flips only, so that it over-trains as the paper's network does. `smoke` takes seconds and shows
nothing; it is there for tests. Time, hardware and results of the shipped run are in
`reference_runs/cifar10-mnist-small/README.md`.
"""

from ckptsel.reproduce.recipes import Pretraining, Recipe, TargetSample, early_dense_epochs

_SMALL = Pretraining(
    model="cifar_resnet18_w16_s2",
    data="cifar10",
    n_images=10_000,
    epochs=120,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(40, 80),
    gamma=0.1,
    augment=("flip",),
    checkpoint_epochs=early_dense_epochs(120),
    # 14 checkpoints of 0.7 M parameters: half precision keeps the shipped run under 25 MB.
    weights_dtype="float16",
)

_SMOKE = Pretraining(
    model="cifar_resnet18_w16_s2",
    data="cifar10",
    n_images=200,
    epochs=3,
    batch_size=50,
    lr=0.05,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(2,),
    gamma=0.1,
    augment=("flip",),
    checkpoint_epochs=(1, 2, 3),
)

PRESETS = (
    Recipe(
        name="cifar10-mnist",
        preset="small",
        about="narrow ResNet-18, 10,000 CIFAR-10 images, 120 epochs; two CPU cores, about 20 min",
        pretraining=_SMALL,
        target=TargetSample(data="mnist", n_train=1000, n_validation=2000),
    ),
    Recipe(
        name="cifar10-mnist",
        preset="smoke",
        about="the same in seconds, on 200 images, for tests",
        pretraining=_SMOKE,
        target=TargetSample(data="mnist", n_train=50, n_validation=50),
    ),
)
