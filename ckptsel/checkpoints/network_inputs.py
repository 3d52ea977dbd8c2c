"""What a file records beside its weights about the network's inputs: plain values, checked and few.

    {"inputs": {"image_size": 64, "mean": [0.5, 0.5, 0.5], ...},   options of `ckptsel rank`, by name
     "arguments": {"patch_size": 8, ...},                           numbers it was built with
     "config": {...},                                               config.json of transformers
     "reading": "{...}",                                            how an exported network is read
     "class": "my_models.Net",                                      of a whole pickled module
     "where": "args"}                                               where they were read

Everything here comes from strangers: what is no plain value of the expected kind is left out.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ckptsel.checkpoints.pickles import Namespace

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

RECIPES: dict[str, dict[str, Any]] = {
    name: {**IMAGENET, "interpolation": interpolation, "crop_pct": 0.875}
    for name, interpolation in (
        ("DINO", "bicubic"),
        ("DINOv2", "bicubic"),
        ("MAE", "bicubic"),
        ("torchvision references", "bilinear"),
    )
}
"""How the code that wrote a format evaluates, where its files do not say: 256 pixels, of which the inner
224 are kept."""

MOCO_V3 = ("base_encoder.", "momentum_encoder.")
"""How names of its tensors begin. Its `vit_small` has 12 heads and DINO's, of the same shapes, 6."""

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers, which transformers writes."""

POOLINGS = ("avg", "token", "map", "max", "avgmax", "catavgmax")

MAX_SIZE, MAX_CONFIG, MAX_READING = 4096, 100_000, 10**7
"""Pixels a side, and characters of a configuration or a reading, beyond which it is not believed."""


OWN_CLASS = re.compile(r"(?!torch\.|__torch__)\w{1,80}(\.\w{1,80}){1,9}")
"""A class that a user may have the code of."""


def recorded(
    payload: Mapping[str, Any],
    facts: Mapping[str, Any],
    form: str,
    names: Collection[str] = (),
    module: str | None = None,
) -> dict[str, Any]:
    """What a file of a format (`FORMATS`) records; {} for nothing. names: of its tensors. module: the
    class, where it is a whole pickled module."""
    config, processor = facts.get("config", {}), facts.get("preprocessor_config", {})
    found: dict[str, Any] = {}
    if isinstance(config.get("model_type"), str) and len(json.dumps(config)) <= MAX_CONFIG:
        found["config"] = config
    arguments = _arguments(payload)
    sources = (
        ("preprocessor_config.json", _of_processor(processor)),
        ("config.json", _of_config(config)),
        ("args", _of_arguments(arguments)),
        (f"format {form}", RECIPES.get(form, {})),
    )
    inputs: dict[str, Any] = {}
    for _, values in reversed(sources):
        inputs |= values
    if inputs:
        found["inputs"] = inputs
        found["where"] = ", ".join(where for where, values in sources if values)
    reading = facts.get("reading")
    if isinstance(reading, str) and len(reading) <= MAX_READING:
        found["reading"] = reading
    if module is not None and OWN_CLASS.fullmatch(module):
        found["class"] = module
    numbers = _numbers_of(facts.get("arguments"))
    numbers |= _numbers_of(config.get("model_args")) | _numbers_of(arguments.get("model_kwargs"))
    numbers |= _numbers_of({"patch_size": arguments.get("patch_size")})
    if payload.get("arch") == "vit_small" and any(name.startswith(MOCO_V3) for name in names):
        numbers["num_heads"] = 12
    if numbers:
        found["arguments"] = numbers
    return found


def _arguments(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The command line that a training script stored."""
    arguments = payload.get("args")
    if isinstance(arguments, Namespace):
        arguments = arguments.attributes
    return arguments if isinstance(arguments, Mapping) else {}


