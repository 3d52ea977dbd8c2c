"""Image towers of open_clip: `open_clip:NAME`."""

import importlib
from typing import Any

from torch import Tensor

from ckptsel.errors import ModelError, did_you_mean
from ckptsel.features.inputs import Inputs
from ckptsel.features.network import Network, Request


def build(name: str, request: Request) -> Network:
    """The image tower, built from open_clip's own configuration; nothing is downloaded.

    Raises ModelError where open_clip is not installed, or has no such network.
    """
    try:
        library = importlib.import_module("open_clip")
    except ImportError as error:
        raise ModelError(
            f"open_clip:{name} needs open_clip: pip install 'ckptsel[open_clip]'."
        ) from error
    if name not in library.list_models():
        raise ModelError(
            f"unknown model 'open_clip:{name}': open_clip has no network of this name."
            + did_you_mean(name, library.list_models())
        )
    config = library.get_model_config(name)
    size = request.wanted.image_size
    vision = {**config["vision_cfg"], **({} if size is None else {"image_size": size})}
    vision["timm_model_pretrained"] = False
    model = importlib.import_module("open_clip.model")
    try:
        module = model._build_vision_tower(
            config["embed_dim"], vision, config.get("quick_gelu", False)
        )
    except Exception as error:  # another library's, of another version
        raise ModelError(
            f"open_clip cannot build {name}: {type(error).__name__}: {error}"
        ) from error
    return Network(
        module,
        _embedding,
        "image embedding",
        (),
        Inputs(
            image_size=vision.get("image_size", 224),
            mean=tuple(library.OPENAI_DATASET_MEAN),
            std=tuple(library.OPENAI_DATASET_STD),
            interpolation="bicubic",
        ),
        key=repr(sorted(vision.items(), key=str)),
    )


def _embedding(module: Any, images: Tensor) -> Tensor:
    found = module(images)
    return found[0] if isinstance(found, tuple) else found
