"""The layer that is put on top of features."""

import torch
from torch import nn

from ckptsel.training.loop import epoch_generator

HEAD_STD = 0.01
"""Width of the Gaussian that its weights are drawn from. The paper says "Gaussian" without a width;
0.01 is the usual one for a linear classifier."""


def gaussian_head(n_features: int, n_classes: int, seed: int) -> nn.Linear:
    """A linear layer on the CPU, its weights Gaussian and the same for the same seed, its biases 0."""
    layer = nn.Linear(n_features, n_classes)
    with torch.no_grad():
        drawn = torch.randn(layer.weight.shape, generator=epoch_generator(seed, 0))
        layer.weight.copy_(drawn * HEAD_STD)
        layer.bias.zero_()
    return layer
