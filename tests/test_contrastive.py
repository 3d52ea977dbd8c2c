"""Learning without labels: the loss beside a double loop, its pairs, colours beside torchvision."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as oracle

from ckptsel.reproduce.methods import neighbour_accuracy
from ckptsel.training.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    colour_jitter,
    random_grey,
    turn_hue,
)
from ckptsel.training.contrastive import ContrastiveViews, ViewPairs, two_views
from ckptsel.training.loop import TensorBatches, Training, compose, epoch_generator, random_flip

TEMPERATURE = 0.3
OBJECTIVE = ContrastiveViews(TEMPERATURE)


def random_projections(n_images: int, width: int = 5) -> tuple[Tensor, Tensor]:
    """Views in no order, so that partners are found by their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n_images).repeat(2)[torch.randperm(2 * n_images, generator=generator)]
    outputs = torch.randn(2 * n_images, width, generator=generator, dtype=torch.float64)
    return 3 * outputs, labels


def naive_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Equation 1 of SimCLR, one pair after the other."""
    losses = []
    for i in range(len(outputs)):
        positive, everything = None, torch.zeros((), dtype=outputs.dtype)
        for k in range(len(outputs)):
            if k != i:
                norms = outputs[i].square().sum().sqrt() * outputs[k].square().sum().sqrt()
                term = torch.exp((outputs[i] * outputs[k]).sum() / norms / TEMPERATURE)
                everything = everything + term
                if labels[k] == labels[i]:
                    positive = term
        losses.append(-torch.log(positive / everything))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_are_those_of_a_double_loop() -> None:
    outputs, labels = random_projections(6)
    fast, slow = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    losses = OBJECTIVE.loss(fast, labels), naive_loss(slow, labels)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    for loss in losses:
        loss.backward()
    assert torch.allclose(fast.grad, slow.grad, atol=1e-12)
    assert fast.grad.abs().max() > 0.01


def test_the_gradient_is_that_of_finite_differences() -> None:
    outputs, labels = random_projections(4)
    assert torch.autograd.gradcheck(lambda x: OBJECTIVE.loss(x, labels), outputs.requires_grad_())


def test_pairs_that_agree_and_differ_from_all_others_have_the_least_loss() -> None:
    labels = torch.arange(4).repeat_interleave(2)
    found = OBJECTIVE.loss(torch.eye(4)[labels], labels)
    assert found.item() == pytest.approx(math.log(1 + 6 * math.exp(-1 / TEMPERATURE)), rel=1e-5)
    assert OBJECTIVE.utility(torch.eye(4)[labels], labels).tolist() == [1.0] * 8
    assert OBJECTIVE.loss(torch.ones(8, 4), labels).item() == pytest.approx(math.log(7), rel=1e-5)


def test_an_image_with_one_view_is_an_error() -> None:
    with pytest.raises(ValueError, match="every image must have two views"):
        OBJECTIVE.loss(torch.eye(4), torch.tensor([0, 0, 1, 2]))


def test_batches_hold_both_views_of_an_image_side_by_side() -> None:
    images = torch.arange(10.0)[:, None, None, None] + torch.tensor([0.0, 0.5])
    batches = TensorBatches(
        images,
        torch.zeros(10, dtype=torch.int64),
        4,
        augment=two_views(random_flip),
        generator=epoch_generator(0, 1),
        drop_last=True,
    )
    pairs = list(ViewPairs(batches))
    assert len(pairs) == len(ViewPairs(batches)) == 2
    for inputs, labels in pairs:
        assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        numbers = inputs.floor()[:, 0, 0, 0]
        assert torch.equal(numbers[0::2], numbers[1::2]) and len(set(numbers.tolist())) == 4
    different = torch.cat([(x[0::2] != x[1::2]).flatten(1).any(1) for x, _ in pairs])
    assert 0 < int(different.sum()) < len(different)


def test_a_batch_whose_views_belong_together_is_never_cut(monkeypatch) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = Training(model, optimizer, objective=OBJECTIVE, may_split=False)

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training, "_backward", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        training.run([(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))])
    assert training.n_chunks == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (adjust_brightness, oracle.adjust_brightness, (0.6, 1.0, 1.4)),
        (adjust_contrast, oracle.adjust_contrast, (0.6, 1.0, 1.4)),
        (adjust_saturation, oracle.adjust_saturation, (0.6, 1.0, 1.4)),
        (turn_hue, oracle.adjust_hue, (-0.1, 0.0, 0.1)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_each_change_of_colour_is_torchvisions(ours, theirs, amounts) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(3, 3, 6, 5, generator=generator)
    images[0, :, :2] = 120.0  # grey has no hue
    found = ours(images, torch.tensor(amounts).view(3, 1, 1, 1)) / 255
    for one, image, amount in zip(found, images / 255, amounts, strict=True):
        # Its weight of red in grey is 0.2989.
        assert torch.allclose(one, theirs(image, amount), atol=2e-4)


def test_four_images_in_five_change_their_colours_and_one_in_five_loses_them() -> None:
    images = torch.rand(1000, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 255
    jittered = colour_jitter(images, torch.Generator().manual_seed(0))
    assert 760 < int((jittered != images).flatten(1).any(1).sum()) < 840
    assert jittered.min() >= 0 and jittered.max() <= 255
    grey = random_grey(images, torch.Generator().manual_seed(0))
    assert 160 < int((grey[:, 0] == grey[:, 1]).flatten(1).all(1).sum()) < 240


def test_simclrs_augmentations_depend_on_their_stream_alone() -> None:
    transform = compose(("small_resized_crop", "flip", "colour_jitter", "grey"))
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    first, again, other = (transform(images, epoch_generator(0, e)) for e in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == images.shape and first.dtype == torch.float32


def test_neighbours_vote_by_cosine_similarity() -> None:
    fitted = torch.tensor([[1.0, 0], [5, 1], [0, 1], [0.1, 9]]), torch.tensor([0, 0, 1, 1])
    held = torch.tensor([[9.0, 0.5], [0.1, 0.2], [0.3, 0.1]]), torch.tensor([0, 1, 1])
    found = neighbour_accuracy(fitted, held, n_neighbours=2)
    assert found.accuracy == pytest.approx(2 / 3)
    # Two votes of two and one added to each of two classes.
    assert found.loss == pytest.approx(-(2 * math.log(3 / 4) + math.log(1 / 4)) / 3)
    assert found.n_samples == 3
