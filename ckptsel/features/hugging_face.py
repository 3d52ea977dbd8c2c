"""Models of transformers: `hf:` (by the config.json of the checkpoints) and `hf:FOLDER`.

The network is built from the configuration alone. No code of a checkpoint is run, nothing is
downloaded: of a configuration only the model's type, which must be one of transformers' own networks
of images, and plain values are used. The tensors are those that our own reader gave; transformers
only brings them under the names that its module has.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckptsel.checkpoints.network_inputs import inputs_of_processor, recorded
from ckptsel.errors import CheckpointError, ModelError, listed
from ckptsel.features.inputs import Inputs
from ckptsel.features.matching import OTHER_HEADS, Tensors
from ckptsel.features.network import Network, Request, interpolation_note, skeleton

IMAGE_MODELS = frozenset(
    (
        *("vit_mae", "vit_msn", "dinov3_vit", "dinov3_convnext"),
        *("siglip_vision_model", "clip_vision_model"),
    )
)
"""Networks of images besides those that transformers has a classifier of."""

IGNORED = frozenset(
    (
        *("auto_map", "quantization_config", "attn_implementation", "use_kernels", "name_or_path"),
        *("backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone"),
        *("use_pretrained_backbone", "dtype", "torch_dtype", "id2label", "label2id", "model_type"),
        *("architectures", "transformers_version"),
    )
)
"""Keys that would load code, kernels or other networks, or say nothing about this one."""

COUNTS = re.compile(r"layers|depth|block|stage|^num_(?!labels)")
MAX_DEPTH = 1000
"""Layers beyond which a configuration is not believed: each is built, however small."""


def build(rest: str, request: Request) -> Network:
    """rest: a folder with a config.json; '' for what the checkpoints record. Raises ModelError."""
    config, folder_inputs = _config_of(rest, request)
    kept = _plain(config)
    settings = _settings(str(config.get("model_type")), kept)
    module, options = _module(settings, request.tensors)
    default, processor = _default_inputs(settings)
    own = folder_inputs.over(default)
    size = getattr(settings, "image_size", None)
    size = size[0] if isinstance(size, list | tuple) and size else size
    size = size if isinstance(size, int) else None
    asked = request.wanted.over(own).image_size
    notes: tuple[str, ...] = ()
    interpolates = size is not None and asked not in (None, size) and _has_positions(module)
    if interpolates:
        notes += (interpolation_note(size, asked),)
    if request.wanted.over(folder_inputs).mean is None:
        notes += (
            "no preprocessor_config.json lies beside the checkpoints: mean, deviation and "
            f"interpolation are {processor}; --mean, --std and --interpolation say otherwise",
        )
    kind = type(module).__name__
    return Network(
        module,
        _Reader(interpolates),
        f"pooled output of {kind}",
        (),
        own.over(Inputs(image_size=size or 224)),
        translate=lambda tensors: _translated(module, settings, options, tensors),
        key=hashlib.sha256(json.dumps([config.get("model_type"), kept]).encode()).hexdigest(),
        notes=notes,
    )


class _Reader:
    """What transformers' own classifiers see: the pooled output, else the first token, else the mean
    of the map."""

    def __init__(self, interpolates: bool) -> None:
        self._more = {"interpolate_pos_encoding": True} if interpolates else {}

    def __call__(self, module: Any, images: Tensor) -> Tensor:
        found = module(pixel_values=images, **self._more)
        pooled = getattr(found, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        last = found.last_hidden_state
        return last.mean((2, 3)) if last.ndim == 4 else last[:, 0]


def _config_of(rest: str, request: Request) -> tuple[Mapping[str, Any], Inputs]:
    """(config.json, what the folder that the user named says of inputs)."""
    if not rest:
        if not request.recorded.config:
            raise ModelError(
                "the checkpoints have no config.json beside them that names a model_type. Name a folder "
                "that has one: --model hf:FOLDER."
            )
        return request.recorded.config, Inputs()
    folder = Path(rest)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json. Name a folder that transformers' save_pretrained wrote; "
            "names of the hub are not looked up, so download the model first."
        )
    files = {}
    for name in ("config", "preprocessor_config"):
        path = folder / f"{name}.json"
        try:
            files[name] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
    found = recorded({}, files, "Hugging Face")
    if "config" not in found:
        raise ModelError(f"{folder / 'config.json'} names no model_type of transformers.")
    return found["config"], Inputs.of_records(found.get("inputs", {}))


def _plain(value: Any) -> Any:
    """A configuration without the keys that are ignored."""
    if isinstance(value, Mapping):
        return {
            key: _plain(each)
            for key, each in value.items()
            if key not in IGNORED and not key.startswith("_")
        }
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _transformers() -> Any:
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(
            "the checkpoints are of transformers, which is not installed: pip install 'ckptsel[hf]'."
        ) from error
    # Its progress bars and reports of single tensors: what matters is said here.
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


def _settings(kind: str, kept: dict[str, Any]) -> Any:
    """The configuration as an object of transformers. Raises ModelError for what is no network of
    images of its own."""
    library = _transformers()
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = set(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES) | IMAGE_MODELS
    if kind not in known or kind.startswith("timm"):
        raise ModelError(
            f"config.json is of {kind!r}, which is no network of images that transformers "
            f"{library.__version__} has. Name the network with --model."
        )
    deep = [k for k, v in kept.items() if COUNTS.search(k) and _largest(v) > MAX_DEPTH]
    if deep:
        raise ModelError(f"config.json asks for more layers than are believed: {listed(deep)}.")
    try:
        return library.CONFIG_MAPPING[kind](**kept)
    except Exception as error:  # a configuration of a stranger, or of another version
        raise ModelError(
            f"transformers {library.__version__} cannot use this config.json of {kind}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error


def _largest(value: Any) -> float:
    values = value if isinstance(value, list) else [value]
    return max((v for v in values if isinstance(v, int | float)), default=0)


def _module(settings: Any, tensors: Tensors) -> tuple[Any, dict[str, Any]]:
    """(transformers' AutoModel for it, with random weights, arguments of its class): without a pooler
    where it would have a trained one and the file has none."""
    auto = _transformers().AutoModel
    options: dict[str, Any] = {}
    try:
        usual = skeleton(
            lambda: auto.from_config(settings, trust_remote_code=False), is_trusted=False
        )
        n_built = sum(t.numel() for t in usual.state_dict().values())
        n_held = sum(t.numel() for t in tensors.values())
        if tensors and n_built > 4 * n_held + 10**6:
            raise ModelError(
                f"config.json describes a network of {n_built:,} values, and the file holds {n_held:,}."
            )
        has_pooler = any(name.startswith("pooler.") for name in usual.state_dict())
        if tensors and has_pooler and not any("pooler." in name for name in tensors):
            options["add_pooling_layer"] = False
        module = auto.from_config(settings, trust_remote_code=False, **options)
    except ModelError:
        raise
    except Exception as error:  # as for a configuration
        raise ModelError(
            f"transformers cannot build this network: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if module.main_input_name != "pixel_values":
        raise ModelError(f"{type(module).__name__} takes {module.main_input_name}, not images.")
    return module, options


def _has_positions(module: Any) -> bool:
    return any("position_embedding" in name for name, _ in module.named_parameters())


def _translated(
    module: Any, settings: Any, options: Mapping[str, Any], tensors: Tensors
) -> Tensors:
    """The tensors under the module's names. Raises CheckpointError naming what does not fit."""
    loaded, info = type(module).from_pretrained(
        None,  # no folder and no name: nothing but these tensors
        config=settings,
        state_dict=dict(tensors),
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named below
        **options,
    )
    left_over = [name for name in info["unexpected_keys"] if not _is_of_a_head(name)]
    wrong = [str(entry[0]) for entry in info["mismatched_keys"]]
    problems = [
        f"{what}: {listed(sorted(names), 4)}"
        for what, names in (
            ("of another shape", wrong),
            ("missing", info["missing_keys"]),
            ("no place for", left_over),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__} as config.json describes it; "
            f"{'; '.join(problems)}."
        )
    return loaded.state_dict()


def _is_of_a_head(name: str) -> bool:
    parts = name.split(".")
    return any(OTHER_HEADS.match(".".join(parts[i:])) for i in range(min(2, len(parts))))


def _default_inputs(settings: Any) -> tuple[Inputs, str]:
    """(those of the image processor that transformers pairs with the network, whose they are)."""
    try:
        auto = importlib.import_module("transformers.models.auto.image_processing_auto")
        pairs = auto.IMAGE_PROCESSOR_MAPPING[type(settings)]
        each = pairs.values() if isinstance(pairs, dict) else pairs
        kind = [one for one in each if one is not None][-1]
        found = inputs_of_processor(kind().to_dict())
    except Exception:  # of a version that pairs them in another way, or has none for it
        return Inputs(), "ImageNet's, resized by bicubic"
    found.pop("image_size", None)
    return Inputs.of_records(found), f"those that transformers' {kind.__name__} has of itself"
