"""`--memory`: what a run holds of its own stays below it, or the run does not begin."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptsel.errors import UsageError
from ckptsel.ranking.memory import MemoryBound, Scoring
from ckptsel.scores import ScoreInputs, find_scores
from ckptsel.scores.needs import bytes_to_score
from ckptsel.target.splits import plan_cross_validation, plan_validation
from tests.conftest import make_data, save_checkpoint

LINUX = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc"
)
MIB = 2**20

MEASURED = """
import json, sys, threading, time

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

most, is_over = [0], threading.Event()

def look():
    while not is_over.wait(0.002):
        most[0] = max(most[0], anonymous())

import torch
torch.set_num_threads(1)
from ckptsel.ranking.rank import rank
import ckptsel.ranking.resolve as resolve
opened = resolve.build_encoder
def build(*arguments):
    encoder = opened(*arguments)
    encoder.features(torch.zeros(2, *encoder.preparation.shape, dtype=torch.uint8), encoder.layers)
    base.append(anonymous())
    return encoder
base = []
resolve.build_encoder = build
threading.Thread(target=look, daemon=True).start()
ranking = rank(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
is_over.set()
print(json.dumps([most[0] - base[0], next(iter(ranking)).scores["linear_probe"].value]))
"""


def held_by(run: Path, data: Path, **options: object) -> tuple[int, float]:
    """(bytes that a ranking held besides libraries and network, a score of it)."""
    words = [sys.executable, "-c", MEASURED, str(run), str(data), json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_bytes, value = json.loads(done.stdout.splitlines()[-1])
    return n_bytes, value


@pytest.fixture
def target(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint, and 250 images that are shown to it at 128 pixels: 12 MB."""
    save_checkpoint(tmp_path / "run" / "checkpoint-1.safetensors", 0, 1, 0.5)
    for split, n in (("train", 150), ("validation", 100)):
        make_data(tmp_path / "data", split, n, "RGB")
    return tmp_path / "run", tmp_path / "data"


@pytest.mark.slow
@LINUX
def test_a_small_bound_is_kept(target: tuple[Path, Path]) -> None:
    options = {"image_size": 128, "scores": ["linear_probe"]}
    free, value = held_by(*target, **options)
    other = str(target[0].parent / "another cache")
    kept, same = held_by(*target, memory="96MiB", cache_dir=other, **options)
    assert kept <= 96 * MIB < free
    assert same == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--no-cache", "--memory", "8MiB"], "decoded pixels take 7.4 MB, more than the fourth"),
        (["--memory", "2MiB"], "looking for near duplicates among 250 images may take 3.1 MB"),
        (["--memory", "8MiB", "--duplicates", "exact"], "scoring 250 images with 128 features"),
        (["--memory", "4"], "--memory is '4'; it must be a size"),
        (["--memory", "-4GiB"], "it must be a size"),
    ],
)
def test_what_cannot_be_kept_is_said_at_once(
    run, target: tuple[Path, Path], options: list[str], said: str
) -> None:
    code, out, err = run("rank", target[0], "-d", target[1], "--image-size", 128, *options)
    assert code == 2 and out == "" and said in err


def test_the_size_that_is_named_will_do(run, target: tuple[Path, Path]) -> None:
    call = ("rank", target[0], "-d", target[1], "--duplicates", "exact", "--scores", "linear_probe")
    _, _, err = run(*call, "--memory", "1MiB")
    needed = err.partition("Give --memory ")[2].partition(",")[0]
    assert run(*call, "--memory", needed)[0] == 0


ALL_SCORES, DEFAULT = ("all",), None


@LINUX
@pytest.mark.parametrize(
    ("n", "d", "n_classes", "how", "scores"),
    [
        (1500, 256, 10, "held", ALL_SCORES),
        (100, 64, 10, "crossed", ALL_SCORES),
        (500, 64, 100, "held", ALL_SCORES),
        (1500, 256, 10, "held", DEFAULT),
        (500, 64, 100, "crossed", DEFAULT),
        (20_000, 64, 10, "held", DEFAULT),
    ],
)
def test_scores_take_no_more_than_is_said(
    n: int, d: int, n_classes: int, how: str, scores: tuple[str, ...] | None
) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    centres = random.standard_normal((n_classes, d))
    features = (centres[labels] + 2 * random.standard_normal((n, d))).astype(np.float32)
    plan = (
        plan_cross_validation(labels, 0)
        if how == "crossed"
        else plan_validation(n // 2, n // 2, "v")
    )
    streams = scores is DEFAULT
    sizes = (n, d, n_classes, len(plan.folds[0][0]), len(plan.folds))
    needed = features.nbytes + bytes_to_score(*sizes, streams)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    inputs = ScoreInputs(features, labels, plan)
    for score in find_scores(scores):
        score.compute(inputs)
    assert peak() - before <= needed
    assert torch.isfinite(inputs.features).all()


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def test_pixels_and_batches_get_a_fourth_each() -> None:
    bound = MemoryBound("400MiB")
    assert bound.mapped_from == 100 * MIB
    assert bound.batch_size((3, 224, 224), 128) == 7
    assert bound.batch_size((3, 8, 8), 128) == 128
    assert MemoryBound("1MiB").batch_size((3, 512, 512), 128) == 1
    assert MemoryBound(None).batch_size((3, 512, 512), 128) == 128


def test_what_a_hundred_thousand_images_take() -> None:
    """With scores that stream features; of others it is said rather than begun."""
    large = Scoring(
        n_images=100_000,
        n_read=2048,
        n_features=2048,
        n_classes=100,
        n_fitted=80_000,
        n_folds=1,
        n_held=20_000,
        n_results=50 * 6,
        streams=True,
    )
    MemoryBound("4GiB").check_scoring(large, [])
    with pytest.raises(UsageError, match=r"100,000 images with 2,048 features may take 1\d\.\d GB"):
        MemoryBound("4GiB").check_scoring(dataclasses.replace(large, streams=False), [])
