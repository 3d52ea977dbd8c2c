"""Pre-training: makes the checkpoints of a trajectory, and goes on where it was killed.

A run folder holds `checkpoints/` (weights with epoch and source accuracy), `log.csv` (one row an
epoch), and, until the last epoch is done, `training_state.pt` (weights, optimiser, log).
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from ckptsel import cifar_resnet  # noqa: F401  (registers the architectures)
from ckptsel.errors import InputError
from ckptsel.files import atomic_path, csv_text, write_text
from ckptsel.pixels import Preprocessing, decode, normalise
from ckptsel.progress import Progress
from ckptsel.reproduce.recipes import Pretraining
from ckptsel.sources import ImageSet, open_source
from ckptsel.training import TensorBatches, Training, compose, epoch_generator, evaluate

EVALUATION_BATCH = 500


@dataclass
class TrainingState:
    """Everything that the next epoch needs."""

    training: Training
    epoch: int
    log: list[dict[str, Any]]


def pretrain(
    recipe: Pretraining,
    run: Path,
    data_root: Path,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train from the last saved epoch to the end; returns the log, one row an epoch.

    Seeded: on one device and thread count the weights are the same, killed in between or not.
    on_epoch: called after an epoch is saved (tests kill the run there).
    Raises InputError where the run folder belongs to another recipe or seed.
    """
    preprocessing = _preprocessing_of(recipe.model)
    train_batches, test_batches = _open_batches(recipe, data_root, preprocessing, seed, device)
    state = _start_or_resume(recipe, run, seed, device)
    title = f"pre-train {recipe.model}"
    with Progress(title, recipe.epochs, done=state.epoch, quiet=quiet) as progress:
        while state.epoch < recipe.epochs:
            row = _train_one_epoch(recipe, state, train_batches, test_batches, seed)
            _save(recipe, run, state, seed)
            progress.advance(
                f"loss {row['train_loss']:.3f}, source accuracy {row['source_accuracy']:.3f}"
            )
            if on_epoch is not None:
                on_epoch(state.epoch)
    return state.log


def checkpoint_name(epoch: int) -> str:
    return f"checkpoint-{epoch:03d}.safetensors"


def _train_one_epoch(
    recipe: Pretraining,
    state: TrainingState,
    train_batches: TensorBatches,
    test_batches: TensorBatches,
    seed: int,
) -> dict[str, Any]:
    start = time.monotonic()
    epoch = state.epoch + 1
    rate = recipe.learning_rate(epoch)
    for group in state.training.optimizer.param_groups:
        group["lr"] = rate
    batches = dataclasses.replace(train_batches, generator=epoch_generator(seed, epoch))
    trained = state.training.run(batches)
    tested = evaluate(state.training.model, test_batches)
    row = {
        "epoch": epoch,
        "lr": float(f"{rate:.6g}"),
        "train_loss": round(trained.loss, 6),
        "train_accuracy": round(trained.accuracy, 6),
        "source_loss": round(tested.loss, 6),
        "source_accuracy": round(tested.accuracy, 6),
        "time_s": round(time.monotonic() - start, 2),
    }
    state.epoch = epoch
    state.log.append(row)
    return row


def _start_or_resume(recipe: Pretraining, run: Path, seed: int, device: str) -> TrainingState:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(recipe.model)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    state = TrainingState(Training(model, optimizer), epoch=0, log=[])
    path = run / "training_state.pt"
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["recipe"] != _as_plain(recipe) or saved["seed"] != seed:
            raise InputError(
                f"{path} belongs to another recipe or seed (seed {saved['seed']}). "
                "Choose another --out, or remove that folder to start anew."
            )
        state.training.load_state_dict(saved["training"])
        state.epoch, state.log = saved["epoch"], saved["log"]
    return state


def _save(recipe: Pretraining, run: Path, state: TrainingState, seed: int) -> None:
    """Checkpoint and log first, the state last: a kill in between repeats the epoch."""
    if state.epoch in recipe.checkpoint_epochs:
        _save_checkpoint(recipe, run, state, seed)
    write_text(run / "log.csv", csv_text(state.log))
    with atomic_path(run / "training_state.pt") as temporary:
        torch.save(
            {
                "recipe": _as_plain(recipe),
                "seed": seed,
                "epoch": state.epoch,
                "log": state.log,
                "training": state.training.state_dict(),
            },
            temporary,
        )


def _save_checkpoint(recipe: Pretraining, run: Path, state: TrainingState, seed: int) -> None:
    dtype = getattr(torch, recipe.weights_dtype)
    weights = {name: _stored(t, dtype) for name, t in state.training.model.state_dict().items()}
    metadata = {
        "format": "ckptsel",
        "arch": recipe.model,
        "epoch": str(state.epoch),
        "source_accuracy": str(state.log[-1]["source_accuracy"]),
        "seed": str(seed),
    }
    with atomic_path(run / "checkpoints" / checkpoint_name(state.epoch)) as temporary:
        save_file(weights, temporary, metadata)


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices in `dtype`; vectors (batch norm, biases) as they are, for their range matters."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _as_plain(recipe: Pretraining) -> dict[str, Any]:
    return dataclasses.asdict(recipe)


def _preprocessing_of(model_name: str) -> Preprocessing:
    config = timm.get_pretrained_cfg(model_name)
    return Preprocessing(
        input_size=config.input_size,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        crop_pct=config.crop_pct,
    )


def _open_batches(
    recipe: Pretraining, data_root: Path, preprocessing: Preprocessing, seed: int, device: str
) -> tuple[TensorBatches, TensorBatches]:
    source = open_source(str(data_root / recipe.data))
    train = source.read("train")
    if recipe.n_images is not None:
        order = np.random.default_rng(seed).permutation(len(train))
        train = train.subset(order[: recipe.n_images])
    test = source.read("test")

    def prepare(pixels: Tensor) -> Tensor:
        return normalise(pixels, preprocessing).contiguous(memory_format=torch.channels_last)

    def batches(images: ImageSet, batch_size: int, augment: Any) -> TensorBatches:
        pixels = torch.from_numpy(decode(images, preprocessing, cache=None, quiet=True))
        labels = torch.from_numpy(images.labels)
        return TensorBatches(pixels.to(device), labels.to(device), batch_size, prepare, augment)

    return (
        batches(train, recipe.batch_size, compose(recipe.augment)),
        batches(test, EVALUATION_BATCH, None),
    )
