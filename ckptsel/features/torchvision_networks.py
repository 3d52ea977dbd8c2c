"""Networks of torchvision, for classification: `torchvision:NAME`."""

import math
from functools import cache
from typing import Any

import torchvision
from torch import nn

from ckptsel.errors import ModelError, did_you_mean
from ckptsel.features.inputs import Inputs
from ckptsel.features.matching import under_prefix
from ckptsel.features.network import (
    Network,
    Request,
    expected_tensors,
    first_layer,
    input_of_last_linear,
    skeleton,
)

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Heads beside the classifier, which training alone uses."""


@cache
def names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


def build(name: str, request: Request) -> Network:
    """Raises ModelError where torchvision has no such network, or cannot build it so."""
    if name not in names():
        raise ModelError(
            f"unknown model 'torchvision:{name}': torchvision has no network of this name."
            + did_you_mean(name, names())
        )
    usual = _made(name, {}, is_real=False)
    arguments = _size(name, usual, request)
    module = _made(name, arguments)
    channels = _channels(module, request)
    if channels is not None:
        _change_channels(module, channels)
    head = _last_linear(module)
    size = Inputs(image_size=arguments.get("image_size"), channels=channels)
    return Network(
        module,
        input_of_last_linear,
        f"input of {head}",
        (head, *AUXILIARY),
        size.over(_own_inputs(name)),
        key=repr((arguments, channels)) if arguments or channels else "",
    )


def _made(name: str, arguments: dict[str, Any], is_real: bool = True) -> nn.Module:
    if name in ("googlenet", "inception_v3"):
        # They take long, for values that are replaced.
        arguments = {**arguments, "init_weights": False}

    def create() -> nn.Module:
        return torchvision.models.get_model(name, weights=None, **arguments)

    try:
        return create() if is_real else skeleton(create)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"torchvision cannot build {name} with {arguments}: {error}") from error


def _own_inputs(name: str) -> Inputs:
    """Those of its first published weights."""
    used = next(iter(torchvision.models.get_model_weights(name))).transforms()
    crop, resized = used.crop_size[0], used.resize_size[0]
    return Inputs(
        image_size=crop,
        mean=tuple(used.mean),
        std=tuple(used.std),
        interpolation=used.interpolation.value,
        crop_pct=min(1.0, crop / resized),
    )


def _last_linear(module: nn.Module) -> str:
    """Its classifier: torchvision defines its layers in the order in which they run."""
    found = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not found:
        raise ModelError(
            f"{type(module).__name__} has no linear layer, so it is not known which activations are its "
            "features. Give it timm's forward_features and forward_head, in a module of your own."
        )
    return found[-1]


def _size(name: str, usual: Any, request: Request) -> dict[str, int]:
    """The argument of a vision transformer, which takes images of one size: that of the file's position
    embedding. Raises ModelError where another is asked for."""
    patch = getattr(usual, "patch_size", None)
    if not isinstance(patch, int):
        return {}
    asked = request.wanted.image_size
    found = under_prefix(expected_tensors(usual), request.tensors)[0].get("encoder.pos_embedding")
    if found is None or found.ndim != 3:
        return {} if asked is None else {"image_size": asked}
    side = math.isqrt(max(0, found.shape[1] - 1)) * patch
    if request.asked.image_size not in (None, side):
        raise ModelError(
            f"torchvision:{name} takes images of one size: the position embedding in the files is of "
            f"{side}x{side} pixels, and --image-size is {request.asked.image_size}. Leave it out."
        )
    return {"image_size": side}


def _channels(module: nn.Module, request: Request) -> int | None:
    """Channels that its first convolution must have; None where its own are right."""
    name, layer = first_layer(module) or ("", None)
    if not isinstance(layer, nn.Conv2d):
        return None
    found = under_prefix(expected_tensors(module), request.tensors)[0].get(f"{name}.weight")
    told = found.shape[1] if found is not None and found.ndim == 4 else None
    wanted = request.asked.channels or told
    return None if wanted in (None, layer.in_channels) else wanted


def _change_channels(module: nn.Module, channels: int) -> None:
    """Another first convolution, as people put in for grey images."""
    name, old = first_layer(module) or ("", None)
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, new)
