"""One FE or FT run: a candidate trained on the target with one seed and one learning rate.

FE trains a softmax layer on frozen features, read where the candidate is (extracted once, in
evaluation mode: the network and its batch-norm statistics do not change). FT trains the whole network
under a new layer on its last, wherever the candidate is read. For one seed all candidates see the same
batches, augmentation draws and first weights of the new layer.

A run is kept as a record under a key of everything that determines it, so that one that was killed
goes on, and one that was done is not done again.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckptsel.common.devices import PRECISIONS, few_threads
from ckptsel.confirmation.protocols import TrainingPlan
from ckptsel.errors import UsageError
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoder import LAST
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.extraction import extract_features
from ckptsel.features.store import Cache
from ckptsel.ranking.workspace import Workspace
from ckptsel.results.confirmation import Point
from ckptsel.target.images import digest_of
from ckptsel.training.heads import gaussian_head
from ckptsel.training.loop import (
    TensorBatches,
    Training,
    compose,
    epoch_generator,
    measure,
    predict,
)

TRANSFER_VERSION = 1
"""Part of the cache key; raised whenever the same run would give other numbers."""

SAVE_INTERVAL_S = 20.0

Predictions = NDArray[np.int64]

OnPoints = Callable[[str, int, Sequence[Point]], None]
"""Told the new points of a run, of which there is one at least: name of the candidate, seed, points."""

Engine = Callable[[Sequence["Transfer"], int, OnPoints | None], Iterator["Transfer"]]
"""(runs, step, who is told of points) -> each run once it has got to the step, the end of a rung: the
place where runs are trained."""


def train_here(
    runs: Sequence["Transfer"], to_step: int, on_points: OnPoints | None = None
) -> Iterator["Transfer"]:
    """The engine of this process: one run after the other."""
    for run in runs:
        run.advance(to_step, on_points)
        yield run


@dataclass
class Record:
    """What is kept of a run.

    predictions: class numbers of the held-out images by step (the ends of rungs).
    diverged_at: the step by which the loss was no longer finite.
    """

    points: list[Point] = field(default_factory=list)
    predictions: dict[int, Predictions] = field(default_factory=dict)
    diverged_at: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "points": [dataclasses.astuple(point) for point in self.points],
            # Copies: what comes from another machine may be read-only.
            "predictions": {k: torch.from_numpy(v.copy()) for k, v in self.predictions.items()},
            "diverged_at": self.diverged_at,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Record":
        return cls(
            points=[Point(*point) for point in value["points"]],
            predictions={k: v.numpy() for k, v in value["predictions"].items()},
            diverged_at=value["diverged_at"],
        )


class Network(nn.Module):
    """An encoder's network with a new linear layer on its features."""

    def __init__(self, encoder: ImageEncoder, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.body, self.head = encoder, encoder.module, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of normalised images (N, C, H, W)."""
        return self.head(self.encoder.penultimate(images))


@dataclass
class Task:
    """What all runs of one goal share.

    fitted, held: indices of images, counted over the target as one sequence.
    cache: where records are kept.
    engine: where runs are trained.
    n_chunks: as in `Training`; a run that runs out of memory raises it for all.
    """

    protocol: TrainingPlan
    workspace: Workspace
    cache: Cache
    fitted: NDArray[np.int64]
    held: NDArray[np.int64]
    engine: Engine = train_here
    n_chunks: int = 1
    _parts: list[Tensor] | None = None
    _features_of: str = ""

    def release(self) -> None:
        """Drop the inputs, which may fill a device; they are made again when they are asked for."""
        self._parts = None

    @property
    def encoder(self) -> ImageEncoder:
        """The network that is trained. Raises UsageError where only its features can be had."""
        encoder = self.workspace.encoder
        if not isinstance(encoder, ImageEncoder):
            raise UsageError(f"{encoder.name} gives features only: it cannot be trained for real.")
        return encoder

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes of the held-out images."""
        return self.workspace.target.labels[self.held]

    def batches(self, candidate: Candidate, seed: int, epoch: int | None) -> TensorBatches:
        """The batches of one epoch of training; of the held-out images where `epoch` is None."""
        training = epoch is not None
        inputs, labels, rows = self._inputs(candidate, self.fitted if training else self.held)
        frozen = self.protocol.goal == "fe"
        batch_size = self.protocol.batch_size
        return TensorBatches(
            inputs,
            labels,
            # What fits into memory with gradients fits without.
            batch_size if training else max(1, batch_size // self.n_chunks),
            prepare=None if frozen else self._prepare,
            augment=compose(self.protocol.augment),
            generator=None if epoch is None else epoch_generator(seed, epoch),
            rows=rows,
            drop_last=training,
        )

    def start(self, candidate: Candidate, seed: int, lr: float) -> Training:
        """A training at its first step."""
        protocol, device = self.protocol, self.workspace.device
        if protocol.goal == "fe":
            n_features = self._inputs(candidate, self.fitted)[0].shape[1]
            model: nn.Module = self._new_layer(n_features, seed)
        else:
            self.workspace.load(candidate.checkpoint)
            model = Network(self.encoder, self._new_layer(self._n_features, seed))
            model = model.to(memory_format=self.encoder.memory_format)
        model = model.to(device)
        optimizer = create_optimizer_v2(
            model, protocol.optimizer, lr=lr, weight_decay=protocol.weight_decay, momentum=0.9
        )
        average = None
        if protocol.ema is not None:
            average = AveragedModel(
                model, multi_avg_fn=get_ema_multi_avg_fn(protocol.ema), use_buffers=True
            )
        frozen = protocol.goal == "fe"
        return Training(
            model,
            optimizer,
            LambdaLR(optimizer, protocol.rate_factor),
            average,
            None if frozen else PRECISIONS[self.workspace.precision],
            # A single layer draws nothing at random.
            seed=None if frozen else seed,
            n_chunks=self.n_chunks,
            objective=self.workspace.target.objective,
        )

    def n_values(self, candidate: Candidate) -> float:
        """Size of what a step computes with: few for a layer on features, many for a network."""
        if self.protocol.goal == "ft":
            return float("inf")
        return self._inputs(candidate, self.fitted)[0].numel()

    def key(self, candidate: Candidate, seed: int, lr: float) -> str:
        """The key of a run's record."""
        if self.protocol.goal == "ft":
            candidate = Candidate(candidate.checkpoint)  # whatever the layer, the run is the same
        about = {**self.protocol.to_dict(), "lrs": lr, "seed": seed}
        workspace = self.workspace
        return digest_of(
            f"transfer {TRANSFER_VERSION}",
            json.dumps(about, sort_keys=True),
            *workspace.feature_keys(candidate),
            workspace.target.labels.tobytes(),
            self.fitted.tobytes(),
            self.held.tobytes(),
        )

    def _new_layer(self, n_features: int, seed: int) -> nn.Linear:
        return gaussian_head(n_features, self.workspace.target.objective.n_outputs, seed)

    @cached_property
    def _n_features(self) -> int:
        """The same for all checkpoints of an architecture."""
        self.encoder.to(self.workspace.device)
        with torch.no_grad():
            example = torch.zeros(2, *self.encoder.preparation.shape, device=self.workspace.device)
            return self.encoder.penultimate(example).shape[1]

    def _prepare(self, pixels: Tensor) -> Tensor:
        return self.encoder.normalise(pixels)

    def _inputs(
        self, candidate: Candidate, indices: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and labels of the image set that `indices` lie in, and their rows in it."""
        target = self.workspace.target
        if self._parts is None or self._features_of not in ("", candidate.name):
            self._parts = self._load_parts(candidate)
        first = 0
        for part, images in zip(self._parts, target.image_sets, strict=True):
            if indices[0] < first + len(images):
                labels = target.labels[first : first + len(images)]
                rows = torch.from_numpy(indices - first)
                return part, torch.from_numpy(labels).to(self.workspace.device), rows
            first += len(images)
        raise AssertionError("indices beyond the target")

    def _load_parts(self, candidate: Candidate) -> list[Tensor]:
        """Pixels of each image set; or features of a candidate, which then names them."""
        if self.protocol.goal == "ft":
            # `as_tensor` leaves those alone that lie on a GPU already.
            return [torch.as_tensor(part) for part in self.workspace.samples()]
        self._features_of = candidate.name
        features = torch.from_numpy(self.workspace.features(candidate))
        if self.protocol.scale_features:
            features = features - features[self.fitted].mean(0)
            features = features / features[self.fitted].square().mean().sqrt()
        sizes = [len(images) for images in self.workspace.target.image_sets]
        return list(features.to(self.workspace.device).split(sizes))


class Transfer:
    """A run that goes on to a step when it is asked to."""

    def __init__(self, task: Task, candidate: Candidate, seed: int, lr: float) -> None:
        self.task, self.candidate, self.seed, self.lr = task, candidate, seed, lr
        self._key = task.key(candidate, seed, lr)
        kept = task.cache.get_record("transfers", self._key)
        self.record = Record() if kept is None else Record.from_dict(kept)
        self._saved = time.monotonic()

    def has_reached(self, step: int) -> bool:
        """Whether nothing is left to train up to a step, the end of a rung."""
        return step in self.record.predictions or self.record.diverged_at is not None

    def advance(self, to_step: int, on_points: OnPoints | None = None) -> Predictions | None:
        """Held-out predictions (N,) after `to_step`, the end of a rung; None where it diverged."""
        if not self.has_reached(to_step):
            with few_threads(self.task.n_values(self.candidate)):
                self._train(to_step, on_points)
        return self.record.predictions.get(to_step)

    def take(self, record: Record, on_points: OnPoints | None = None) -> None:
        """Go on from a record of the same run that was trained elsewhere, and keep it here."""
        past = self.record.points[-1].step if self.record.points else 0
        new = [point for point in record.points if point.step > past]
        self.record = record
        self.task.cache.put_record("transfers", self._key, record.to_dict())
        if new and on_points is not None:
            on_points(self.candidate.name, self.seed, new)

    def forget_training(self) -> None:
        """Drop the weights, which the results no longer need."""
        self.task.cache.drop_record("training", self._key)

    def features_after(self) -> NDArray[np.float32]:
        """Features (N, D) of all images of the target by the fine-tuned network at the end of the
        run, which is trained (again) where they are not kept.

        Raises FloatingPointError where it diverges.
        """
        task, workspace = self.task, self.task.workspace
        key = digest_of("features after", self._key)
        features = task.cache.get_features(key)
        if features is None:
            self._train(task.protocol.n_steps, None)
            if self.record.diverged_at is not None:
                raise FloatingPointError(f"{self.candidate.name} diverged")
            parts = [
                extract_features(
                    workspace.encoder,
                    samples,
                    workspace.device,
                    workspace.precision,
                    workspace.settings.batch_size,
                )[LAST]
                for samples in workspace.samples()
            ]
            features = np.concatenate(parts)
            task.cache.put_features(key, features)
        return features

    def _train(self, to_step: int, on_points: OnPoints | None) -> None:
        record, task = self.record, self.task
        training = task.start(self.candidate, self.seed, self.lr)
        state = task.cache.get_record("training", self._key)
        if state is not None:
            training.load_state_dict(state)
        training.n_chunks = max(training.n_chunks, task.n_chunks)
        first = training.step
        record.points = [point for point in record.points if point.step <= first]
        for stop in task.protocol.curve_steps(len(task.held)):
            if first < stop <= to_step and record.diverged_at is None:
                point = self._train_to(stop, training)
                if point is not None:
                    record.points.append(point)
                    if on_points is not None:
                        on_points(self.candidate.name, self.seed, [point])
                self._save(training, now=stop == to_step or point is None)

    def _train_to(self, stop: int, training: Training) -> Point | None:
        """Train up to a step and evaluate there; None where the loss is no longer finite."""
        task, protocol = self.task, self.task.protocol
        loss_sum, n_samples = 0.0, 0
        try:
            while training.step < stop:
                n_batches = len(task.fitted) // protocol.batch_size
                epoch, done = divmod(training.step, n_batches)
                last = min(n_batches, done + stop - training.step)
                # The batches before are drawn again, so that the stream is where it was.
                batches = task.batches(self.candidate, self.seed, epoch + 1)
                means = training.run(islice(batches, done, last))
                loss_sum += means.loss * means.n_samples
                n_samples += means.n_samples
            task.n_chunks = training.n_chunks
            held_out = task.batches(self.candidate, self.seed, epoch=None)
            logits, labels = predict(training.evaluated, held_out, training.autocast_dtype)
            held = measure(logits, labels, task.workspace.target.objective)
        except FloatingPointError:
            self.record.diverged_at = stop
            return None
        if stop in protocol.rungs:
            self.record.predictions[stop] = logits.argmax(1).cpu().numpy()
        return Point(stop, loss_sum / n_samples, held.loss, held.accuracy)

    def _save(self, training: Training, now: bool) -> None:
        """Keep the state at the end of a rung, and between when it is time.

        The record first: it may be ahead of the weights, never behind them.
        """
        if not now and time.monotonic() - self._saved < SAVE_INTERVAL_S:
            return
        self._saved = time.monotonic()
        self.task.cache.put_record("transfers", self._key, self.record.to_dict())
        if training.step == self.task.protocol.n_steps or self.record.diverged_at is not None:
            self.forget_training()
        else:
            self.task.cache.put_record("training", self._key, training.state_dict())
