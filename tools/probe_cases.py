"""Made features of many kinds, and those of real networks, that probes are compared on.

Every case is made from its own fields alone: the same fields give the same numbers.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from ckptsel.target.sources import open_source
from ckptsel.target.splits import stratified_sample

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

NETWORKS = (
    "resnet18",
    "vgg11",  # no batch norm
    "vit_tiny_patch16_224",
    "mobilenetv3_small_100",
    "convnext_atto",
    "efficientnet_b0",
)
STEPS = (0, 3, 30)
NETWORK_IMAGES = (50, 200)
PIXELS = 64


@dataclass(frozen=True)
class Case:
    """Features of `n` images to fit on and `n_held` to read on, in `d` dimensions, `c` classes.

    kind: how they are made (`_MAKERS`), or the name of a network, then after `steps` steps.
    shift: distance of the mean from zero, in spreads. scale: a factor. wide: how many times wider
    the first column is made. signal: distance of the classes, in about spreads.
    """

    family: str
    kind: str
    n: int
    d: int
    c: int
    signal: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    wide: float = 1.0
    steps: int = 0
    seed: int = 0
    n_held: int = 1000

    @property
    def name(self) -> str:
        return f"{self.family}-{self.seed}"


def make(case: Case) -> tuple[Features, Labels]:
    """Features (n + n_held, d), the images to fit on first, and labels; each class is fitted on."""
    random = np.random.default_rng([crc32(case.family.encode()), case.seed])
    labels = _labels(case, random)
    features = _MAKERS[case.kind](case, labels, random)
    features[:, 0] *= case.wide
    spread = features.std(0)
    features += case.shift * spread * np.sign(random.standard_normal(case.d))
    return (case.scale * features).astype(np.float32), labels


def _labels(case: Case, random: np.random.Generator) -> Labels:
    fitted = random.permutation(np.resize(np.arange(case.c), case.n))
    held = random.integers(0, case.c, case.n_held)
    if case.kind == "imbalanced":
        share = 1 / np.arange(1, case.c + 1)
        fitted = random.choice(case.c, case.n, p=share / share.sum())
        fitted[: 2 * case.c] = np.resize(np.arange(case.c), 2 * case.c)[: case.n]
        held = random.choice(case.c, case.n_held, p=share / share.sum())
    return np.concatenate([fitted, held])


def _mixed(case: Case, labels: Labels, random: np.random.Generator) -> NDArray[np.float64]:
    """A falling spectrum, and a signal that lies more in the wide directions than in the narrow."""
    n, d = len(labels), case.d
    mixing = random.standard_normal((d, d)) * np.logspace(0, -1.5, d)[:, None]
    features = 3 / np.sqrt(d) * random.standard_normal((n, d)) @ mixing
    means = random.standard_normal((case.c, d)) * np.logspace(0, -1, d)
    return features + (0.5 * case.signal * means)[labels]


def _relu(case: Case, labels: Labels, random: np.random.Generator) -> NDArray[np.float64]:
    """Not below zero, most of it zero in some columns, as after an activation."""
    features = _mixed(case, labels, random)
    return np.maximum(features - features.std(0) * random.uniform(-1, 2, case.d), 0)


def _columns(case: Case, labels: Labels, random: np.random.Generator) -> NDArray[np.float64]:
    """Each column with its own width over three decades, as good in narrow ones as in wide ones."""
    return _mixed(case, labels, random) * 10 ** random.uniform(-1.5, 1.5, case.d)


def _collapsed(case: Case, labels: Labels, random: np.random.Generator) -> NDArray[np.float64]:
    """Ten clusters of other classes; the signal lies in the little that is left."""
    centres = random.standard_normal((10, case.d))
    own = random.standard_normal((case.c, 10))[labels] * case.signal
    cluster = (own + 2 * random.standard_normal(own.shape)).argmax(1)
    return centres[cluster] + 0.05 * _mixed(case, labels, random)


def _noise(case: Case, labels: Labels, random: np.random.Generator) -> NDArray[np.float64]:
    return _mixed(dataclasses.replace(case, signal=0.0), labels, random)


_MAKERS = {
    "mixed": _mixed,
    "imbalanced": _mixed,
    "relu": _relu,
    "columns": _columns,
    "collapsed": _collapsed,
    "noise": _noise,
}

COMMON = ("mixed", "relu", "collapsed")
SIZES = {
    "shift": 40,
    "scale": 30,
    "one wide column": 40,
    "dimensions": 30,
    "images": 30,
    "classes": 24,
    "column widths": 24,
    "class sizes": 24,
    "no signal": 16,
    "anything": 80,
}
"""Families of made cases, and how many there are of each."""

CORNERS = (
    (20, 4096, 2),
    (20, 2, 2),
    (200, 4096, 5),
    (20_000, 32, 2),
    (10_000, 16, 10),
    (2000, 16, 1000),
)
"""(images, dimensions, classes)"""


def made_cases() -> Iterator[Case]:
    for family, size in SIZES.items():
        for seed in range(size):
            yield _draw(family, seed)
    for seed, (n, d, c) in enumerate(CORNERS):
        yield Case("corners", "mixed", n, d, c, seed=seed, shift=10.0)


def _draw(family: str, seed: int) -> Case:
    random = np.random.default_rng([crc32(family.encode()), seed, 1])

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    n, d, c = round(between(30, 400)), round(between(4, 100)), round(between(2, 12))
    case = Case(family, str(random.choice(COMMON)), n, d, c, between(0.3, 3), seed=seed)
    shift, scale = float(random.choice([0, 1, 10, 100, 1000])), float(10 ** random.uniform(-6, 6))
    d_wide = round(between(2, 4096))
    anything = Case(
        family, str(random.choice(list(_MAKERS))), n, d, c, between(0.3, 3), shift, scale
    )
    fields = {
        "shift": {"shift": shift},
        "scale": {"scale": scale},
        "one wide column": {"wide": 1000.0},
        "dimensions": {"d": d_wide, "n": min(n, 150) if d_wide > 500 else n},
        "images": {"n": round(between(20, 4000)), "d": min(d, 24), "c": min(c, 4)},
        "classes": {"c": (k := round(between(2, 120))), "n": max(3 * k, 50), "d": min(d, 48)},
        "column widths": {"kind": "columns"},
        "class sizes": {"kind": "imbalanced"},
        "no signal": {"kind": "noise"},
        "anything": {
            **dataclasses.asdict(anything),
            "wide": float(random.choice([1, 1000])),
            "seed": seed,
        },
    }[family]
    case = dataclasses.replace(case, **fields)
    return dataclasses.replace(case, n=max(case.n, 2 * case.c))


def network_cases() -> Iterator[Case]:
    seed = 0
    for kind in NETWORKS:
        for steps in STEPS:
            for n in NETWORK_IMAGES:
                yield Case("networks", kind, n, 0, 10, steps=steps, seed=seed)
                seed += 1


def network_features(case: Case, data: Path) -> tuple[Features, Labels]:
    """As `make`: test images of CIFAR-10 in the folder `data`, seen by a network as it is created,
    or after a few steps of training on training images."""
    features, labels = _all_network_features(case.kind, case.steps, data)
    pool = len(labels) - case.n_held
    rows = np.r_[stratified_sample(labels[:pool], case.n, 1), pool : len(labels)]
    return features[rows], labels[rows]


@cache
def _pixels(data: Path, split: str, n: int) -> tuple[torch.Tensor, Labels]:
    images = open_source(str(data)).read(split)
    images = images.subset(stratified_sample(images.labels, n, 0))
    order = np.random.default_rng(0).permutation(n)
    size = (PIXELS, PIXELS)
    pixels = [np.asarray(images.open_image(i).convert("RGB").resize(size)) for i in order]
    tensor = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5
    return tensor, images.labels[order]


@cache
def _all_network_features(kind: str, steps: int, data: Path) -> tuple[Features, Labels]:
    torch.manual_seed(0)
    options = {"img_size": PIXELS} if kind.startswith("vit") else {}
    network = timm.create_model(kind, num_classes=10, **options)
    _train(network, steps, *_pixels(data, "train", 1500))
    network.eval()
    pixels, labels = _pixels(data, "test", 2000)
    with torch.no_grad():
        parts = [
            network.forward_head(network.forward_features(part), pre_logits=True)
            for part in pixels.split(100)
        ]
    return torch.cat(parts).numpy(), labels


def _train(network: torch.nn.Module, steps: int, pixels: torch.Tensor, labels: Labels) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        rows = torch.arange(50 * step, 50 * (step + 1)) % len(labels)
        truth = torch.from_numpy(labels)[rows]
        loss = torch.nn.functional.cross_entropy(network(pixels[rows]), truth)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
