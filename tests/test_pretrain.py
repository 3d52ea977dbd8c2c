"""Pre-training: a killed run goes on as it was, in one process and in two, from tensors and files."""

import csv
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import DataError, InputError, UsageError
from ckptsel.reproduce.distributed import World
from ckptsel.reproduce.pretrain import pretrain
from ckptsel.reproduce.registry import find_recipe
from ckptsel.reproduce.source_data import crop_and_resize, open_source_data
from tests.conftest import make_data, make_imagenet

SMOKE = dataclasses.replace(find_recipe("cifar10-mnist", "smoke").pretraining, n_images=100)
STREAMED = find_recipe("imagenet", "smoke").pretraining
CONTRASTIVE = dataclasses.replace(find_recipe("cifar10-ssl", "smoke").pretraining, n_images=100)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root / "cifar10", "train", 120, "RGB")
    make_data(root / "cifar10", "test", 40, "RGB")
    make_imagenet(root / "imagenet")
    return root


class Killed(Exception):
    pass


def weights_of(run: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"checkpoint-{epoch:03d}.safetensors")


@pytest.mark.parametrize(
    "recipe", [SMOKE, STREAMED, CONTRASTIVE], ids=["tensors", "files", "contrastive"]
)
def test_a_killed_run_goes_on_with_the_same_numbers(
    recipe, data_root: Path, tmp_path: Path
) -> None:
    def kill(epoch: int) -> None:
        if epoch == recipe.epochs - 1:
            raise Killed

    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    with pytest.raises(Killed):
        pretrain(recipe, killed, data_root, quiet=True, on_epoch=kill)
    assert not (killed / "checkpoints" / f"checkpoint-00{recipe.epochs}.safetensors").exists()
    pretrain(recipe, killed, data_root, quiet=True)
    pretrain(recipe, undisturbed, data_root, quiet=True)
    expected = weights_of(undisturbed, recipe.epochs)
    resumed = weights_of(killed, recipe.epochs)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_every_epochs_weights_are_kept(data_root: Path, tmp_path: Path) -> None:
    pretrain(SMOKE, tmp_path, data_root, quiet=True)
    kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.safetensors"))
    assert kept == [
        "checkpoints/checkpoint-001.safetensors",
        "checkpoints/checkpoint-003.safetensors",
        "other-checkpoints/checkpoint-002.safetensors",
    ]
    rates = [float(row["lr"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    found = scan_checkpoints(tmp_path / "checkpoints")
    assert [checkpoint.learning_rate for checkpoint in found] == [rates[0], rates[2]]


def test_without_labels_a_checkpoint_holds_the_network_alone(
    data_root: Path, tmp_path: Path
) -> None:
    log = pretrain(CONTRASTIVE, tmp_path, data_root, quiet=True)
    names = set(weights_of(tmp_path, 3))
    assert {"conv1.weight", "layer4.1.conv2.weight"} <= names
    assert not any("fc" in name or "projection" in name or "backbone" in name for name in names)
    # Of 100 views one is the right one: chance is a loss of log 99.
    assert log[-1]["train_loss"] < log[0]["train_loss"] < np.log(99) + 1
    assert all(0 <= row["source_accuracy"] <= 1 for row in log)


def test_a_contrastive_batch_is_not_shared(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a contrastive batch cannot be shared by 2 processes"):
        pretrain(CONTRASTIVE, tmp_path, data_root, world=World("cpu", size=2), quiet=True)


def test_a_run_that_an_older_version_began_goes_on(data_root: Path, tmp_path: Path) -> None:
    """Its state has no fields that came later."""
    pretrain(SMOKE, tmp_path, data_root, quiet=True)
    path = tmp_path / "training_state.pt"
    state = torch.load(path, weights_only=True)
    assert state["recipe"].pop("contrastive") is None
    torch.save(state, path)
    assert len(pretrain(SMOKE, tmp_path, data_root, quiet=True)) == 3


def test_the_rate_falls_after_the_milestones_and_along_a_cosine(
    data_root: Path, tmp_path: Path
) -> None:
    def rates(name: str, **changes: object) -> list[float]:
        recipe = dataclasses.replace(SMOKE, n_images=50, lr=0.1, **changes)
        return [row["lr"] for row in pretrain(recipe, tmp_path / name, data_root, quiet=True)]

    assert rates("step", epochs=4, milestones=(1, 3)) == [0.1, 0.01, 0.01, 0.001]
    cosine = rates("cosine", epochs=4, schedule="cosine")
    assert cosine == pytest.approx([0.05 * (1 + np.cos(np.pi * i / 4)) for i in range(4)], abs=1e-6)


def test_half_precision_keeps_vectors_as_they_are(data_root: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        SMOKE, epochs=1, checkpoint_epochs=(1,), weights_dtype="float16", n_images=50
    )
    pretrain(recipe, tmp_path, data_root, quiet=True)
    weights = weights_of(tmp_path, 1)
    assert weights["conv1.weight"].dtype == torch.float16
    assert weights["bn1.running_var"].dtype == torch.float32


TWO_PROCESSES = """
import dataclasses, sys, torch
from pathlib import Path
from ckptsel.reproduce import pretrain as room
from ckptsel.reproduce.distributed import open_world
from ckptsel.reproduce.registry import find_recipe

torch.set_num_threads(1)
run, data_root, name, stop = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
recipe = dataclasses.replace(find_recipe(name, "smoke").pretraining, **eval(sys.argv[5]))

def kill(epoch):
    if epoch == stop:
        raise SystemExit(0)

with open_world("cpu") as world:
    room.pretrain(recipe, run, data_root, world=world, quiet=True, on_epoch=kill)
    state = room._start_or_resume(recipe, run, 0, world)
    torch.save(state.network.state_dict(), run / f"rank{world.rank}.pt")
"""


def in_two_processes(*arguments: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        command = [sys.executable, "-c", TWO_PROCESSES, *map(str, arguments)]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_killed(data_root: Path, tmp_path: Path) -> None:
    changes = {"n_images": 100}
    both, killed = tmp_path / "both", tmp_path / "killed"
    in_two_processes(both, data_root, "cifar10-mnist", -1, changes)
    in_two_processes(killed, data_root, "cifar10-mnist", 1, changes)
    in_two_processes(killed, data_root, "cifar10-mnist", -1, changes)
    assert_processes_agree(both)
    last = weights_of(both, 3)
    assert all(torch.equal(last[key], weights_of(killed, 3)[key]) for key in last)
    rows = list(csv.DictReader((both / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


@pytest.mark.slow
def test_two_processes_share_streamed_images(data_root: Path, tmp_path: Path) -> None:
    in_two_processes(tmp_path / "run", data_root, "imagenet", -1, {"epochs": 1})
    assert_processes_agree(tmp_path / "run")
    assert weights_of(tmp_path / "run", 1)["fc.weight"].shape[0] == 3


def assert_processes_agree(folder: Path) -> None:
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_processes_train_as_one(data_root: Path, tmp_path: Path) -> None:
    """A network without batch norm, whose statistics are each process's own."""
    changes = {
        "model": "test_vit",
        "n_images": 100,
        "epochs": 1,
        "augment": (),
        "checkpoint_epochs": (1,),
    }
    recipe = dataclasses.replace(SMOKE, **changes)
    pretrain(recipe, tmp_path / "alone", data_root, quiet=True)
    in_two_processes(tmp_path / "both", data_root, "cifar10-mnist", -1, changes)
    alone, both = weights_of(tmp_path / "alone", 1), weights_of(tmp_path / "both", 1)
    assert all(torch.allclose(alone[name], both[name], atol=1e-5) for name in alone)
    logs = [next(csv.DictReader((tmp_path / n / "log.csv").open())) for n in ("alone", "both")]
    for column in ("train_loss", "source_loss", "source_accuracy"):
        assert float(logs[0][column]) == pytest.approx(float(logs[1][column]), abs=1e-4)


def test_batches_that_cannot_be_shared_are_refused(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batches of 50 cannot be shared equally by 3 processes"):
        pretrain(SMOKE, tmp_path, data_root, world=World("cpu", size=3), quiet=True)


def test_streamed_images_depend_on_seed_epoch_and_image_alone(data_root: Path, monkeypatch) -> None:
    monkeypatch.setattr("ckptsel.reproduce.source_data.auto_workers", lambda *_: 0)

    def epoch(seed: int, number: int, workers: int = 0, world: World | None = None):
        data = open_source_data(STREAMED, data_root, seed, world or World("cpu"))
        batches = data.train(number)
        batches._n_workers = workers
        return list(batches)

    first = epoch(0, 1)
    assert len(first) == 27 // 8
    assert first[0][0].shape == (8, 3, 32, 32)
    assert first[0][0].is_contiguous(memory_format=torch.channels_last)
    for again in (epoch(0, 1), epoch(0, 1, workers=2)):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], epoch(0, 2)[0][0])
    halves = [epoch(0, 1, world=World("cpu", rank, 2))[0] for rank in range(2)]
    joined = torch.stack([halves[0][0], halves[1][0]], dim=1).flatten(0, 1)
    assert torch.equal(joined, first[0][0])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    "box", [(200, 100, 1000, 700), (300, 200, 390, 280)], ids=["large", "small"]
)
def test_cropping_is_that_of_the_whole_decoded_image(suffix: str, box, tmp_path: Path) -> None:
    """Whether it is decoded whole, or at a fraction of its size."""
    ramp = np.linspace(0, 255, 1200)[None, :, None] * np.ones((800, 1, 3))
    path = tmp_path / f"large.{suffix}"
    Image.fromarray(ramp.astype(np.uint8)).save(path, quality=95)
    with Image.open(path) as image:
        found = crop_and_resize(image, box, 64).numpy().astype(float)
        assert image.size == ((150, 100) if (suffix, box[0]) == ("jpg", 200) else (1200, 800))
    with Image.open(path) as image:
        exact = np.asarray(image.crop(box).resize((64, 64), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(found - exact.transpose(2, 0, 1)).max() < 4


def test_an_unreadable_source_image_is_named(data_root: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(data_root / "imagenet", tmp_path / "imagenet")
    broken = next((tmp_path / "imagenet/train/n01440764").iterdir())
    broken.write_bytes(b"not an image")
    with pytest.raises(DataError, match=f"{broken} cannot be read"):
        list(open_source_data(STREAMED, tmp_path, 0, World("cpu")).train(1))


def test_missing_data_says_where_it_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no data at {tmp_path / 'cifar10'}"):
        pretrain(SMOKE, tmp_path / "run", tmp_path, quiet=True)


def test_too_few_source_images_are_counted(data_root: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMOKE, n_images=500)
    with pytest.raises(DataError, match="wants 500 training images, and cifar10 has 120"):
        pretrain(recipe, tmp_path, data_root, quiet=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own compiler
def test_pretraining_on_a_gpu_goes_on_where_it_was_killed(data_root: Path, tmp_path: Path) -> None:
    log = pretrain(SMOKE, tmp_path, data_root, world=World("cuda"), quiet=True)
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert not any("_orig_mod" in name for name in weights_of(tmp_path, 3))
