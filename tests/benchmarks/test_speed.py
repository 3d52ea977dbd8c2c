"""Speed, compared side by side in one run: `make benchmarks`. Not part of the tests.

Each benchmark has its yardstick in the same group; the ratios belong into docs/performance.md.
"""

import io
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torchvision.transforms import RandomResizedCrop

from ckptsel.features.encoders import build_image_encoder
from ckptsel.features.extraction import extract_features, first_batch_size
from ckptsel.reproduce.source_data import crop_and_resize
from ckptsel.scores import ScoreInputs, find_scores
from ckptsel.target.splits import plan_validation

SMALL_MODEL = "mobilenetv3_small_050"

MODELS = [("cifar_resnet18_w16_s2", 2048), ("resnet18", 128), (SMALL_MODEL, 1024)]

ROUNDS = 7


@pytest.mark.parametrize(("name", "n_images"), MODELS)
def test_extraction_beside_the_network_alone(name: str, n_images: int, make_loading) -> None:
    """From the second checkpoint on, with and without the loading of its weights, timed in turn with
    the network alone on batches that are normalised already."""
    encoder = build_image_encoder(name)
    load = make_loading(encoder)
    encoder.to("cpu")
    shape = encoder.preprocessing.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, *shape), dtype=np.uint8)
    batches = encoder.normalise(torch.from_numpy(pixels)).split(first_batch_size(shape, "cpu"))

    @torch.inference_mode()
    def alone() -> None:
        for batch in batches:
            encoder.penultimate(batch)

    def extract() -> None:
        extract_features(encoder, pixels)

    def load_and_extract() -> None:
        load()
        extract()

    works = (alone, extract, load_and_extract)
    took = np.array([[seconds(work) for work in works] for _ in range(ROUNDS + 1)])[1:]
    print()
    for work, column in zip(works, took.T, strict=True):
        low, median, high = np.quantile(took[:, 0] / column, [0, 0.5, 1])
        each_ms = 1000 * np.median(column) / n_images
        print(f"{name}, {work.__name__}: {each_ms:.2f} ms, {median:.2f} [{low:.2f}, {high:.2f}]")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(n) % 10
    mixing = random.standard_normal((d, d)) * np.logspace(0, -2, d)
    noise = random.standard_normal((n, d)) @ mixing / np.sqrt(d) * 4
    features = np.maximum(noise + random.standard_normal((10, d))[labels], 0)
    return features.astype(np.float32), labels


