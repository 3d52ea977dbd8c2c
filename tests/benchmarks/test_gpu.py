"""Speed on a GPU, beside its yardsticks in one run: `make benchmarks`, where there is one.

The lines it prints belong into docs/performance.md, with the name of the GPU and what else ran.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ckptsel.common.devices import PRECISIONS
from ckptsel.features.encoders import build_image_encoder
from ckptsel.features.extraction import extract_features, first_batch_size
from ckptsel.features.feed import Samples, place
from ckptsel.scores import ScoreInputs, find_score, find_scores
from ckptsel.target.pixels import normalise
from ckptsel.target.splits import Evaluation, plan_cross_validation, plan_validation

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

N_IMAGES, ROUNDS = 8192, 5

MIDDLE = {
    "10,000 x 512, 10 classes": (10_000, 2_000, 512, 10),
    "1,000 x 1,408, 100 classes": (1_000, 2_000, 1_408, 100),
    "20,000 x 2,048, 100 classes": (20_000, 2_000, 2_048, 100),
}

SIZES = {
    **MIDDLE,
    "a tenth of ImageNet": (128_117, 5_000, 2_048, 1_000),
    "ImageNet": (1_281_167, 50_000, 2_048, 1_000),
}

SMALLER = {
    "80 x 512, 10 classes, 15 folds": (80, 0, 512, 10),
    "1,000 x 512, 10 classes": (1_000, 1_000, 512, 10),
    **MIDDLE,
}

STREAMED = ("logme", "linear_probe", "main_component", "residual_component")


def seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_what_a_large_product_reaches(dtype: torch.dtype) -> None:
    """The ceiling that the other lines are held against."""
    left, right = (torch.randn(8192, 8192, device=DEVICE).to(dtype) for _ in range(2))
    took = [seconds(lambda: left @ right) for _ in range(5)]
    tflops = 2 * 8192**3 / np.median(took[1:]) / 1e12
    print(f"\n{torch.cuda.get_device_name()}, {dtype}: {tflops:.0f} TFLOPS")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("resnet18", "bfloat16"),
        ("resnet50", "bfloat16"),
        ("vit_base_patch16_224", "bfloat16"),
        ("resnet18", "float32"),
        ("resnet50", "float32"),
    ],
)
def test_extraction_beside_the_network_alone(name: str, precision: str, make_loading) -> None:
    """Pixels that lie on the GPU, as from the second checkpoint on, with and without the loading of its
    weights, and pixels of the host."""
    encoder = build_image_encoder(name)
    load = make_loading(encoder)
    encoder.to(DEVICE)
    shape = encoder.preprocessing.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (N_IMAGES, *shape), dtype=np.uint8)
    size = first_batch_size(shape, DEVICE)
    first = torch.from_numpy(pixels[:size]).to(DEVICE)
    images = normalise(first, encoder.preprocessing, encoder.memory_format)
    (there,) = place([pixels], DEVICE)
    dtype = PRECISIONS[precision]

    @torch.inference_mode()
    def alone() -> None:
        with torch.autocast(DEVICE, dtype=dtype, enabled=dtype is not None):
            for _ in range(-(-N_IMAGES // size)):
                encoder.penultimate(images)

    def extract(samples: Samples) -> None:
        extract_features(encoder, samples, DEVICE, precision)

    def load_and_extract() -> None:
        load()
        extract(there)

    works = {
        "the network alone": alone,
        "pixels there": lambda: extract(there),
        "the same, loading included": load_and_extract,
        "pixels of the host": lambda: extract(pixels),
    }
    took = np.array([[seconds(work) for work in works.values()] for _ in range(ROUNDS + 1)])[1:]
    print()
    for place_, column in zip(works, took.T, strict=True):
        low, median, high = np.quantile(took[:, 0] / column, [0, 0.5, 1])
        per_s = N_IMAGES / np.median(column)
        of_bare = f"{median:.2f} [{low:.2f}, {high:.2f}]"
        print(f"{name}, {precision}, {place_}: {per_s:.0f} images/s, {of_bare}")


@pytest.mark.parametrize("size", SIZES)
def test_scores(size: str) -> None:
    n, n_held, d, n_classes = SIZES[size]
    features, labels = make_features(n + n_held, d, n_classes)
    names = STREAMED if n > 20_000 else [score.name for score in find_scores(None)]
    print_scores(size, features, labels, plan_validation(n, n_held), names)


@pytest.mark.parametrize("size", SMALLER)
def test_probe_beside_that_of_the_cpu(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it pays to use the GPU: `ckptsel.scores.inputs.SMALL`."""
    monkeypatch.setattr("ckptsel.scores.inputs.SMALL", 0)
    n, n_held, d, n_classes = SMALLER[size]
    features, labels = make_features(n + n_held, d, n_classes)
    plan = plan_validation(n, n_held) if n_held else plan_cross_validation(labels, 0)
    print()
    for device in (DEVICE, "cpu"):
        inputs = ScoreInputs(features, labels, plan, device=device)
        took = seconds(lambda inputs=inputs: find_score("linear_probe").compute(inputs))
        values = features.size * n_classes
        print(f"{size} ({values / 1e6:.0f} million values), {device}: {took:.2f} s")


def print_scores(
    size: str,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    plan: Evaluation,
    names: tuple[str, ...] | list[str],
) -> None:
    print()
    for name in names:
        inputs = ScoreInputs(features, labels, plan, device=DEVICE)
        torch.cuda.reset_peak_memory_stats()
        took = seconds(lambda name=name, inputs=inputs: find_score(name).compute(inputs))
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"{size}, {name}: {took:.2f} s, {peak:.1f} GiB")


def make_features(n: int, d: int, n_classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """ReLU of a mixture, made on the GPU in parts."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    labels = torch.arange(n, device=DEVICE) % n_classes
    mixing = torch.randn(d, d, generator=generator, device=DEVICE)
    mixing *= torch.logspace(0, -2, d, device=DEVICE) / d**0.5 * 4
    centres = torch.randn(n_classes, d, generator=generator, device=DEVICE) / 8
    features = np.empty((n, d), dtype=np.float32)
    for rows in torch.arange(n).split(100_000):
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        noise = torch.randn(len(rows), d, generator=generator, device=DEVICE) @ mixing
        features[some] = torch.relu(noise + centres[labels[some]]).cpu().numpy()
    return features, labels.cpu().numpy()
