"""What features come from: a network without its classifier, and how a sample is prepared for it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ckptsel.target.pixels import Preparation

LAST = "last"
"""The layer that every encoder has: what its classifier would see."""


class Encoder(Protocol):
    """A network that gives features at one or more layers. It knows nothing of checkpoints' files.

    name: what the user calls it. layers: where it can be read, `last` among them. preparation: how
    a sample becomes one entry of a batch.
    """

    @property
    def name(self) -> str: ...

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def preparation(self) -> Preparation: ...

    def load(self, weights: Mapping[str, Tensor]) -> str:
        """Put weights in, strictly; returns the prefix that their names had.

        Raises CheckpointError naming tensors that are missing, of another shape, or left over.
        """

    def to(self, device: str) -> None:
        """Move the network to a device, in evaluation mode."""

    def features(self, batch: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features (N, D) at each of the layers, of prepared samples (N, *shape) on the device.

        Raises FeatureError where a layer gives anything but one vector a sample.
        """

    def key(self, layer: str) -> str:
        """A digest of what decides features at a layer, besides weights and samples."""

    def describe(self) -> dict[str, Any]:
        """For people and the ranking: name, layer, preprocessing."""
