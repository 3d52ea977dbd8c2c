"""One short training loop, for every training that ckptsel does.

The caller owns the epochs: it makes batches, gives them to `Training.run`, and saves what it wants
to keep. The random numbers of an epoch depend on (seed, epoch) alone, those of a step inside the
network (dropout) on (seed, step), so a run that was killed goes on with the stream that it would
have had.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from ckptsel.common.devices import exact_dtype, is_out_of_memory, send
from ckptsel.target.objective import Classes, Objective
from ckptsel.training.colour import colour_jitter, random_grey

CLASSES = Classes()
"""The objective where none is named; its names play no part in training."""

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Means:
    """Means over the samples that went by.

    loss: in nats for classes.
    accuracy: the objective's utility, a fraction for classes.
    """

    loss: float
    accuracy: float
    n_samples: int


@dataclass
class Training:
    """A model in training, and everything that its steps change.

    scheduler: moves the learning rate after every step; None leaves it to the caller.
    average: a moving average of the weights, updated after every step.
    autocast_dtype: mixed precision; None computes in the model's own type.
    seed: of the random numbers inside the network, one stream a step; None leaves them alone.
    n_chunks: parts that a batch is cut into so that it fits in memory. Their gradients add up to
    those of the whole batch; batch norm sees one part at a time.
    objective: what the labels stand for, which gives the loss.
    may_split: whether a batch may be cut, as a loss must be a mean over samples for. Where it may not,
    a batch that does not fit raises the RuntimeError of the device.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    average: AveragedModel | None = None
    autocast_dtype: torch.dtype | None = None
    seed: int | None = None
    n_chunks: int = 1
    objective: Objective = CLASSES
    may_split: bool = True
    step: int = 0
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        # Gradients of float16 underflow unless the loss is scaled up.
        device = next(self.model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.autocast_dtype is torch.float16)

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate: the average where there is one."""
        return self.model if self.average is None else self.average

    def run(self, batches: Iterable[Batch]) -> Means:
        """One step for each batch of (inputs, labels).

        Raises FloatingPointError where the loss is not finite: the caller decides what that means.
        """
        with torch.random.fork_rng(enabled=self.seed is not None):
            return self._run(batches)

    def _run(self, batches: Iterable[Batch]) -> Means:
        self.model.train()
        loss_sum: Tensor | float = 0.0
        utility: Tensor | float = 0.0
        n_samples = 0
        for inputs, labels in batches:
            loss, good = self._accumulate(inputs, labels)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.scheduler is not None:
                self.scheduler.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            self.step += 1
            loss_sum = loss_sum + loss
            utility = utility + good
            n_samples += len(labels)
        mean_loss = float(loss_sum) / n_samples
        _check_finite(mean_loss)
        return Means(mean_loss, float(utility) / n_samples, n_samples)

    def _accumulate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss of a batch, in smaller chunks where memory runs out."""
        while True:
            try:
                return self._backward(inputs, labels)
            except RuntimeError as error:
                splits = self.may_split and self.n_chunks < len(labels)
                if not splits or not is_out_of_memory(error):
                    raise
                self.n_chunks *= 2

    def _backward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.seed is not None:
            torch.manual_seed(stream_state(self.seed, self.step, 1))
        self.optimizer.zero_grad(set_to_none=True)
        exact = exact_dtype(labels.device)
        loss_sum = torch.zeros((), dtype=exact, device=labels.device)
        utility = torch.zeros((), dtype=exact, device=labels.device)
        for part, part_labels in zip(
            inputs.chunk(self.n_chunks), labels.chunk(self.n_chunks), strict=True
        ):
            logits = _logits(self.model, part, self.autocast_dtype)
            loss = self.objective.loss(logits, part_labels)
            self.scaler.scale(loss * (len(part_labels) / len(labels))).backward()
            loss_sum += loss.detach().to(exact) * len(part_labels)
            utility += self.objective.utility(logits.detach(), part_labels).sum()
        return loss_sum, utility

    def state_dict(self) -> dict[str, Any]:
        """What the next step needs, as tensors and plain values."""
        state: dict[str, Any] = {"step": self.step, "n_chunks": self.n_chunks}
        for name in ("model", "optimizer", "scheduler", "average", "scaler"):
            part = self._part(name)
            state[name] = None if part is None else part.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same training."""
        self.step, self.n_chunks = state["step"], state["n_chunks"]
        for name in ("model", "optimizer", "scheduler", "average", "scaler"):
            if state[name] is not None:
                self._part(name).load_state_dict(state[name])

    def _part(self, name: str) -> Any:
        """A part of the state. The network without its wrapper, so that a training may go on with
        another number of processes."""
        part = getattr(self, name)
        return part.module if isinstance(part, DistributedDataParallel) else part


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[Batch], autocast_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (N, C), float32, and labels (N,) in evaluation mode, on the device of the batches."""
    model.eval()
    outputs = [(_logits(model, inputs, autocast_dtype), labels) for inputs, labels in batches]
    return torch.cat([logits for logits, _ in outputs]), torch.cat([y for _, y in outputs])


