"""Random changes of colour, each image its own, of float images (N, 3, H, W) in [0, 255].

Source: Chen et al. 2020 (SimCLR), arXiv 2002.05709, appendix A, with the strength that its CIFAR-10
experiments have (appendix B.9: 0.5, no blur). What a jitter does to an image is what torchvision's
ColorJitter does.
"""

import torch
from torch import Tensor

from ckptsel.common.devices import send

STRENGTH = 0.5
JITTER_PROBABILITY, GREY_PROBABILITY = 0.8, 0.2

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue in the luma of ITU-R BT.601."""

MAX_VALUE = 255.0


def colour_jitter(images: Tensor, generator: torch.Generator, strength: float = STRENGTH) -> Tensor:
    """Four images in five with brightness, contrast and saturation changed by up to 0.8 * strength, and
    hue turned by up to 0.2 * strength of a circle.

    The order of the four is drawn for each batch (torchvision draws it for each image).
    """
    n, reach, turn = len(images), 0.8 * strength, 0.2 * strength
    changed = torch.rand(n, 1, 1, 1, generator=generator) < JITTER_PROBABILITY
    amounts = 2 * torch.rand(4, n, 1, 1, 1, generator=generator) - 1
    order = torch.randperm(4, generator=generator).tolist()
    amounts = send(amounts, images.device)
    jittered = images.float()
    for number in order:
        if number == HUE:
            jittered = turn_hue(jittered, turn * amounts[HUE])
        else:
            jittered = (adjust_brightness, adjust_contrast, adjust_saturation)[number](
                jittered, 1 + reach * amounts[number]
            )
    return torch.where(send(changed, images.device), jittered, images.float())


HUE = 3
"""Number of the turn of hue among the four changes."""


def random_grey(images: Tensor, generator: torch.Generator) -> Tensor:
    """One image in five without colour."""
    grey = torch.rand(len(images), 1, 1, 1, generator=generator) < GREY_PROBABILITY
    return torch.where(send(grey, images.device), to_grey(images.float()), images.float())


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """factors: (N, 1, 1, 1), as in all of these; 1 changes nothing, 0 gives black."""
    return (factors * images).clamp(0, MAX_VALUE)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """0 gives the image's mean grey."""
    mean = to_grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factors).clamp(0, MAX_VALUE)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """0 gives grey."""
    return torch.lerp(to_grey(images).expand_as(images), images, factors).clamp(0, MAX_VALUE)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Hue moved by turns (N, 1, 1, 1), parts of a circle; value and saturation (HSV) stay."""
    value, spread = images.amax(1, keepdim=True), images.amax(1) - images.amin(1)
    sixths = (_hue_sixths(images, spread)[:, None] + 6 * turns).remainder(6)
    # A channel is full around its own hue and empty on the other side of the circle.
    offsets = torch.arange(5.0, 0.0, -2.0, device=images.device).view(1, 3, 1, 1)  # 5, 3, 1
    place = (offsets + sixths).remainder(6)
    missing = torch.minimum(place, 4 - place).clamp(0, 1)
    return value - spread[:, None] * missing


def to_grey(images: Tensor) -> Tensor:
    """(N, 1, H, W)"""
    weights = torch.tensor(GREY_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    return (weights * images).sum(1, keepdim=True)


def _hue_sixths(images: Tensor, spread: Tensor) -> Tensor:
    """Hue (N, H, W) in sixths of a circle from red; spread: largest less smallest channel."""
    red, green, blue = images.unbind(1)
    largest = images.amax(1)
    divisor = torch.where(spread == 0, 1, spread)
    hue = torch.where(largest == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    return torch.where(largest == red, (green - blue) / divisor, hue)
