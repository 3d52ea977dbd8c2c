"""The probe on features of real networks, against scikit-learn with its own search.

Networks as they are made, and after a few steps of training: their features have means far beside
their spread (batch norm a few steps old, MobileNet), or hardly any (vision transformers).
"""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ckptsel.scores import ScoreInputs
from ckptsel.target.sources import open_source
from ckptsel.target.splits import plan_validation, stratified_sample
from tests.test_probe import correct_of_scikit_learn

DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
SIZE = 64
N_HELD = 1000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="CIFAR-10 is not there"),
]


def read_pixels(split: str, n: int) -> tuple[torch.Tensor, np.ndarray]:
    images = open_source(str(DATA)).read(split)
    images = images.subset(stratified_sample(images.labels, n, 0))
    size = (SIZE, SIZE)
    pixels = [np.asarray(images.open_image(i).convert("RGB").resize(size)) for i in range(n)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5, images.labels


@pytest.fixture(scope="module")
def source() -> tuple[torch.Tensor, np.ndarray]:
    return read_pixels("train", 1500)


@pytest.fixture(scope="module")
def target() -> tuple[torch.Tensor, np.ndarray]:
    pixels, labels = read_pixels("test", 1000 + N_HELD)
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels[order], labels[order]


def features_of(name: str, n_steps: int, source, target) -> np.ndarray:
    torch.manual_seed(0)
    options = {"img_size": SIZE} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=10, **options)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    pixels, labels = source
    for step in range(n_steps):
        rows = torch.arange(50 * step, 50 * (step + 1)) % len(labels)
        loss = torch.nn.functional.cross_entropy(
            network(pixels[rows]), torch.from_numpy(labels)[rows]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        parts = [
            network.forward_head(network.forward_features(part), pre_logits=True)
            for part in target[0].split(100)
        ]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("n_steps", [0, 3, 30])
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnext_atto"]
)
def test_the_probe_is_as_good_as_scikit_learns(name: str, n_steps: int, source, target) -> None:
    features = features_of(name, n_steps, source, target)
    cells = []
    for n in (50, 100, 300, 1000):
        rows = np.r_[stratified_sample(target[1][:1000], n, 1), 1000 : 1000 + N_HELD]
        part, labels = features[rows], target[1][rows]
        held_out = ScoreInputs(part, labels, plan_validation(n, N_HELD)).held_out("all")
        ours = (held_out.predictions[0] == labels[n:]).astype(float)
        theirs = correct_of_scikit_learn(part, labels, n)
        ahead = ours - theirs
        error = ahead.std() / np.sqrt(N_HELD)
        print(
            f"{name} {n_steps:3d} steps, {n:4d} images: {100 * ours.mean():5.1f} "
            f"({100 * theirs.mean():5.1f}), C {held_out.details['C']}, {held_out.flags}, "
            f"mean/spread {np.abs(part.mean(0)).mean() / part.std(0).mean():.1f}"
        )
        # One of 48 cells; the choice of strength from few images is chance besides.
        assert ahead.mean() >= -3 * error - 0.005
        cells.append(ahead)
    together = np.concatenate(cells)
    assert together.mean() >= -2 * together.std() / np.sqrt(len(together))
