"""One short training loop, for every training that ckptsel does.

The caller owns the epochs: it makes the batches of one epoch, calls `train_epoch`, and saves what
it wants to keep. The random numbers of an epoch depend on (seed, epoch) alone, so a run that was
killed goes on with the stream that it would have had.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class EpochResult:
    """Means over the samples of one epoch. loss in nats, accuracy a fraction."""

    loss: float
    accuracy: float
    n_samples: int


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    autocast_dtype: torch.dtype | None = None,
) -> EpochResult:
    """One pass of cross-entropy training over `batches` of (inputs, labels).

    Raises FloatingPointError where the loss is not finite: the caller decides what that means.
    """
    model.train()
    return _run(model, batches, optimizer, autocast_dtype)


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], autocast_dtype: torch.dtype | None = None
) -> EpochResult:
    """Loss and accuracy in evaluation mode, without gradients."""
    model.eval()
    return _run(model, batches, None, autocast_dtype)


def _run(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer | None,
    autocast_dtype: torch.dtype | None,
) -> EpochResult:
    loss_sum = torch.zeros((), dtype=torch.float64)
    n_correct = torch.zeros((), dtype=torch.int64)
    n_samples = 0
    for inputs, labels in batches:
        with torch.autocast(
            inputs.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None
        ):
            logits = model(inputs)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss_sum = loss_sum.to(loss.device) + loss.detach().double() * len(labels)
        n_correct = n_correct.to(loss.device) + (logits.argmax(1) == labels).sum()
        n_samples += len(labels)
    mean_loss = float(loss_sum) / n_samples
    if not np.isfinite(mean_loss):
        raise FloatingPointError(f"the loss is {mean_loss}: training diverged")
    return EpochResult(mean_loss, int(n_correct) / n_samples, n_samples)


@dataclass(frozen=True)
class TensorBatches:
    """Batches of tensors that are already on the device.

    inputs: (N, ...), labels: (N,) int64. `prepare` turns a batch of inputs into what the model
    takes (normalisation), `augment` changes it at random first. Without a generator the order is
    that of the samples; with one they are shuffled, and a last partial batch is kept.
    """

    inputs: Tensor
    labels: Tensor
    batch_size: int
    prepare: Callable[[Tensor], Tensor] | None = None
    augment: Transform | None = None
    generator: torch.Generator | None = None

    def __iter__(self) -> Iterator[Batch]:
        n_samples = len(self.labels)
        if self.generator is None:
            order = torch.arange(n_samples)
        else:
            order = torch.randperm(n_samples, generator=self.generator)
        for indices in order.to(self.labels.device).split(self.batch_size):
            inputs = self.inputs[indices]
            if self.augment is not None and self.generator is not None:
                inputs = self.augment(inputs, self.generator)
            if self.prepare is not None:
                inputs = self.prepare(inputs)
            yield inputs, self.labels[indices]


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random stream of one epoch of one run, on the CPU."""
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of (N, C, H, W) mirrored left to right with probability one half."""
    flip = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(flip.to(images.device), images.flip(3), images)


def random_crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Each image of (N, C, H, W) moved by up to `padding` pixels, zeros outside."""
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4)
    shift = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator).to(images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    sample = torch.arange(n, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Transform] = {"flip": random_flip, "crop": random_crop}


def compose(names: Iterable[str]) -> Transform | None:
    """The named augmentations, one after the other; None where there are none."""
    transforms = [AUGMENTATIONS[name] for name in names]

    def apply(images: Tensor, generator: torch.Generator) -> Tensor:
        for transform in transforms:
            images = transform(images, generator)
        return images

    return apply if transforms else None
