"""Learning without labels: views of the same image attract, those of other images repel.

Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations"
(SimCLR), arXiv 2002.05709, Eq. 1: NT-Xent, the normalised temperature-scaled cross-entropy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ckptsel.common.devices import exact_dtype
from ckptsel.training.loop import Batch, TensorBatches, Transform


@dataclass(frozen=True)
class ContrastiveViews:
    """The objective (`ckptsel.target.objective.Objective`) of pairs of views.

    Outputs (2N, D) are projections of views, labels (2N,) say of which image: each number comes twice.
    The loss of a view is the cross-entropy, in nats, of finding the other one of its image among all
    other views by cosine similarity / temperature. The utility is 1 where that one is the most similar.
    """

    temperature: float = 0.5
    n_outputs: int = 128

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self._similarities(outputs), _partners(labels))

    def utility(self, outputs: Tensor, labels: Tensor) -> Tensor:
        found = self._similarities(outputs).argmax(1) == _partners(labels)
        return found.to(exact_dtype(outputs.device))

    def strata(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.zeros_like(labels)

    def _similarities(self, outputs: Tensor) -> Tensor:
        """(2N, 2N); a view is no candidate for itself."""
        unit = nn.functional.normalize(outputs, dim=1)
        similarities = unit @ unit.T / self.temperature
        return similarities.masked_fill(_diagonal(len(unit), unit.device), -torch.inf)


@dataclass(frozen=True)
class ViewPairs:
    """Batches of two views of each image, side by side: inputs (2n, ...), labels (2n,) as
    `ContrastiveViews` takes them.

    batches: whose `augment` is `two_views`.
    """

    batches: TensorBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, classes in self.batches:
            yield inputs, torch.arange(len(classes), device=inputs.device).repeat_interleave(2)


def two_views(transform: Transform) -> Transform:
    """Of images (n, ...) two random views each, (2n, ...): those of one image are neighbours."""

    def apply(images: Tensor, generator: torch.Generator) -> Tensor:
        views = [transform(images, generator) for _ in range(2)]
        return torch.stack(views, dim=1).flatten(0, 1)

    return apply


def _partners(labels: Tensor) -> Tensor:
    """Row of the other view of the same image, (2N,)."""
    same = labels[:, None] == labels[None, :]
    same = same & ~_diagonal(len(labels), labels.device)
    if not bool((same.sum(1) == 1).all()):
        raise ValueError("every image must have two views in a batch")
    return same.int().argmax(1)


def _diagonal(n: int, device: torch.device) -> Tensor:
    return torch.eye(n, dtype=torch.bool, device=device)
