"""Networks of timm's registry, built for the tensors that the checkpoints hold."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import timm
import timm.data
import torch
from torch import nn

from ckptsel.errors import ModelError
from ckptsel.features import cifar_resnet  # noqa: F401  (registers its architectures with timm)
from ckptsel.features.inputs import Inputs
from ckptsel.features.matching import Tensors, fits, under_prefix
from ckptsel.features.network import (
    Network,
    Request,
    expected_tensors,
    interpolation_note,
    pre_logits,
    skeleton,
)

POOL_ADVICE = " Choose a pooling with --pool (for example avg)."

ARGUMENTS = frozenset(
    (
        *("patch_size", "img_size", "in_chans", "window_size", "reg_tokens", "class_token"),
        *("embed_dim", "dims", "width", "depth", "depths", "layers", "num_heads", "mlp_ratio"),
        *("qkv_bias", "no_embed_class", "init_values", "fc_norm", "stem_stride"),
    )
)
"""Arguments that a file may give a network; their values are numbers
(`ckptsel.checkpoints.network_inputs`)."""


OF_THE_INPUT = frozenset(("patch_size", "img_size", "in_chans"))
"""Those that the tensors' own shapes tell."""

MAX_NUMBER = 4096
"""Of such an argument: each layer of a network is built, though without values."""


def build(name: str, request: Request) -> Network:
    """Raises ModelError where timm cannot build it."""
    wanted, tensors = request.wanted, request.tensors
    module, arguments, side = _fitting(name, request, tensors)
    asked = wanted.image_size
    notes: tuple[str, ...] = ()
    if side is not None and asked is None:
        notes = (f"images are of {side}x{side} pixels, as the position embedding in the files is",)
    elif side is not None and asked != side:
        notes = (interpolation_note(side, asked),)
    pooling = getattr(module, "global_pool", None)
    kind = getattr(pooling, "pool_type", pooling)
    return Network(
        module,
        pre_logits,
        f"pre-logits (pool {kind})" if isinstance(kind, str) else "pre-logits",
        classifier_of(module),
        own_inputs(module, side, arguments.get("in_chans")),
        torch.channels_last,
        key=repr(sorted(arguments.items())) if arguments else "",
        advice=POOL_ADVICE,
        notes=notes,
    )


def classifier_of(module: Any) -> tuple[str, ...]:
    """Names of the classifier's layers."""
    name = (getattr(module, "pretrained_cfg", None) or {}).get("classifier") or "fc"
    return (name,) if isinstance(name, str) else tuple(name)


def own_inputs(module: nn.Module, side: int | None = None, channels: int | None = None) -> Inputs:
    """timm's data configuration; its defaults (ImageNet) where the module has none, but no crop, which
    only a network that was trained with one is used to."""
    config = timm.data.resolve_model_data_config(module)
    own = getattr(module, "pretrained_cfg", None) or {}
    return Inputs(
        image_size=side or config["input_size"][-1],
        channels=channels or config["input_size"][0],
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"] if "crop_pct" in own else 1.0,
        crop_mode=config["crop_mode"] if "crop_pct" in own else None,
    )


def _fitting(
    name: str, request: Request, tensors: Tensors
) -> tuple[nn.Module, dict[str, Any], int | None]:
    """(module, arguments, the side of the images that its position embedding is of): the first form of
    it that the tensors fit, else the plainest; without tensors the first that can be built.

    What a file says of the network's size counts only where its tensors have that size.
    """
    recorded = request.recorded.arguments if tensors else {}
    known = {k: v for k, v in recorded.items() if k in ARGUMENTS and _is_believed(v)}
    usual = _made(name, {}, request, is_real=False)
    patch = _told_patch(usual, tensors)
    if patch is not None:
        known["patch_size"] = patch
    channels = _channels(usual, request, tensors)
    if channels is not None:
        known["in_chans"] = channels
    found: tuple[dict[str, Any], int | None] = {}, None
    problem: Exception | None = None
    for arguments, side in _forms(usual, known, request.wanted.image_size, tensors):
        try:
            module = _made(name, arguments, request, is_real=False)
        except (TypeError, ModelError) as error:
            problem = error  # an argument that this network does not know, or that does not fit it
            continue
        found, problem = (arguments, side), None
        if not tensors or fits(expected_tensors(module), classifier_of(module), tensors):
            break
    if problem is not None:
        raise ModelError(f"timm cannot build {name}: {problem}") from problem
    return _made(name, found[0], request, is_real=True), *found


