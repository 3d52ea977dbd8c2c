"""What the labels are: how they are encoded, what is learned from them, and what counts as good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ckptsel.common.devices import exact_dtype


class Objective(Protocol):
    """What a target's labels stand for. n_outputs: size of the layer on top of features."""

    @property
    def n_outputs(self) -> int: ...

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of outputs (N, n_outputs) for labels (N,), a scalar."""

    def utility(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """How good each output is, (N,); its mean is the score. Higher is better."""

    def strata(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """What folds and samples keep in proportion, (N,) whole numbers."""


@dataclass(frozen=True)
class Classes:
    """One class an image. names: in the order of the labels' numbers.

    The loss is cross-entropy, in nats; the utility is 1 where the class is right, else 0.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, labels: NDArray[np.int64], names: Sequence[str]
    ) -> tuple["Classes", NDArray[np.int64]]:
        """The classes that are there, and the labels (N,) renumbered 0 .. n - 1 in their order."""
        present, encoded = np.unique(labels, return_inverse=True)
        return cls(tuple(names[i] for i in present)), encoded.astype(np.int64)

    @property
    def n_outputs(self) -> int:
        return len(self.names)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels)

    def utility(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.argmax(1) == labels).to(exact_dtype(outputs.device))

    def strata(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return labels
