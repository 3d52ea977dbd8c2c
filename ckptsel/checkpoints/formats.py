"""What each training framework writes into a checkpoint, and where its facts lie.

Each table and function is about the content of one file or Hugging Face folder; finding and ordering
them is `ckptsel.checkpoints.scan`. `docs/formats.md` lists the layouts.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ckptsel.checkpoints.pickles import read_torch_file
from ckptsel.errors import CheckpointError

HUGGING_FACE_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

AVERAGED_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "teacher",
)
RAW_KEYS = ("state_dict", "model", "model_state_dict", "student", "net", "network", "weights")
WEIGHTS_CHOICES: dict[str, tuple[str, ...]] = {
    "auto": (*AVERAGED_KEYS, *RAW_KEYS),
    "raw": RAW_KEYS,
    "ema": AVERAGED_KEYS,
    "teacher": ("teacher",),
    "student": ("student",),
}
"""Where the weights lie in a file, by what the user asked for; the first key that is there."""

METADATA_KEYS = ("format", "arch", "epoch", "step", "source_accuracy")
"""What is taken from the metadata of a safetensors file; other programs store much else there."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DataParallel and torch.compile, which say nothing about the model."""

FORMATS = (
    ("ckptsel", {"format:ckptsel"}),
    ("Lightning", {"state_dict", "pytorch-lightning_version"}),
    ("Lightning", {"state_dict", "global_step"}),
    ("PyTorch ImageNet example", {"state_dict", "best_acc1"}),
    ("timm", {"state_dict", "arch"}),
    ("DINO", {"student", "teacher"}),
    ("torchvision references", {"model", "optimizer", "lr_scheduler"}),
    ("MAE", {"model", "optimizer", "epoch", "scaler", "args"}),
    ("DINOv2", {"teacher"}),
)
"""A format is recognised by the keys that its files have; the first that fits."""


def read_payload(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """(what the file holds, facts recorded beside the weights)."""
    if path.is_dir():
        return _read_hugging_face(path)
    if path.name.endswith(".safetensors"):
        return _read_safetensors(path)
    if path.name.endswith(".npz"):
        raise CheckpointError(
            "NumPy archives (big_vision, original ViT) are not read. Load it with timm and save it "
            "with safetensors.torch.save_file(model.state_dict(), ...)."
        )
    if re.search(r"\.rank_\d+\.pth$", path.name):
        raise CheckpointError(
            "one shard of a distributed (FSDP) checkpoint. Gather the shards into one state dict."
        )
    return _read_torch_dict(path), {}


def _read_torch_dict(path: Path) -> Mapping[str, Any]:
    payload = read_torch_file(path)
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"it holds a {type(payload).__name__}, not a dict of tensors. Save model.state_dict()."
        )
    return payload


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
            return tensors, {key: metadata[key] for key in METADATA_KEYS if key in metadata}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"not a whole safetensors file ({error}). It may be cut off; copy it again."
        ) from error


def _read_hugging_face(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    name = next(name for name in HUGGING_FACE_FILES if (folder / name).is_file())
    if name.endswith(".index.json"):
        weight_map = _read_json(folder / name).get("weight_map")
        if not isinstance(weight_map, dict) or not all(map(_is_text, weight_map.values())):
            raise CheckpointError(f"{name} has no weight_map from tensors to files.")
        files = sorted(set(weight_map.values()))
    else:
        files = [name]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not (folder / file).is_file():
            raise CheckpointError(f"{name} names {file}, which is not in {folder}.")
        if file.endswith(".safetensors"):
            tensors.update(_read_safetensors(folder / file)[0])
        else:
            tensors.update(_read_torch_dict(folder / file))
    facts: dict[str, Any] = {"format": "Hugging Face"}
    for key, file in (("config", "config.json"), ("trainer_state", "trainer_state.json")):
        if (folder / file).is_file():
            facts[key] = _read_json(folder / file)
    return tensors, facts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path.name}: {error}") from error
    return value if isinstance(value, dict) else {}