def evaluate(
    model: nn.Module, batches: Iterable[Batch], autocast_dtype: torch.dtype | None = None
) -> Means:
    """Loss and accuracy in evaluation mode, without gradients. Raises as `Training.run` does."""
    return measure(*predict(model, batches, autocast_dtype))


def measure(logits: Tensor, labels: Tensor, objective: Objective = CLASSES) -> Means:
    """Means over outputs (N, C) and labels (N,). Raises FloatingPointError as `Training.run` does."""
    loss = float(objective.loss(logits.to(exact_dtype(logits.device)), labels))
    _check_finite(loss)
    return Means(loss, float(objective.utility(logits, labels).mean()), len(labels))


def _logits(model: nn.Module, inputs: Tensor, autocast_dtype: torch.dtype | None) -> Tensor:
    enabled = autocast_dtype is not None
    with torch.autocast(inputs.device.type, dtype=autocast_dtype, enabled=enabled):
        logits: Tensor = model(inputs)
    return logits.float()


def _check_finite(loss: float) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}: training diverged")


@dataclass(frozen=True)
class TensorBatches:
    """Batches of samples that lie in one tensor, on the device of the labels.

    inputs: (N, ...), on any device or mapped from a file.
    labels: (N,) int64.
    rows: which samples are used, all of them by default. `prepare` turns a batch of inputs into
    what the model takes (normalisation), `augment` changes it at random first. Without a generator
    the order is that of the samples; with one they are shuffled.
    drop_last: leave out a last partial batch.
    share: (i, n) keeps every n-th sample of each batch, from the i-th on: the part of process i of
    n.
    augment_generator: where the draws of `augment` come from, by default `generator`.
    """

    inputs: Tensor
    labels: Tensor
    batch_size: int
    prepare: Callable[[Tensor], Tensor] | None = None
    augment: Transform | None = None
    generator: torch.Generator | None = None
    rows: Tensor | None = None
    drop_last: bool = False
    share: tuple[int, int] = (0, 1)
    augment_generator: torch.Generator | None = None

    def __len__(self) -> int:
        """Batches in one pass."""
        n = len(self.labels) if self.rows is None else len(self.rows)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rows = torch.arange(len(self.labels)) if self.rows is None else self.rows
        if self.generator is not None:
            rows = rows[torch.randperm(len(rows), generator=self.generator)]
        device = self.labels.device
        draws = self.augment_generator or self.generator
        first, step = self.share
        places = (
            send(rows, where).split(self.batch_size) for where in (self.inputs.device, device)
        )
        for of_inputs, of_labels in islice(zip(*places, strict=True), len(self)):
            inputs = send(self.inputs[of_inputs[first::step]], device)
            if self.augment is not None and draws is not None:
                inputs = self.augment(inputs, draws)
            if self.prepare is not None:
                inputs = self.prepare(inputs)
            yield inputs, self.labels[of_labels[first::step]]


def stream_state(*key: int) -> int:
    """A 64-bit seed for the stream that the numbers name: a run's seed, then an epoch or a step."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def epoch_generator(seed: int, epoch: int, *key: int) -> torch.Generator:
    """The random stream of one epoch of one run, on the CPU; `key` names one of several."""
    return torch.Generator().manual_seed(stream_state(seed, epoch, *key))


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of (N, C, H, W) mirrored left to right with probability one half."""
    flip = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(send(flip, images.device), images.flip(3), images)


def random_crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Each image of (N, C, H, W) moved by up to `padding` pixels, zeros outside."""
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4)
    shift = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    shift = send(shift, images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    sample = torch.arange(n, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """A random part of each image of (N, C, H, W), resized (bilinear) to the size of the whole.

    scale: area of the part as a fraction of the image. ratio: its width to its height.
    """
    n = len(images)
    area, aspect, across, down = torch.rand(4, n, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * area
    root = (ratio[0] * (ratio[1] / ratio[0]) ** aspect).sqrt()
    width, height = (area.sqrt() * root).clamp(max=1), (area.sqrt() / root).clamp(max=1)
    grid = torch.zeros(n, 2, 3)
    grid[:, 0, 0], grid[:, 1, 1] = width, height
    grid[:, 0, 2], grid[:, 1, 2] = (2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height)
    places = nn.functional.affine_grid(
        send(grid, images.device), list(images.shape), align_corners=False
    )
    # Reflected at the edge, since a sample may fall half a pixel outside.
    return nn.functional.grid_sample(
        images.float(), places, padding_mode="reflection", align_corners=False
    )


AUGMENTATIONS: dict[str, Transform] = {
    "flip": random_flip,
    "crop": random_crop,
    "resized_crop": random_resized_crop,
    "small_resized_crop": partial(random_resized_crop, scale=(0.08, 1.0)),
    "colour_jitter": colour_jitter,
    "grey": random_grey,
}


def compose(names: Iterable[str]) -> Transform | None:
    """The named augmentations, one after the other; None where there are none."""
    transforms = [AUGMENTATIONS[name] for name in names]

    def apply(images: Tensor, generator: torch.Generator) -> Tensor:
        for transform in transforms:
            images = transform(images, generator)
        return images

    return apply if transforms else None
