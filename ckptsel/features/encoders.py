"""From an architecture to features: build it, put weights in strictly, take what the classifier sees.

The backbone is the network without its classifier. Every tensor of the backbone must come from the
checkpoint: one that is missing or has another shape, or one that the backbone has no place for,
fails the checkpoint by name. A random layer would give a plausible and meaningless score.
"""

import contextlib
import importlib
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from ckptsel.errors import CheckpointError, FeatureError, ModelError, did_you_mean, listed
from ckptsel.features import cifar_resnet  # noqa: F401  (registers its architectures with timm)
from ckptsel.features.encoder import LAST
from ckptsel.features.layers import Stage, find_stages, reading
from ckptsel.target.images import digest_of
from ckptsel.target.pixels import Preprocessing, normalise

OTHER_HEADS = re.compile(
    r"(head|fc|classifier|projection_head|projector|prediction_head|predictor|decoder_\w+"
    r"|decoder|mask_token|dino_head|ibot_head|n_averaged|num_batches_tracked|aux_classifier)(\.|$)"
)
"""Tensors beside the backbone that pre-training leaves behind: heads, decoders, counters."""

MAX_LISTED = 4


@dataclass(frozen=True)
class ImageEncoder:
    """A network of images that gives penultimate features.

    name: timm name or `package.module:function`.
    position: which activations are the features.
    head: names of the classifier's tensors begin with one of these.
    """

    name: str
    module: Any
    preprocessing: Preprocessing
    position: str
    head: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return (LAST, *(stage.name for stage in self.stages))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Where else the network can be read; found by running it on an example when first asked."""
        device = next(self.module.parameters()).device
        example = torch.zeros(2, *self.preprocessing.input_size, device=device)
        return find_stages(self.module, lambda: self.penultimate(example))

    @property
    def preparation(self) -> Preprocessing:
        return self.preprocessing

    def load(self, weights: Mapping[str, Tensor]) -> str:
        found, prefix = backbone_weights(self, weights)
        self.module.load_state_dict(found, strict=False)
        return prefix

    def to(self, device: str) -> None:
        self.module.to(device, memory_format=torch.channels_last)
        self.module.eval()

    def features(self, batch: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        images = normalise(batch, self.preprocessing, torch.channels_last)
        if tuple(layers) == (LAST,):
            return {LAST: self.penultimate(images)}
        stages = [stage for stage in self.stages if stage.name in layers]
        with reading(self.module, stages) as found:
            found[LAST] = self.penultimate(images)
        return {layer: found[layer] for layer in layers}

    def penultimate(self, images: Tensor) -> Tensor:
        """Features (N, D) of normalised images (N, C, H, W).

        Raises FeatureError where the layer gives anything but one vector an image.
        """
        if hasattr(self.module, "forward_head"):
            maps = self.module.forward_features(images)
            features = self.module.forward_head(maps, pre_logits=True)
        else:
            features = _input_of_last_linear(self.module, images)[1]
        if features.ndim != 2:
            raise FeatureError(
                f"{self.position} of {self.name} has shape {tuple(features.shape)}, not (images, "
                "features): it is not pooled. Choose a pooling with --pool (for example avg)."
            )
        return features

    def key(self, layer: str) -> str:
        settings = self.preprocessing
        read = (
            [repr(stage) for stage in self.stages if stage.name == layer] if layer != LAST else []
        )
        return digest_of(
            settings.key(),
            repr((settings.mean, settings.std)),
            self.name,
            self.position,
            layer,
            *read,
        )

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


def is_registered(name: str) -> bool:
    """Whether a name is one of timm's registry, or of this package's networks in it.

    Only such a name may come out of a file: `package.module:function` is imported and called, so it
    must be what the user typed.
    """
    return ":" not in name and timm.is_model(name)


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
    typed: bool = False,
) -> ImageEncoder:
    """The architecture `name`, on the CPU, in evaluation mode, with random weights.

    typed: the user named it, so that `package.module:function` is imported and called.
    pool: timm's `global_pool` (avg, token, map, ...). image_size, mean, std, crop_pct, interpolation:
    instead of those of the model's own data configuration. Raises ModelError naming near names.
    """
    if ":" in name and not typed:
        raise ModelError(
            f"{name!r} comes out of a file, and nothing that a file names is run. If it is yours, "
            f"say so with --model {name}."
        )
    module = _call_factory(name) if ":" in name else _create_timm_model(name, pool, image_size)
    module.eval()
    preprocessing = _preprocessing_of(module, image_size, mean, std, crop_pct, interpolation)
    if hasattr(module, "forward_head"):
        classifier = (getattr(module, "pretrained_cfg", None) or {}).get("classifier") or "fc"
        head = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        pooling = getattr(module, "global_pool", None)
        kind = getattr(pooling, "pool_type", pooling)
        layer = f"pre-logits (pool {kind})" if isinstance(kind, str) else "pre-logits"
    else:
        with torch.no_grad():
            example = torch.zeros(2, *preprocessing.input_size)
            head = (_input_of_last_linear(module, example)[0],)
        layer = f"input of {head[0]}"
    return ImageEncoder(name, module, preprocessing, layer, head)


def backbone_weights(
    encoder: ImageEncoder, state_dict: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """(weights of the backbone under its own names, the prefix that the names had), without heads.

    Raises CheckpointError naming tensors that are missing, of another shape, or left over.
    """
    expected = {
        name: tensor
        for name, tensor in encoder.module.state_dict().items()
        if not _is_head(name, encoder.head)
    }
    state_dict = _without_chunks(state_dict, expected)
    prefix = _best_prefix(state_dict, expected)
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in state_dict.items()
        if name.startswith(prefix)
    }
    _check_fit(encoder, expected, weights, prefix)
    return {name: weights[name] for name in expected if name in weights}, prefix


def _is_head(name: str, head: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in head)


def _best_prefix(state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The prefix under which most of the backbone is found; of equals the teacher's, then the
    shortest."""
    counts: Counter[str] = Counter()
    for name, tensor in state_dict.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            inner = ".".join(parts[depth:])
            if inner in expected and expected[inner].shape == tensor.shape:
                counts[name.removesuffix(inner)] += 1
    if not counts:
        return ""
    return max(counts, key=lambda p: (counts[p], "teacher" in p, "ema" in p, -len(p)))


