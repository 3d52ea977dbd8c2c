"""A network that gives exactly the features of one candidate, as a module of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from ckptsel.features.encoder import LAST
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.layers import Stage, reading
from ckptsel.target.pixels import Preprocessing, normalise


@dataclass(frozen=True)
class Transform:
    """From a PIL image of any mode and size to the input of a network, (C, H, W) float32.

    Plain data, which passes to worker processes of a DataLoader.
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Raises ValueError where one side of the image is more than 1000 times the other."""
        pixels = torch.from_numpy(self.preprocessing.pixels_of(image).copy())
        return normalise(pixels[None], self.preprocessing)[0]


class Extractor(nn.Module):
    """Images (N, C, H, W), prepared as `transform` does, to the features (N, D) of one candidate.

    network: without its classifier, as a module. transform: from a PIL image to one input.
    candidate: its name in the ranking. layer: where the network is read. classes: of the target that it
    was ranked for. n_features: D.
    It begins in evaluation mode, on the CPU. Raises FeatureError, ModelError or what torch raises where
    the network does not run so.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        layer: str,
        stages: Sequence[Stage],
        scales: Sequence[float],
        candidate: str,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        encoder.to("cpu")
        self.network: nn.Module = encoder.module
        self.transform = Transform(encoder.preprocessing)
        self.candidate, self.layer, self.classes = candidate, layer, tuple(classes)
        # Not the encoder, which holds the network too: a replica of this module has its own.
        self._read_last, self._memory_format = encoder.read, encoder.memory_format
        self._stages, self._scales = tuple(stages), tuple(scales)
        self.eval()
        example = torch.zeros(2, *encoder.preprocessing.input_size)
        with torch.inference_mode():
            encoder.penultimate(example)
            self.n_features = self(example).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self._memory_format)
        with reading(self.network, self._stages) as found:
            last = self._read_last(self.network, images)
        if self.layer == LAST:
            return last.float()
        pairs = zip(self._stages, self._scales, strict=True)
        return torch.cat([found[stage.name] / scale for stage, scale in pairs], 1)

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Features (N, D) by the layer's name, of prepared pixels (N, C, H, W) that are not normalised
        yet, uint8."""
        return {self.layer: self(normalise(pixels, self.transform.preprocessing))}