SIZES = [(3000, 128), (3000, 512)]


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_all_scores(benchmark, n: int, d: int) -> None:
    benchmark.group = f"scores of one checkpoint, {n} x {d}, a third of it fitted on"
    features, labels = make_features(n, d)

    def run() -> None:
        inputs = ScoreInputs(features, labels, plan_validation(n // 3, n - n // 3))
        for score in find_scores(None):
            score.compute(inputs)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_scikit_learn_and_plain_logme(benchmark, n: int, d: int) -> None:
    """The same numbers from what is at hand: NumPy's SVD, LogisticRegression, a LogME loop."""
    benchmark.group = f"scores of one checkpoint, {n} x {d}, a third of it fitted on"
    features, labels = make_features(n, d)
    n_fit = n // 3

    def run() -> None:
        fitted = features[:n_fit].astype(np.float64)
        left, values, right = np.linalg.svd(fitted, full_matrices=False)
        k = int((np.cumsum(values) / values.sum() < 0.8).sum()) + 1
        projection = right[:k].T @ right[:k]
        for view in (features, features @ projection, features - features @ projection):
            view = view / np.sqrt((view[:n_fit] ** 2).mean())
            view = view - view[:n_fit].mean(0)
            probe_with_scikit_learn(view[:n_fit], labels[:n_fit], view[n_fit:], labels[n_fit:])
        plain_logme(left, values, labels[:n_fit], features.shape[1])

    benchmark.pedantic(run, rounds=3)


def probe_with_scikit_learn(fitted, fit_labels, held, held_labels) -> float:
    """The strength from the grid that a user would write, by five-fold cross-validation."""
    grid = [10.0**e for e in range(-4, 3)]
    totals = []
    for strength in grid:
        total = 0.0
        for inner, outer in StratifiedKFold(5).split(fitted, fit_labels):
            probe = LogisticRegression(C=strength, max_iter=1000)
            probe.fit(fitted[inner], fit_labels[inner])
            log_p = probe.predict_log_proba(fitted[outer])
            total += log_p[np.arange(len(outer)), fit_labels[outer]].sum()
        totals.append(total)
    best = grid[int(np.argmax(totals))]
    probe = LogisticRegression(C=best, max_iter=1000).fit(fitted, fit_labels)
    return probe.score(held, held_labels)


def plain_logme(left, values, labels, d: int) -> float:
    """The fixed point, class by class, as published code has it."""
    n, s2 = len(labels), values**2
    evidence = []
    for label in np.unique(labels):
        y = (labels == label).astype(np.float64)
        x2 = (left.T @ y) ** 2
        rest = (y**2).sum() - x2.sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (s2 / (s2 + t)).sum()
            m2 = (s2 * x2 / (t + s2) ** 2).sum()
            residual = (x2 / (1 + s2 / t) ** 2).sum() + rest
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (residual + 1e-5)
        evidence.append(
            d * np.log(alpha)
            + n * np.log(beta)
            - np.log(alpha + beta * s2).sum()
            - beta * residual
            - alpha * m2
            - n * np.log(2 * np.pi)
        )
    return float(np.mean(evidence)) / (2 * n)


@pytest.mark.parametrize("shape", [(500, 375), (1600, 1200)], ids=["500x375", "1600x1200"])
def test_jpeg_crops_beside_decoding_whole(benchmark, shape: tuple[int, int]) -> None:
    """Random crops of 224 pixels, as pre-training streams them; the yardstick decodes, crops and
    resizes with Pillow as the PyTorch ImageNet example does, timed in turn."""
    random = np.random.default_rng(0)
    width, height = shape
    files, boxes = [], []
    for _ in range(8):
        file = io.BytesIO()
        make_photo(random, shape).save(file, "JPEG", quality=90)
        files.append(file)
        whole = torch.empty(1, height, width, device="meta")
        top, left, h, w = RandomResizedCrop.get_params(whole, [0.08, 1.0], [3 / 4, 4 / 3])
        boxes.append((left, top, left + w, top + h))
    plain_s: list[float] = []

    def plain() -> None:
        start = time.perf_counter()
        for file, box in zip(files, boxes, strict=True):
            image = Image.open(file).convert("RGB").crop(box)
            np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
        plain_s.append(time.perf_counter() - start)

    def ours() -> None:
        for file, box in zip(files, boxes, strict=True):
            crop_and_resize(Image.open(file), box, 224)

    benchmark.pedantic(ours, setup=plain, rounds=15, warmup_rounds=1)
    ratios = np.array(plain_s[1:]) / np.array(benchmark.stats.stats.data)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"\n{width}x{height}: {median:.2f} times as fast [{low:.2f}, {high:.2f}]")


def test_sixteen_checkpoints_beside_sixteen_runs(tmp_path: Path) -> None:
    """One `rank` of sixteen checkpoints on JPEG files beside sixteen commands that rank one each and
    decode again, by the time of the processor; two of the sixteen are run."""
    write_photos(tmp_path / "images")
    for seed in range(16):
        torch.manual_seed(seed)
        weights = timm.create_model(SMALL_MODEL, num_classes=10).state_dict()
        folder = tmp_path / ("first" if seed == 0 else "second" if seed == 1 else "others")
        folder.mkdir(exist_ok=True)
        save_file(weights, folder / f"checkpoint-{seed:02d}.safetensors")
    together = tmp_path / "all"
    together.mkdir()
    for path in sorted(tmp_path.glob("*/checkpoint-*")):
        shutil.copy(path, together)
    alone = [cpu_s_of_rank(tmp_path / name, tmp_path) for name in ("first", "second")]
    at_once = cpu_s_of_rank(together, tmp_path)
    print(f"\nsixteen at once {at_once:.1f} s, one alone {alone} s: {8 * sum(alone) / at_once:.2f}")


def make_photo(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """As large as a photo in JPEG: coarse shapes and grain."""
    width, height = size
    coarse = np.clip(50 * random.standard_normal((height // 8, width // 8, 3)) + 128, 0, 255)
    photo = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grainy = np.asarray(photo) + 6 * random.standard_normal((height, width, 3))
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def write_photos(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split, n in (("train", 20), ("val", 30)):
        for label in range(10):
            (folder / split / f"c{label}").mkdir(parents=True)
            for i in range(n):
                photo = make_photo(random, (500, 375))
                photo.save(folder / split / f"c{label}" / f"{i}.jpg", quality=90)


def cpu_s_of_rank(checkpoints: Path, folder: Path) -> float:
    """Seconds of the processor, user and system, of one `rank` that keeps nothing."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ckptsel", "rank", checkpoints, "--data", folder / "images"]
    options = ["--model", SMALL_MODEL, "--no-cache", "--quiet", "--scores", "linear_probe"]
    subprocess.run([*map(str, command), *options], check=True, stdout=subprocess.DEVNULL)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
