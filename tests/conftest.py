"""Made checkpoints and images that several tests use; nothing is downloaded or shared.

torch is imported where it is used: the process that only hands tests out needs none.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ckptsel import cli
from ckptsel.common import states

TINY_MODEL = "cifar_resnet18_w16_s2"


ABOUT = {
    "target": {
        "data": "d",
        "splits": ["train", "validation"],
        "n_classes": 3,
        "fingerprint": "f" * 64,
        "evaluation": {"method": "validation split", "n_train": 300, "n_eval": 100},
    },
    "model": {"name": "m", "preprocessing": {}},
    "settings": {"checkpoints": "c", "weights": "auto", "device": "cpu", "energy": 0.8},
}
"""The least that a ranking says of its data, network and settings."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products are slower on several, and tests may share the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and no file is known by its state unless a test says so: it
    would depend on how long the test takes."""
    monkeypatch.setattr(states, "SETTLED_NS", 10**15)
    folder = tmp_path / "cache"
    monkeypatch.setenv("CKPTSEL_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def reference_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache that the tests of the shipped run share, those of other worker processes too."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return str(base / "reference-cache")


def save_checkpoint(path: Path, seed: int, epoch: int, source_accuracy: float) -> None:
    """Random weights, with what a run records beside them."""
    import timm
    import torch
    from safetensors.torch import save_file

    from ckptsel.features import cifar_resnet  # noqa: F401

    torch.manual_seed(seed)
    weights = timm.create_model(TINY_MODEL).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "ckptsel",
        "arch": TINY_MODEL,
        "epoch": str(epoch),
        "source_accuracy": str(source_accuracy),
    }
    save_file({k: v.contiguous() for k, v in weights.items()}, path, metadata)


@pytest.fixture
def trajectory(tmp_path: Path) -> Path:
    """Three checkpoints of one run."""
    for i, epoch in enumerate((1, 5, 10)):
        path = tmp_path / "ckpts" / f"checkpoint-{epoch:03d}.safetensors"
        save_checkpoint(path, i, epoch, (0.4, 0.6, 0.5)[i])
    return tmp_path / "ckpts"


@pytest.fixture
def run_of_six(tmp_path: Path) -> Path:
    """Six checkpoints of another."""
    for i, accuracy in enumerate((0.1, 0.2, 0.9, 0.4, 0.5, 0.6)):
        save_checkpoint(tmp_path / "six" / f"epoch-{i + 1}.safetensors", i, i + 1, accuracy)
    return tmp_path / "six"


def save_images(folder: Path, n_per_class: int, seed: int = 0, noise: float = 40.0) -> None:
    """Three classes of noisy images with different mean colours, one sub-folder each."""
    random = np.random.default_rng(seed)
    for label, colour in enumerate(((150, 100, 100), (100, 150, 100), (100, 100, 150))):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(n_per_class):
            pixels = np.array(colour) + noise * random.standard_normal((8, 8, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / f"class{label}" / f"{i}.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A target with a training and a validation split."""
    save_images(tmp_path / "images" / "train", 12, seed=0)
    save_images(tmp_path / "images" / "val", 10, seed=1)
    return tmp_path / "images"


@pytest.fixture(autouse=True, scope="session")
def heeded() -> Iterator[None]:
    """Ctrl-C counts, also where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run the command line; gives (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ckptsel", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.raises(SystemExit) as ended:
            cli.main()
        for (
            number,
            handler,
        ) in handlers.items():  # `main` takes a process to its end; this one goes on
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def ranked(run, trajectory: Path, images: Path, tmp_path: Path) -> Path:
    """A small ranking, as `rank --out` wrote it."""
    out = tmp_path / "ranking"
    assert (
        run("rank", trajectory, "-d", images, "--scores", "linear_probe", "-o", out, "-q")[0] == 0
    )
    return out


def make_data(folder: Path, split: str, n: int, mode: str) -> None:
    """A parquet split of ten classes: noise on a grey level of each class's own."""
    from ckptsel.reproduce.run import write_parquet
    from ckptsel.target.images import ImageSet
    from ckptsel.target.samples import MemorySamples

    random = np.random.default_rng(len(split))
    labels = np.arange(n) % 10
    shape = (8, 8, 3) if mode == "RGB" else (8, 8)
    noise = 40 * random.standard_normal((n, *shape))
    level = (25 * labels).reshape(n, *(1 for _ in shape))
    pixels = np.clip(noise + level, 0, 255).astype(np.uint8)
    images = ImageSet(
        split=split,
        labels=labels,
        class_names=tuple("abcdefghij"),
        samples=MemorySamples.of(pixels),
    )
    write_parquet(folder / f"{split}-00000-of-00001.parquet", images)


def make_imagenet(folder: Path) -> None:
    """JPEG files of several sizes in the layout of ImageNet: three classes, `train` and `val`."""
    random = np.random.default_rng(0)
    for split, n in (("train", 9), ("val", 4)):
        for name in ("n01440764", "n01443537", "n01484850"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                size = (int(random.integers(40, 160)), int(random.integers(40, 160)))
                pixels = random.integers(0, 256, (*size, 3)).astype(np.uint8)
                path = folder / split / name / f"{name}_{i}.JPEG"
                Image.fromarray(pixels).save(path, quality=90)


@contextlib.contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """The system refuses to let a file grow further, as a disk that is full does."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of `confirm` have memory for 20 images at once."""
    import torch

    from ckptsel.confirmation.runs import Network

    forward = Network.forward

    def forward_few(self: Network, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return forward(self, inputs)

    monkeypatch.setattr(Network, "forward", forward_few)
