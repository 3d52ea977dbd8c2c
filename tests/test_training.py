"""The training loop, its random streams, and augmentation."""

import pytest
import torch
from torch import nn

from ckptsel.training import (
    TensorBatches,
    Training,
    compose,
    epoch_generator,
    evaluate,
    random_crop,
    random_flip,
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
