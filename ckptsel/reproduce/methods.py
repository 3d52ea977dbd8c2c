"""What pre-training learns from the source: its classes, or views of its images.

A method makes the network that is trained, says which part of it a checkpoint keeps, what the loss is,
and how source accuracy is measured.
"""

from typing import Protocol

import timm
import torch
from torch import Tensor, nn

from ckptsel.features import cifar_resnet  # noqa: F401  (registers the architectures)
from ckptsel.reproduce.recipes import Contrastive, Pretraining
from ckptsel.reproduce.source_data import SourceData
from ckptsel.target.objective import Objective
from ckptsel.training.contrastive import ContrastiveViews
from ckptsel.training.loop import CLASSES, Means, evaluate, predict

N_NEIGHBOURS = 20


class Method(Protocol):
    """shares: whether several processes may each take a part of a batch, and one its parts in turn."""

    shares: bool

    @property
    def objective(self) -> Objective: ...

    def network(self, recipe: Pretraining) -> nn.Module:
        """What is trained, with random weights from torch's own stream."""

    def kept(self, network: nn.Module) -> nn.Module:
        """The part of it whose weights a checkpoint holds."""

    def test(self, network: nn.Module, data: SourceData, dtype: torch.dtype | None) -> Means:
        """Loss and accuracy on the source's test images."""


def method_of(recipe: Pretraining) -> Method:
    return Supervised() if recipe.contrastive is None else SimCLR(recipe.contrastive)


class Supervised:
    """A classifier of the source's classes."""

    shares = True
    objective = CLASSES

    def network(self, recipe: Pretraining) -> nn.Module:
        return timm.create_model(recipe.model, num_classes=recipe.n_classes)

    def kept(self, network: nn.Module) -> nn.Module:
        return network

    def test(self, network: nn.Module, data: SourceData, dtype: torch.dtype | None) -> Means:
        return evaluate(network, data.test, dtype)


class Projected(nn.Module):
    """A network without classifier, and a two-layer head that the loss sees its features through."""

    def __init__(self, backbone: nn.Module, n_features: int, contrastive: Contrastive) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Sequential(
            nn.Linear(n_features, contrastive.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(contrastive.hidden, contrastive.width),
        )

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(images))
        return projected


class SimCLR:
    """Two views of an image against all others of the batch (arXiv 2002.05709). Checkpoints hold the
    network alone, not the head.

    Labels are looked at for source accuracy only: that of the nearest training images by cosine
    similarity of the features, as self-supervised networks are read while they are trained.
    """

    shares = False

    def __init__(self, contrastive: Contrastive) -> None:
        self._contrastive = contrastive
        self.objective = ContrastiveViews(contrastive.temperature, contrastive.width)

    def network(self, recipe: Pretraining) -> nn.Module:
        backbone = timm.create_model(recipe.model, num_classes=0)
        return Projected(backbone, backbone.num_features, self._contrastive)

    def kept(self, network: nn.Module) -> nn.Module:
        assert isinstance(network, Projected)
        return network.backbone

    def test(self, network: nn.Module, data: SourceData, dtype: torch.dtype | None) -> Means:
        backbone = self.kept(network)
        assert data.plain is not None, "contrastive recipes are not streamed"
        fitted = predict(backbone, data.plain, dtype)
        return neighbour_accuracy(fitted, predict(backbone, data.test, dtype))


def neighbour_accuracy(
    fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], n_neighbours: int = N_NEIGHBOURS
) -> Means:
    """Accuracy of the class that most of the nearest fitted images have, by cosine similarity, and the
    mean log loss of the votes' shares, one vote added to each class (Laplace).

    Both are features (N, D) and labels (N,). Of classes with as many votes, that of the smallest number.
    """
    (fitted_features, fitted_labels), (features, labels) = fitted, held
    unit = nn.functional.normalize(fitted_features, dim=1)
    n_neighbours = min(n_neighbours, len(unit))
    n_classes = int(torch.cat([fitted_labels, labels]).max()) + 1
    votes = []
    for part in nn.functional.normalize(features, dim=1).split(1000):
        nearest = (part @ unit.T).topk(n_neighbours, dim=1).indices
        votes.append(nn.functional.one_hot(fitted_labels[nearest], n_classes).sum(1))
    counts = torch.cat(votes).double()
    shares = (counts + 1) / (n_neighbours + n_classes)
    loss = -shares.gather(1, labels[:, None]).log().mean()
    return Means(float(loss), float((counts.argmax(1) == labels).double().mean()), len(labels))