def _forms(
    usual: nn.Module, known: Mapping[str, Any], asked: int | None, tensors: Tensors
) -> Iterator[tuple[dict[str, Any], int | None]]:
    """(arguments, side of the position embedding) that the network may be built with: with what the
    files record, then with nothing but the channels."""
    for given in (dict(known), {k: v for k, v in known.items() if k == "in_chans"}):
        native = _told_side(usual, given.get("patch_size"), tensors) or given.pop("img_size", None)
        size = {} if native is None else {"img_size": native}
        if native is not None and asked in (None, native):
            yield {**given, **size}, native
        if asked is not None:
            yield {**given, **size, "dynamic_img_size": True}, native or _side_of(usual)
            yield {**given, "img_size": asked}, None
        yield given, None


def _made(name: str, arguments: Mapping[str, Any], request: Request, is_real: bool) -> nn.Module:
    """Raises TypeError where the network does not know an argument."""
    used: dict[str, Any] = {"num_classes": 0, **arguments}
    if request.wanted.pool is not None:
        used["global_pool"] = request.wanted.pool
    try:
        if is_real:
            return timm.create_model(name, **used)
        is_trusted = not (ARGUMENTS - OF_THE_INPUT) & set(arguments)
        return _skeleton(name, json.dumps(used, sort_keys=True), is_trusted)
    except TypeError:
        if arguments:
            raise
        raise ModelError(f"timm cannot build {name} with {used}.") from None
    except (ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError) as error:
        raise ModelError(f"timm cannot build {name} with {used}: {error}") from error


@lru_cache(maxsize=16)
def _skeleton(name: str, used: str, is_trusted: bool) -> nn.Module:
    """A network that is only looked at. used: its arguments as JSON, so that they can be a key."""
    return skeleton(lambda: timm.create_model(name, **json.loads(used)), is_trusted)


def _channels(usual: nn.Module, request: Request, tensors: Tensors) -> int | None:
    """Channels that the network must be built for; None where its own are right."""
    name = (getattr(usual, "pretrained_cfg", None) or {}).get("first_conv") or ""
    name = (name if isinstance(name, str) else name[0]) + ".weight"
    expected = expected_tensors(usual)
    found = under_prefix(expected, tensors)[0].get(name)
    own = expected.get(name)
    told = None
    if found is not None and own is not None and found.ndim == own.ndim == 4:
        told = found.shape[1] if found.shape[1] != own.shape[1] else None
    return request.asked.channels or told or (None if tensors else request.wanted.channels)


def _is_believed(value: Any) -> bool:
    """Whether a network of such a size could be."""
    return all(abs(each) <= MAX_NUMBER for each in (value if isinstance(value, list) else [value]))


def _told_patch(usual: Any, tensors: Tensors) -> int | None:
    """Pixels a side of the patches in the file; None where they are the network's usual ones, or it has
    none."""
    name, expected = "patch_embed.proj.weight", expected_tensors(usual)
    own, found = expected.get(name), under_prefix(expected, tensors)[0].get(name)
    if own is None or found is None or own.ndim != 4 or found.ndim != 4:
        return None
    return None if own.shape[-1] == found.shape[-1] else found.shape[-1]


def _told_side(usual: Any, patch: Any, tensors: Tensors) -> int | None:
    """Pixels a side that the position embedding of a file is of, by its length and the patches' size;
    None where it is the network's usual one, or there is none."""
    expected = expected_tensors(usual)
    own, embed = expected.get("pos_embed"), getattr(usual, "patch_embed", None)
    found = under_prefix(expected, tensors)[0].get("pos_embed")
    if own is None or found is None or own.ndim != 3 or found.ndim != 3 or embed is None:
        return None
    n_extra = own.shape[1] - embed.num_patches
    side = math.isqrt(max(0, found.shape[1] - n_extra))
    patch = patch if isinstance(patch, int) else embed.patch_size[0]
    if side == 0 or side**2 != found.shape[1] - n_extra:
        return None
    told = side * patch
    return None if told == _side_of(usual) and patch == embed.patch_size[0] else told


def _side_of(usual: Any) -> int | None:
    """The same of a network's own position embedding."""
    if not hasattr(usual, "pos_embed") or getattr(usual, "patch_embed", None) is None:
        return None
    size = usual.patch_embed.img_size
    return None if size is None else size[0]