def choose_weights(payload: Mapping[str, Any], weights: str) -> tuple[str, dict[str, Tensor]]:
    """(key, tensors) by what was asked for. Raises CheckpointError naming what is there."""
    for key in WEIGHTS_CHOICES.get(weights, (weights,)):
        value = payload.get(key)
        if isinstance(value, Mapping) and _tensors_in(value):
            return key, _tensors_in(value)
    flat = _tensors_in(payload)
    if all(tensor.numel() <= 1 for tensor in flat.values()):
        flat = {}  # a loss or an accuracy beside state dicts
    if flat and weights in ("auto", "raw"):
        return "", flat
    with_tensors = [k for k, v in payload.items() if isinstance(v, Mapping) and _tensors_in(v)]
    if not with_tensors and not flat:
        raise CheckpointError(
            f"it holds no state dict: its keys are {', '.join(map(str, payload)) or 'none'}."
        )
    raise CheckpointError(
        f"it has no weights for --weights {weights}; it has "
        f"{', '.join(with_tensors) or 'only one plain state dict (--weights raw)'}."
    )


def _tensors_in(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {key: t for key, t in value.items() if isinstance(t, Tensor) and isinstance(key, str)}


def strip_wrappers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the wrappers' prefixes, as often as most of the names begin with one."""
    while True:
        for prefix in WRAPPERS:
            if 2 * sum(name.startswith(prefix) for name in state_dict) > len(state_dict):
                state_dict = {name.removeprefix(prefix): t for name, t in state_dict.items()}
                break
        else:
            return state_dict


def format_of(payload: Mapping[str, Any], facts: Mapping[str, Any], path: Path) -> str:
    """Name of the framework that wrote it, as in FORMATS."""
    if facts.get("format") == "Hugging Face":
        return "Hugging Face"
    keys = {key for key in payload if isinstance(key, str)} | {f"format:{facts.get('format')}"}
    for name, required in FORMATS:
        if required <= keys:
            return name
    if path.suffix == ".safetensors":
        return "safetensors"
    return "state dict" if _tensors_in(payload) else "torch"


def recorded_progress(
    payload: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[float | None, int | None]:
    """(epoch, step) as stored, None where they are not."""
    trainer_state = facts.get("trainer_state", {})
    epoch = _first_number(payload.get("epoch"), facts.get("epoch"), trainer_state.get("epoch"))
    step = _first_number(
        payload.get("global_step"), facts.get("step"), trainer_state.get("global_step")
    )
    return epoch, None if step is None else int(step)


def recorded_accuracy(
    payload: Mapping[str, Any], facts: Mapping[str, Any], name: str
) -> float | None:
    """Accuracy on the source data, as a fraction, where the file or its name carries one."""
    accuracy = _first_number(facts.get("source_accuracy"), payload.get("source_accuracy"))
    if accuracy is None:
        percent = _first_number(payload.get("best_acc1"))
        if percent is None and "metric" in payload:
            is_top = str(_argument(payload, "eval_metric") or "top1").startswith("top")
            percent = _first_number(payload["metric"]) if is_top else None
        accuracy = None if percent is None else percent / 100
    if accuracy is None:
        accuracy = _evaluation_in_log(facts.get("trainer_state", {}))
    if accuracy is None:
        match = re.search(r"(?:acc|accuracy|acc1|top1)=(\d*\.\d+)", name)
        accuracy = float(match.group(1)) if match else None
    return accuracy if accuracy is not None and 0 <= accuracy <= 1 else None


def _evaluation_in_log(trainer_state: Mapping[str, Any]) -> float | None:
    log = trainer_state.get("log_history")
    entries = [e for e in log if isinstance(e, dict)] if isinstance(log, list) else []
    for entry in reversed(entries):
        if "eval_accuracy" in entry and entry.get("step") == trainer_state.get("global_step"):
            return _first_number(entry["eval_accuracy"])
    return None


def recorded_arch(payload: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Architecture that was recorded; not always a name that timm knows."""
    config = facts.get("config", {})
    candidates = (
        facts.get("arch"),
        config.get("architecture"),
        payload.get("arch"),
        _argument(payload, "model"),
        _argument(payload, "arch"),
    )
    return next((name for name in candidates if isinstance(name, str)), None)


def _argument(payload: Mapping[str, Any], name: str) -> Any:
    """A command-line argument that the training script stored, as a Namespace or a dict."""
    arguments = payload.get("args")
    if isinstance(arguments, Mapping):
        return arguments.get(name)
    return getattr(arguments, name, None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _first_number(*values: Any) -> float | None:
    """The first finite number among them, or text of one."""
    for value in values:
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            continue
        if math.isfinite(number):
            return int(number) if number.is_integer() else number
    return None
