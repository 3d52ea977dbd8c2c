"""Pre-training: makes the checkpoints of a trajectory, and goes on where it was killed.

A run folder holds `checkpoints/` (weights with epoch and source accuracy, of the epochs that are
analysed), `other-checkpoints/` (those of all other epochs), `log.csv` (one row an epoch), and, until
the last epoch is done, `training_state.pt` (weights, optimiser, log).

One process trains on one device; several that `torchrun` started share the batches.
"""

import dataclasses
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from ckptsel.common.devices import PRECISIONS, default_precision
from ckptsel.common.files import csv_text, write_bytes, write_text
from ckptsel.common.progress import Progress
from ckptsel.errors import InputError, UsageError
from ckptsel.reproduce.distributed import World
from ckptsel.reproduce.methods import Method, method_of
from ckptsel.reproduce.recipes import Pretraining
from ckptsel.reproduce.source_data import SourceData, open_source_data
from ckptsel.training.loop import Training


@dataclass
class TrainingState:
    """Everything that the next epoch needs. network: the weights, without what trains them."""

    method: Method
    network: nn.Module
    training: Training
    scheduler: Any
    epoch: int
    log: list[dict[str, Any]]


def pretrain(
    recipe: Pretraining,
    run: Path,
    data_root: Path,
    seed: int = 0,
    world: World | None = None,
    quiet: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train from the last saved epoch to the end; returns the log, one row an epoch.

    Seeded: on one device and thread count the weights are the same, killed in between or not.
    world: this process among others; a single one on the CPU by default.
    on_epoch: called after an epoch is saved (tests kill the run there).
    Raises InputError where the run folder belongs to another recipe or seed; UsageError where the
    batch cannot be shared equally, or not at all.
    """
    world = world or World("cpu")
    if world.size > 1 and not method_of(recipe).shares:
        raise UsageError(
            f"a contrastive batch cannot be shared by {world.size} processes: its images are held "
            "against each other. Start it without torchrun."
        )
    if recipe.batch_size % world.size:
        raise UsageError(
            f"batches of {recipe.batch_size} cannot be shared equally by {world.size} processes."
        )
    state = _start_or_resume(recipe, run, seed, world)
    if state.epoch == recipe.epochs:
        return state.log
    quiet = quiet or not world.is_main
    if not world.is_main:
        # The first process decodes what the others then read.
        world.wait()
    data = open_source_data(recipe, data_root, seed, world, quiet)
    if world.is_main:
        world.wait()
    title = f"pre-train {recipe.model}"
    with Progress(title, recipe.epochs, done=state.epoch, quiet=quiet) as progress:
        while state.epoch < recipe.epochs:
            row = _train_one_epoch(state, data, world)
            if world.is_main:
                _save(recipe, run, state, seed)
            world.wait()
            progress.advance(
                f"loss {row['train_loss']:.3f}, source accuracy {row['source_accuracy']:.3f}"
            )
            if on_epoch is not None:
                on_epoch(state.epoch)
    return state.log


def checkpoint_name(epoch: int) -> str:
    return f"checkpoint-{epoch:03d}.safetensors"


def _train_one_epoch(state: TrainingState, data: SourceData, world: World) -> dict[str, Any]:
    start = time.monotonic()
    epoch = state.epoch + 1
    state.scheduler.step(epoch - 1)
    trained = world.mean(state.training.run(data.train(epoch)))
    world.share_buffers(state.network)
    # Not through the wrapper: processes may have different numbers of test batches.
    tested = world.mean(state.method.test(state.network, data, state.training.autocast_dtype))
    row = {
        "epoch": epoch,
        "lr": float(f"{state.training.optimizer.param_groups[0]['lr']:.6g}"),
        "train_loss": round(trained.loss, 6),
        "train_accuracy": round(trained.accuracy, 6),
        "source_loss": round(tested.loss, 6),
        "source_accuracy": round(tested.accuracy, 6),
        "time_s": round(time.monotonic() - start, 2),
    }
    state.epoch = epoch
    state.log.append(row)
    return row


def _start_or_resume(recipe: Pretraining, run: Path, seed: int, world: World) -> TrainingState:
    method = method_of(recipe)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = method.network(recipe)
    network = network.to(memory_format=torch.channels_last).to(world.device)
    if world.device.startswith("cuda"):
        # Fused kernels; on a CPU compiling takes longer than it saves.
        network.compile()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    dtype = PRECISIONS[default_precision(world.device)]
    training = Training(
        world.wrap(network),
        optimizer,
        autocast_dtype=dtype,
        objective=method.objective,
        may_split=method.shares,
    )
    scheduler = _scheduler(recipe, optimizer)
    state = TrainingState(method, network, training, scheduler, epoch=0, log=[])
    path = run / "training_state.pt"
    if path.exists():
        saved = torch.load(path, map_location=world.device, weights_only=True)
        if _with_defaults(saved["recipe"]) != _as_plain(recipe) or saved["seed"] != seed:
            raise InputError(
                f"{path} belongs to another recipe or seed (seed {saved['seed']}). "
                "Choose another --out, or remove that folder to start anew."
            )
        state.training.load_state_dict(saved["training"])
        state.epoch, state.log = saved["epoch"], saved["log"]
    return state


def _scheduler(recipe: Pretraining, optimizer: torch.optim.Optimizer) -> Any:
    """timm's, stepped by the epoch, counted from 0; it keeps no state of its own."""
    options: dict[str, Any] = {"sched": "cosine", "min_lr": 0.0}
    if recipe.schedule == "step":
        # timm lowers the rate one epoch before its milestones.
        milestones = [epoch + 1 for epoch in recipe.milestones]
        options = {
            "sched": "multistep",
            "decay_milestones": milestones,
            "decay_rate": recipe.gamma,
        }
    return create_scheduler_v2(optimizer, num_epochs=recipe.epochs, **options)[0]


def _save(recipe: Pretraining, run: Path, state: TrainingState, seed: int) -> None:
    """Checkpoint and log first, the state last: a kill in between repeats the epoch."""
    _save_checkpoint(recipe, run, state, seed)
    write_text(run / "log.csv", csv_text(state.log))
    data = io.BytesIO()
    torch.save(
        {
            "recipe": _as_plain(recipe),
            "seed": seed,
            "epoch": state.epoch,
            "log": state.log,
            "training": state.training.state_dict(),
        },
        data,
    )
    write_bytes(run / "training_state.pt", data.getvalue())


def _save_checkpoint(recipe: Pretraining, run: Path, state: TrainingState, seed: int) -> None:
    dtype = getattr(torch, recipe.weights_dtype)
    kept = state.method.kept(state.network).state_dict()
    weights = {name: _stored(tensor, dtype) for name, tensor in kept.items()}
    metadata = {
        "format": "ckptsel",
        "arch": recipe.model,
        "epoch": str(state.epoch),
        "source_accuracy": str(state.log[-1]["source_accuracy"]),
        "seed": str(seed),
        "lr": str(state.log[-1]["lr"]),
    }
    analysed = state.epoch in recipe.checkpoint_epochs
    folder = run / ("checkpoints" if analysed else "other-checkpoints")
    write_bytes(folder / checkpoint_name(state.epoch), save(weights, metadata))


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices in `dtype`; vectors (batch norm, biases) as they are, for their range matters."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _as_plain(recipe: Pretraining) -> dict[str, Any]:
    return dataclasses.asdict(recipe)


def _with_defaults(saved: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it was saved, before some of its fields were there."""
    known = {f.name: f.default for f in dataclasses.fields(Pretraining)}
    return {**{k: v for k, v in known.items() if v is not dataclasses.MISSING}, **saved}
