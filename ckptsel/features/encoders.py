"""A network of images that gives features, whoever defined it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ckptsel.errors import FeatureError, ModelError
from ckptsel.features.encoder import LAST
from ckptsel.features.inputs import Inputs, preprocessing_of
from ckptsel.features.layers import ALL, Stage, find_stages, reading
from ckptsel.features.matching import backbone_weights
from ckptsel.features.names import find_network, is_registered
from ckptsel.features.network import Read, Recorded, Request, pre_logits
from ckptsel.features.own_code import own_code
from ckptsel.target.images import digest_of
from ckptsel.target.pixels import Preprocessing, normalise


@dataclass(frozen=True)
class ImageEncoder:
    """A network of images that gives penultimate features.

    name: as in `--model`. position: which activations are the features. head: names of the
    classifier's tensors begin with one of these. The others are those of `Network`.
    """

    name: str
    module: Any
    preprocessing: Preprocessing
    position: str
    head: tuple[str, ...]
    read: Read = pre_logits
    memory_format: torch.memory_format = torch.contiguous_format
    translate: Any = None
    network_key: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()
    is_own_code: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        return (LAST, *(stage.name for stage in self.stages))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Where else the network can be read; found by running it on an example when first asked."""
        return find_stages(self.module, lambda: self.penultimate(self._example()))

    def _example(self) -> Tensor:
        """Two images of the network's size, where the network is."""
        device = next(self.module.parameters()).device
        return torch.zeros(2, *self.preprocessing.input_size, device=device)

    def layer_table(self) -> list[dict[str, Any]]:
        """Every layer: its name, the shape of its output for one image, and how many features an image
        it gives."""
        rows = [
            {"layer": stage.name, "output": list(stage.shape), "features": stage.width}
            for stage in self.stages
        ]
        whole = sum(stage.width for stage in self.stages)
        every = [{"layer": ALL, "output": None, "features": whole}] if rows else []
        with torch.inference_mode():
            last = self.penultimate(self._example()).shape[1]
        return [*rows, {"layer": LAST, "output": [last], "features": last}, *every]

    @property
    def preparation(self) -> Preprocessing:
        return self.preprocessing

    def load(self, weights: Mapping[str, Tensor]) -> str:
        found, prefix = self.match(weights)
        self.module.load_state_dict(found, strict=False)
        return prefix

    def match(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """(weights of the backbone under its own names, the prefix that the names had).

        Raises CheckpointError naming tensors that are missing, of another shape, or left over.
        """
        if self.translate is not None:
            weights = self.translate(weights)
        return backbone_weights(self.name, self.module.state_dict(), self.head, weights)

    def to(self, device: str) -> None:
        self.module.to(device, memory_format=self.memory_format)
        self.module.eval()

    def features(self, batch: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        images = self.normalise(batch)
        if tuple(layers) == (LAST,):
            return {LAST: self.penultimate(images)}
        stages = [stage for stage in self.stages if stage.name in layers]
        with reading(self.module, stages) as found:
            found[LAST] = self.penultimate(images)
        return {layer: found[layer] for layer in layers}

    def normalise(self, pixels: Tensor) -> Tensor:
        """Prepared pixels (N, C, H, W) as the network takes them."""
        return normalise(pixels, self.preprocessing, self.memory_format)

    def penultimate(self, images: Tensor) -> Tensor:
        """Features (N, D) of normalised images (N, C, H, W).

        Raises FeatureError where the layer gives anything but one vector an image; ModelError where
        a module of the user's own fails.
        """
        with self._watched(images):
            features = self.read(self.module, images)
        if len(features) != len(images):
            raise FeatureError(
                f"{self.position} of {self.name} gave {len(features)} vectors for {len(images)} images."
            )
        if features.ndim != 2:
            raise FeatureError(
                f"{self.position} of {self.name} has shape {tuple(features.shape)}, not (images, "
                f"features): it is not pooled.{self.advice}"
            )
        return features

    def _watched(self, images: Tensor) -> AbstractContextManager[None]:
        return own_code(self.name, "run", images) if self.is_own_code else nullcontext()

    def key(self, layer: str) -> str:
        settings = self.preprocessing
        more = [self.network_key] if self.network_key else []
        if layer != LAST:
            more += [repr(stage) for stage in self.stages if stage.name == layer]
        normalisation = repr((settings.mean, settings.std))
        return digest_of(settings.key(), normalisation, self.name, self.position, layer, *more)

    def describe(self) -> dict[str, Any]:
        about = {
            "name": self.name,
            "layer": self.position,
            "preprocessing": self.preprocessing.to_dict(),
        }
        looked_for = vars(self).get("stages")  # not before they are asked for: it takes a pass
        if looked_for:
            about["stages"] = [stage.to_dict() for stage in looked_for]
        return about


def typed_or_recorded(typed: str | None, recorded: str) -> str:
    """The architecture that the user typed, else the one that a ranking records.

    Raises ModelError where the recorded one is no registered name: then the user must type it.
    """
    if typed is None and not is_registered(recorded):
        raise ModelError(
            f"the ranking was made with the network {recorded!r}, which is no name that timm knows. "
            f"Nothing that a file names is run: if it is yours, say so with --model {recorded}."
        )
    return typed or recorded


def build_image_encoder(
    name: str,
    pool: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    channels: int | None = None,
    typed: bool = False,
    recorded: Recorded | None = None,
) -> ImageEncoder:
    """The architecture `name`, on the CPU, in evaluation mode, with random weights.

    typed: the user named it, so that `package.module:function` is imported and called.
    recorded: what the checkpoints say of it. pool: timm's `global_pool` (avg, token, map, ...).
    The others: instead of those that the files or the network itself have.
    Raises ModelError naming near names.
    """
    asked = Inputs(
        image_size=image_size,
        channels=channels,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        interpolation=interpolation,
        pool=pool,
    )
    recorded = recorded or Recorded()
    request = Request(asked.over(recorded.inputs), asked, recorded)
    name, network = find_network(name, request, typed)
    network.module.eval()
    if asked.pool is not None and not hasattr(network.module, "forward_head"):
        raise ModelError(
            f"--pool chooses how a network of timm pools, and {name} is none: its features are the "
            f"{network.position}. Leave it out."
        )
    preprocessing = preprocessing_of(request.wanted, network.own)
    notes = network.notes
    if preprocessing.input_size[0] == 1 and asked.channels is None:
        notes += ("images are made grey: the first layer takes 1 channel",)
    return ImageEncoder(
        name,
        network.module,
        preprocessing,
        network.position,
        network.head,
        read=network.read,
        memory_format=network.memory_format,
        translate=network.translate,
        network_key=network.key,
        advice=network.advice,
        notes=notes,
        is_own_code=network.is_own_code,
    )