def _of_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """timm's names, MAE's and those of torchvision's references."""
    names = ("input_size", "img_size", "image_size", "val_crop_size")
    size = next((arguments[n] for n in names if arguments.get(n) is not None), None)
    crop, resized = arguments.get("val_crop_size"), arguments.get("val_resize_size")
    share = arguments.get("crop_pct")
    if isinstance(crop, int) and isinstance(resized, int) and resized >= crop > 0:
        share = crop / resized
    channels = arguments.get("in_chans")
    if channels is None and isinstance(size, list | tuple) and len(size) == 3:
        channels = size[0]
    return _checked(
        image_size=size,
        channels=channels,
        mean=arguments.get("mean"),
        std=arguments.get("std"),
        interpolation=arguments.get("interpolation"),
        crop_pct=share,
        crop_mode=arguments.get("crop_mode"),
        pool=arguments.get("gp"),
    )


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' own keys; timm's lie in `pretrained_cfg`."""
    timm = config.get("pretrained_cfg")
    if isinstance(timm, Mapping):
        return _checked(
            image_size=timm.get("input_size"),
            mean=timm.get("mean"),
            std=timm.get("std"),
            interpolation=timm.get("interpolation"),
            crop_pct=timm.get("crop_pct"),
            crop_mode=timm.get("crop_mode"),
            pool=config.get("global_pool"),
        )
    return _checked(image_size=config.get("image_size"), channels=config.get("num_channels"))


def _of_processor(processor: Mapping[str, Any]) -> dict[str, Any]:
    """An image processor of transformers: resized to `size`, squashed where that has two sides, or
    to the shorter side and cropped to `crop_size`."""
    if not processor:
        return {}
    size, crop = processor.get("size"), processor.get("crop_size")
    resized, final = _side(size), _side(size)
    share: Any = 1.0
    if processor.get("do_center_crop") and _side(crop):
        final = _side(crop)
        share = min(1.0, final / resized) if final and resized else 1.0
    elif _is_number(processor.get("crop_pct")) and final and final < 384:
        share = processor["crop_pct"]  # ConvNeXt
    is_squashed = not (isinstance(size, Mapping) and "shortest_edge" in size) and share == 1
    resample = processor.get("resample")
    is_known = isinstance(resample, int) and 0 <= resample < len(INTERPOLATIONS)
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if processor.get("do_normalize") is False:
        mean, std = [0.0], [1.0]
    return _checked(
        image_size=final,
        mean=mean,
        std=std,
        interpolation=INTERPOLATIONS[resample] if is_known else None,  # type: ignore[index]
        crop_pct=share,
        crop_mode="squash" if is_squashed else None,
    )


def inputs_of_processor(processor: Mapping[str, Any]) -> dict[str, Any]:
    """The options that an image processor of transformers stands for."""
    return _of_processor(processor)


def _checked(**values: Any) -> dict[str, Any]:
    """The options whose values are of their kind."""
    checks = {
        "image_size": _side,
        "channels": lambda v: v if _is_number(v) and v in range(1, 65) else None,
        "mean": _list_of_numbers,
        "std": lambda v: v if (v := _list_of_numbers(v)) and min(v) > 0 else None,
        "interpolation": lambda v: v if v in INTERPOLATIONS else None,
        "crop_pct": lambda v: float(v) if _is_number(v) and 0 < v <= 1 else None,
        "crop_mode": lambda v: v if v == "squash" else None,
        "pool": lambda v: v if v in POOLINGS else None,
    }
    found = {}
    for name, value in values.items():
        checked = checks[name](value) if _is_plain(value) else None
        if checked is not None:
            found[name] = checked
    return found


def _is_plain(value: Any) -> bool:
    """No object of the reader's, which compares as it likes."""
    return isinstance(value, bool | int | float | str | list | tuple | dict)


def _side(value: Any) -> int | None:
    """Pixels a side of a square: of a number, (height, width), (channels, height, width) or a dict."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge") or [value.get("height"), value.get("width")]
    if isinstance(value, list | tuple):
        sides = {side for side in value[-2:] if _is_number(side)}
        value = sides.pop() if len(sides) == 1 else None
    return (
        value if isinstance(value, int) and _is_number(value) and 8 <= value <= MAX_SIZE else None
    )


def _list_of_numbers(value: Any) -> list[float] | None:
    if _is_number(value):
        value = [value]
    if isinstance(value, list | tuple) and 0 < len(value) <= 64 and all(map(_is_number, value)):
        return [float(number) for number in value]
    return None


def _numbers_of(values: Any) -> dict[str, Any]:
    """The arguments of a network that are numbers, or short lists of them."""
    if not isinstance(values, Mapping):
        return {}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if isinstance(name, str) and (_is_small(value) or _is_list_of_small(value))
    }


def _is_small(value: Any) -> bool:
    return isinstance(value, bool) or (_is_number(value) and abs(value) <= 10**5)


def _is_list_of_small(value: Any) -> bool:
    return isinstance(value, Sequence) and 0 < len(value) <= 16 and all(map(_is_small, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
