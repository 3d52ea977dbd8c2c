"""Networks of the user's own: `package.module:function`."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ckptsel.errors import ModelError
from ckptsel.features.inputs import COLOUR, Inputs
from ckptsel.features.matching import shape_text
from ckptsel.features.network import (
    Network,
    Read,
    Request,
    input_of_last_linear,
    last_linear,
    pre_logits,
)
from ckptsel.features.own_code import call_factory, own_code
from ckptsel.features.timm_networks import classifier_of, own_inputs

ADVICE = (
    " Its features must be one vector an image: pool them in the module, or give it timm's "
    "forward_features and forward_head."
)

SIZE_NOTE = (
    "images are of 224x224 pixels, since neither the files nor the network say what it was trained on; "
    "if it was another size, say so with --image-size"
)

USUAL_SIDES = (28, 32, 64, 96, 128, 256)
"""Pixels a side that networks are made for besides 224."""


def build(name: str, request: Request) -> Network:
    """The module, tried with two images. Raises ModelError where it cannot be built or run."""
    module = call_factory(name)
    module.eval()
    own = Inputs(image_size=_own_side(module)).over(own_inputs(module))
    wanted = request.wanted
    read: Read = pre_logits if hasattr(module, "forward_head") else input_of_last_linear
    told = _tried(name, module, read, wanted.over(own), wanted)
    if hasattr(module, "forward_head"):
        pooling = getattr(module, "global_pool", None)
        kind = getattr(pooling, "pool_type", pooling)
        position = f"pre-logits (pool {kind})" if isinstance(kind, str) else "pre-logits"
        head = classifier_of(module)
    else:
        with torch.no_grad():
            head = (last_linear(module, _example(told.over(wanted.over(own))))[0],)
        position = f"input of {head[0]}"
    is_said = told.over(wanted).image_size or _own_side(module) or hasattr(module, "pretrained_cfg")
    return Network(
        module,
        read,
        position,
        head,
        told.over(own),
        advice=ADVICE,
        notes=() if is_said else (SIZE_NOTE,),
        is_own_code=True,
    )


def _tried(name: str, module: nn.Module, read: Read, used: Inputs, wanted: Inputs) -> Inputs:
    """What the first layer's weights say of its inputs, where images as usual do not go through."""
    problem = _problem_with(name, module, read, used)
    if problem is None:
        return Inputs()
    told = _told_by(_first_to_run(module, _example(used)), wanted, name)
    if told != Inputs():
        problem = _problem_with(name, module, read, told.over(used))
    if problem is None:
        return told
    side = _side_that_runs(name, module, read, told.over(used))
    advice = ""
    if side is not None:
        advice = f" With images of {side}x{side} it runs: --image-size {side}."
    elif wanted.image_size is None and problem.__cause__ is not None:
        advice = " If it takes another size, say so with --image-size."
    raise ModelError(f"{problem}{advice}") from problem.__cause__


def _side_that_runs(name: str, module: nn.Module, read: Read, used: Inputs) -> int | None:
    """Pixels a side of images that go through; None where none of the usual sizes does."""
    sides = (s for s in USUAL_SIDES if s != used.image_size)
    running = (
        s for s in sides if _problem_with(name, module, read, replace(used, image_size=s)) is None
    )
    return next(running, None)


def _problem_with(name: str, module: nn.Module, read: Read, used: Inputs) -> ModelError | None:
    images = _example(used)
    try:
        with torch.no_grad(), own_code(name, "run on two images", images):
            features = read(module, images)
            if not isinstance(features, Tensor):
                raise TypeError(f"its features are a {type(features).__name__}, not a tensor")
            n_vectors = len(features)
    except ModelError as error:
        return error
    if n_vectors != len(images):  # view(-1, n) cuts images of another size into several
        return ModelError(
            f"{name} gave {n_vectors} vectors for {len(images)} images of shape "
            f"{shape_text(images)}: it is made for another size, or joins images."
        )
    return None


def _example(used: Inputs) -> Tensor:
    side = used.image_size or 224
    return torch.zeros(2, used.channels or COLOUR, side, side)


def _first_to_run(module: nn.Module, images: Tensor) -> tuple[str, nn.Module] | None:
    """(name, layer) of the first layer with weights that is reached; None where none is."""
    seen: list[tuple[str, nn.Module]] = []
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding, nn.RNNBase)
    hooks = [
        layer.register_forward_pre_hook(lambda layer, _, name=name: seen.append((name, layer)))
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        with torch.no_grad():
            module(images)
    except Exception:  # it is looked for since the module fails
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else None


def _told_by(first: tuple[str, nn.Module] | None, wanted: Inputs, name: str) -> Inputs:
    """Raises ModelError where its layers take no images at all."""
    if first is None:
        return Inputs()
    layer_name, layer = first
    if isinstance(layer, nn.Conv2d):
        return replace(Inputs(), channels=wanted.channels or layer.in_channels)
    if isinstance(layer, nn.Linear):
        return _told_by_linear(layer.in_features, wanted)
    raise ModelError(
        f"{name} takes no images: its first layer, {layer_name}, is of type {type(layer).__name__}, "
        f"which takes {_taken_by(layer)}; images are (images, channels, height, width). Give "
        "ckptsel a module that makes such an input of them (docs/own-model.md)."
    )


def _told_by_linear(n_values: int, wanted: Inputs) -> Inputs:
    """The one kind of square image that has so many values."""
    fitting = []
    for channels in (1, COLOUR):
        side = math.isqrt(n_values // channels)
        is_wanted = wanted.channels in (None, channels) and wanted.image_size in (None, side)
        if channels * side**2 == n_values and is_wanted:
            fitting.append(Inputs(image_size=side, channels=channels))
    return fitting[0] if len(fitting) == 1 else Inputs()


def _taken_by(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv3d):
        return "5 dimensions (samples, channels, frames, height, width)"
    if isinstance(layer, nn.Conv1d):
        return "3 dimensions (samples, channels, length)"
    return "sequences"


def _own_side(module: Any) -> int | None:
    """Pixels a side that a vision transformer was made for, by timm's attribute or torchvision's."""
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    size = getattr(module, "image_size", None) if size is None else size
    size = size[0] if isinstance(size, tuple | list) and size else size
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 1 else None
