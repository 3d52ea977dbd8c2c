"""What each training framework writes into a checkpoint, and where its facts lie.

Each table and function is about the content of one file or Hugging Face folder; finding and ordering
them is `ckptsel.checkpoints.scan`. `docs/formats.md` lists the layouts.
"""

import json
import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.pickles import Namespace, NumpyArray
from ckptsel.checkpoints.safetensors_files import read_safetensors
from ckptsel.checkpoints.tensors import StoredTensor
from ckptsel.checkpoints.torch_files import read_torch_file
from ckptsel.errors import CheckpointError

HUGGING_FACE_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

HUGGING_FACE_FACTS = ("config", "trainer_state", "preprocessor_config")
"""JSON files beside the weights."""

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


def read_payload(path: Path, root: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """(what the file holds, facts recorded beside the weights); tensors as `StoredTensor`.

    root: the folder that is scanned; files that a Hugging Face index names must lie in it.
    """
    _check_inside(path, root)
    if path.is_dir():
        return _read_hugging_face(path, root)
    _check_regular(path)
    if path.name.endswith(".safetensors"):
        tensors, metadata = read_safetensors(path)
        return tensors, {key: metadata[key] for key in METADATA_KEYS if key in metadata}
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


def _check_regular(path: Path) -> None:
    """Raises CheckpointError where a path is no regular file: opening a pipe waits for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot open the file: {error}") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            "no regular file (a pipe, a socket or a device), so it is not opened."
        )


def _check_inside(path: Path, root: Path) -> None:
    if not is_inside(path, root):
        raise CheckpointError(
            f"a link that leads out of the folder, to {path.resolve()}: nothing outside of it is read. "
            "Copy what it leads to into the folder, or give the folder that it lies in."
        )


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, links followed, lies in the folder that is scanned.

    In the cache of Hugging Face's hub the files of a snapshot are links to `blobs` beside it.
    """
    folder = (root if root.is_dir() else root.parent).resolve()
    hub = next((up.parent for up in (folder, *folder.parents) if up.name == "snapshots"), None)
    if hub is not None and hub.name.startswith(("models--", "datasets--")):
        folder = hub
    try:
        return path == root or path.resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):
        return (
            True  # a circle of links, or a name that no file can have: it cannot be opened either
        )


def _read_torch_dict(path: Path) -> Mapping[str, Any]:
    payload = read_torch_file(path)
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"it holds a {_kind_of(payload)}, not a dict of tensors. Save model.state_dict()."
        )
    return payload


def _kind_of(payload: object) -> str:
    """What a reader would call it."""
    return "tensor" if isinstance(payload, StoredTensor) else type(payload).__name__


def _read_hugging_face(folder: Path, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    name = next(name for name in HUGGING_FACE_FILES if (folder / name).is_file())
    if name.endswith(".index.json"):
        weight_map = _read_json(folder / name, root).get("weight_map")
        if not isinstance(weight_map, dict) or not all(map(_is_text, weight_map.values())):
            raise CheckpointError(f"{name} has no weight_map from tensors to files.")
        files = sorted(set(weight_map.values()))
    else:
        files = [name]
    tensors: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(
                f"{name} names {file[:100]!r}, which is no file of its own folder."
            )
        if not _is_file(folder / file):
            raise CheckpointError(f"{name} names {file[:100]}, which is not in {folder}.")
        _check_inside(folder / file, root)
        _check_regular(folder / file)
        if file.endswith(".safetensors"):
            tensors.update(read_safetensors(folder / file)[0])
        else:
            tensors.update(_read_torch_dict(folder / file))
    facts: dict[str, Any] = {"format": "Hugging Face"}
    for key in HUGGING_FACE_FACTS:
        if _is_file(folder / f"{key}.json"):
            facts[key] = _read_json(folder / f"{key}.json", root)
    return tensors, facts


def _is_file(path: Path) -> bool:
    """False for names that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read_json(path: Path, root: Path) -> dict[str, Any]:
    _check_inside(path, root)
    _check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path.name}: {error}") from error
    return value if isinstance(value, dict) else {}


def choose_weights(payload: Mapping[str, Any], weights: str) -> tuple[str, dict[str, StoredTensor]]:
    """(key, tensors) by what was asked for. Raises CheckpointError naming what is there."""
    for key in WEIGHTS_CHOICES.get(weights, (weights,)):
        value = payload.get(key)
        if isinstance(value, Mapping) and _tensors_in(value):
            return key, _tensors_in(value)
    flat = _tensors_in(payload)
    if all(t.kind == "dense" and t.n_values <= 1 for t in flat.values()):
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


def _tensors_in(value: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    return {
        key: t for key, t in value.items() if isinstance(t, StoredTensor) and isinstance(key, str)
    }


def strip_wrappers(state_dict: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
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
        *_classes_of(config),
    )
    return next((name for name in candidates if isinstance(name, str)), None)


def _classes_of(config: Mapping[str, Any]) -> list[Any]:
    """Names of transformers' classes, which say what a folder is; nothing is looked up by them."""
    names = config.get("architectures")
    return names if isinstance(names, list) else []


def _argument(payload: Mapping[str, Any], name: str) -> Any:
    """A command-line argument that the training script stored, as a Namespace or a dict."""
    arguments = payload.get("args")
    if isinstance(arguments, Mapping):
        return arguments.get(name)
    return arguments.attributes.get(name) if isinstance(arguments, Namespace) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _first_number(*values: Any) -> float | None:
    """The first finite number among them, or text of one."""
    for value in values:
        if isinstance(value, NumpyArray):
            value = value.number
        try:
            if isinstance(value, StoredTensor) and value.n_values == 1:
                value = value.item()
            number = float(value)
        except (TypeError, ValueError, OverflowError, CheckpointError):
            continue
        if math.isfinite(number):
            return int(number) if number.is_integer() else number
    return None