def _without_chunks(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """DINOv2 names blocks `blocks.<chunk>.<i>`; elsewhere they are `blocks.<i>`."""
    chunked = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.(?=[a-z])")
    if any(chunked.search(name) for name in expected):
        return dict(state_dict)
    return {chunked.sub(r"\1blocks.\2.", name): tensor for name, tensor in state_dict.items()}


def _check_fit(
    encoder: ImageEncoder,
    expected: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    prefix: str,
) -> None:
    missing = [
        name for name in expected if name not in weights and not name.endswith("batches_tracked")
    ]
    misshapen = [
        f"{name} is {_shape(weights[name])}, expected {_shape(expected[name])}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    left_over = [
        name
        for name in weights
        if name not in expected and not _is_head(name, encoder.head) and not OTHER_HEADS.match(name)
    ]
    problems = []
    if misshapen:
        problems.append(f"of another shape: {listed(misshapen, MAX_LISTED)}")
    if missing:
        problems.append(f"missing: {listed(missing, MAX_LISTED)}")
    if left_over:
        problems.append(f"no place for: {listed(left_over, MAX_LISTED)}")
    if problems:
        where = f" below prefix {prefix!r}" if prefix else ""
        raise CheckpointError(
            f"the weights do not fit {encoder.name}{where}; {'; '.join(problems)}. "
            f"Name the right architecture with --model.{_stem_hint(expected, weights)}"
        )


def _stem_hint(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """ResNets for small images differ in their first convolution, a usual mistake."""
    want, have = expected.get("conv1.weight"), weights.get("conv1.weight")
    if want is None or have is None or want.shape[2:] == have.shape[2:]:
        return ""
    return (
        f" Its first convolution is {have.shape[2]}x{have.shape[3]} (the model's: "
        f"{want.shape[2]}x{want.shape[3]}): was it made for small images (cifar_resnet18)?"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _create_timm_model(name: str, pool: str | None, image_size: int | None) -> nn.Module:
    if not timm.is_model(name):
        raise ModelError(
            f"unknown model {name!r}: not a timm name, nor package.module:function."
            + did_you_mean(name, timm.list_models())
        )
    arguments: dict[str, Any] = {"num_classes": 0}
    if pool is not None:
        arguments["global_pool"] = pool
    try:
        if image_size is not None:
            # Vision transformers resample position embeddings to the image on request; other
            # architectures do not know the argument.
            with contextlib.suppress(TypeError):
                return timm.create_model(name, dynamic_img_size=True, **arguments)
        return timm.create_model(name, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        raise ModelError(f"timm cannot build {name} with {arguments}: {error}") from error


def _call_factory(name: str) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"cannot import {module_name!r} for model {name}: {error}. It must be installed or lie "
            "below the current folder."
        ) from error
    except AttributeError as error:
        known = dir(sys.modules[module_name])
        raise ModelError(
            f"module {module_name} has no function {function_name!r}."
            + did_you_mean(function_name, known)
        ) from error
    model = factory()
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}() returned a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _preprocessing_of(
    module: nn.Module,
    image_size: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    crop_pct: float | None,
    interpolation: str | None,
) -> Preprocessing:
    """The model's own data configuration; timm's defaults (ImageNet) where it has none, but no crop,
    which only a network that was trained with one is used to."""
    config = timm.data.resolve_model_data_config(module)
    own = getattr(module, "pretrained_cfg", None) or {}
    channels, height, width = config["input_size"]
    if image_size is not None:
        height = width = image_size
    return Preprocessing(
        input_size=(channels, height, width),
        interpolation=interpolation or config["interpolation"],
        mean=_one_a_channel(mean or config["mean"], channels, "mean"),
        std=_one_a_channel(std or config["std"], channels, "std"),
        crop_pct=crop_pct or (config["crop_pct"] if "crop_pct" in own else 1.0),
    )


def _one_a_channel(values: tuple[float, ...], channels: int, name: str) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise ModelError(f"--{name} has {len(values)} numbers; the model has {channels} channels.")
    return tuple(values) * (channels if len(values) == 1 else 1)


def _input_of_last_linear(module: nn.Module, images: Tensor) -> tuple[str, Tensor]:
    """(name, input) of the linear layer that ran last. Raises ModelError where there is none."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ModelError(
            f"{type(module).__name__} has no linear layer, so it is not known which activations are "
            "its features. Give it timm's forward_features and forward_head."
        )
    return seen[-1]
