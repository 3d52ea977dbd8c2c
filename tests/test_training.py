"""The training loop, its random streams, and augmentation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ckptsel.common.devices import exact_dtype
from ckptsel.training.loop import (
    TensorBatches,
    Training,
    compose,
    epoch_generator,
    evaluate,
    measure,
    random_crop,
    random_flip,
    random_resized_crop,
)


def toy() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    return torch.randn(64, 4, generator=generator) + 3 * labels[:, None], labels


def test_an_epoch_learns_and_counts_what_it_saw() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1))
    inputs, labels = toy()
    results = [
        training.run(TensorBatches(inputs, labels, 10, generator=epoch_generator(0, e)))
        for e in range(20)
    ]
    assert results[0].n_samples == 64
    assert results[-1].loss < 0.5 * results[0].loss
    assert evaluate(model, TensorBatches(inputs, labels, 7)).accuracy > 0.9


class NoDoubles(TorchDispatchMode):
    """A device that has no float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{function} gives float64")
        return found


def test_a_device_without_float64(monkeypatch) -> None:
    """Apple's, which no CI has."""
    assert exact_dtype(torch.device("mps")) == torch.float32
    for place in ("training.loop", "target.objective"):
        monkeypatch.setattr(f"ckptsel.{place}.exact_dtype", lambda device: torch.float32)
    inputs, labels = toy()
    model = nn.Linear(4, 2)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with NoDoubles():
        training.run(TensorBatches(inputs, labels, 10, generator=epoch_generator(0, 1)))
        held = evaluate(model, TensorBatches(inputs, labels, 7))
    assert 0 < held.accuracy <= 1


def test_evaluation_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    evaluate(model, TensorBatches(*toy(), 16))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model = nn.Linear(4, 2)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        evaluate(model, TensorBatches(*toy(), 16))


def test_an_epochs_stream_depends_on_seed_and_epoch_alone() -> None:
    draws = [torch.rand(3, generator=epoch_generator(*key)) for key in ((0, 1), (0, 2), (1, 1))]
    again = torch.rand(3, generator=epoch_generator(0, 1))
    assert torch.equal(draws[0], again)
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.arange(2 * 400).view(400, 1, 1, 2)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert bool((mirrored | kept).all())
    assert 150 < int(mirrored.sum()) < 250


def test_crops_move_each_image_by_itself() -> None:
    images = torch.zeros(50, 1, 9, 9)
    images[:, :, 4, 4] = 1
    moved = random_crop(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(50))
    assert len({tuple(place) for place in moved.nonzero()[:, 2:].tolist()}) > 10


def test_compose_applies_in_order_and_is_none_for_nothing() -> None:
    assert compose(()) is None
    transform = compose(("flip", "crop"))
    assert transform is not None
    assert transform(torch.zeros(2, 3, 8, 8), epoch_generator(0, 0)).shape == (2, 3, 8, 8)


def test_chunks_add_up_to_the_whole_batch() -> None:
    results = []
    for n_chunks in (1, 3):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), n_chunks=n_chunks)
        results.append((training.run(TensorBatches(*toy(), 10)), model.weight.detach()))
    (whole, weights), (parts, weights_in_parts) = results
    assert whole.loss == pytest.approx(parts.loss)
    assert whole.accuracy == parts.accuracy
    assert torch.allclose(weights, weights_in_parts, atol=1e-6)


def test_the_streams_of_dropout_depend_on_the_step_alone() -> None:
    def weights(first: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), seed=5)
        batches = list(TensorBatches(*toy(), 10))
        training.run(batches[:first])
        torch.rand(100)  # something else draws in between
        training.run(batches[first:])
        return model[1].weight.detach()

    assert torch.equal(weights(2), weights(5))


def test_the_average_is_what_is_evaluated() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = nn.Linear(4, 2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = Training(model, optimizer, average=average)
    expected = None
    for batch in TensorBatches(*toy(), 16):
        training.run([batch])
        weight = model.weight.detach()
        expected = weight.clone() if expected is None else 0.9 * expected + 0.1 * weight
    assert training.evaluated is average
    assert torch.allclose(average.module.weight, expected, atol=1e-6)


def test_resized_crops_stay_inside_and_keep_the_shape() -> None:
    images = torch.full((20, 3, 16, 16), 7.0)
    crops = random_resized_crop(images, epoch_generator(0, 0))
    assert crops.shape == images.shape
    assert torch.allclose(crops, images)
    ramp = torch.arange(16.0).expand(20, 1, 16, 16)
    spans = random_resized_crop(ramp, epoch_generator(0, 1)).amax((1, 2, 3))
    assert len(set(spans.tolist())) > 10


class Numbers:
    """Labels that are numbers: squared error, and how near the output is."""

    n_outputs = 1

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (outputs[:, 0] - labels).square().mean()

    def utility(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -(outputs[:, 0] - labels).abs().double()

    def strata(self, labels: np.ndarray) -> np.ndarray:
        return np.zeros(len(labels), dtype=np.int64)


def test_another_objective_is_learned_by_the_same_loop() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 3)
    labels = inputs @ torch.tensor([1.0, -2.0, 0.5])
    model = nn.Linear(3, 1)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), objective=Numbers())
    first = training.run(TensorBatches(inputs, labels, 16))
    for _ in range(20):
        last = training.run(TensorBatches(inputs, labels, 16))
    assert last.loss < 0.01 * first.loss
    assert first.accuracy < last.accuracy <= 0
    assert measure(model(inputs).detach(), labels, Numbers()).accuracy > -0.2
