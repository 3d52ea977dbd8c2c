"""What one file, or one folder, holds, by the framework that wrote it.

Finding and ordering them is `ckptsel.checkpoints.scan`; which weights of them are meant,
`choosing`; what is recorded beside them, `records`. `docs/formats.md` lists the layouts.
"""

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.choosing import NotWeightsError, holds_tensors, tensors_in
from ckptsel.checkpoints.dcp import METADATA, read_dcp
from ckptsel.checkpoints.kinds import REFUSED, kind_of
from ckptsel.checkpoints.modules import contents_of, is_module
from ckptsel.checkpoints.parts import ZERO, check_whole
from ckptsel.checkpoints.safetensors_files import read_safetensors
from ckptsel.checkpoints.tensors import StoredTensor
from ckptsel.checkpoints.torch_files import read_torch_file
from ckptsel.checkpoints.vit_arrays import read_vision_transformer
from ckptsel.errors import CheckpointError

HUGGING_FACE_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

HUGGING_FACE_FACTS = ("config", "trainer_state", "preprocessor_config")
"""JSON files beside the weights."""

DCP_FACTS = ("meta.pt", "common.pt")
"""Files beside the pieces: of Lightning and of Megatron."""

FOLDER_PARTS = {
    "Hugging Face": re.compile(
        r"(model\.safetensors|pytorch_model\.bin)(\.index\.json)?$"
        r"|(pytorch_)?model-\d+-of-\d+\.(safetensors|bin)$|tf_model\.h5$|flax_model\.msgpack$"
        rf"|({'|'.join(HUGGING_FACE_FACTS)})\.json$"
    ),
    "DCP": re.compile(r"(meta|common|train_state|extra_state)\.pt$|metadata\.json$"),
}
"""Files of a folder that holds one checkpoint: parts of it, or the same weights again."""


def folder_kind(folder: Path) -> str | None:
    """What a folder is that holds one checkpoint in several files: `Hugging Face`, `DCP` or `Orbax`;
    None for any other folder."""
    if any((folder / name).is_file() for name in HUGGING_FACE_FILES):
        return "Hugging Face"
    if (folder / METADATA).is_file() and any(folder.glob("*.distcp")):
        return "DCP"
    if any((folder / name).is_file() for name in ("manifest.ocdbt", "_CHECKPOINT_METADATA")):
        return "Orbax"
    return None


def is_part(name: str, kind: str | None) -> bool:
    """Whether a file of a folder of a kind is part of its one checkpoint."""
    return kind in FOLDER_PARTS and FOLDER_PARTS[kind].match(name) is not None


METADATA_KEYS = ("format", "arch", "epoch", "step", "source_accuracy", "lr", "reading")
"""What is taken from the metadata of a safetensors file; other programs store much else there."""

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
    ("VISSL", {"classy_state_dict"}),
    ("MMEngine", {"state_dict", "meta"}),
    ("DeepSpeed", {"module", "ds_version"}),
    ("Detectron2", {"model", "__author__"}),
    ("Detectron2", {"model", "scheduler", "iteration"}),
    ("Megatron", {"model", "checkpoint_version"}),
    ("JAX", {"format:JAX"}),
)
"""A format is recognised by the keys that its files have; the first that fits."""


@dataclass(frozen=True)
class Payload:
    """What one file, or one folder, holds.

    value: by key; tensors as `StoredTensor`. facts: recorded beside the weights. module: the class of
    the whole pickled module that it is. unknown: names of classes and functions that it holds.
    """

    value: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    module: str | None = None
    unknown: tuple[str, ...] = ()


def read_payload(path: Path, root: Path) -> Payload:
    """What a file or folder holds.

    root: the folder that is scanned; files that a Hugging Face index names must lie in it. Raises
    CheckpointError, NotWeightsError where it is something else than a checkpoint.
    """
    check_inside(path, root)
    if path.is_dir():
        return _read_folder(path, root)
    check_regular(path)
    check_whole(path)
    return _read_file(path)


def _read_file(path: Path) -> Payload:
    """By its first bytes, whatever its name."""
    try:
        kind = kind_of(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot open the file: {error}") from error
    if kind == "jax":
        tensors, heads = read_vision_transformer(path)
        return Payload(tensors, {"format": "JAX", "arguments": {"num_heads": heads}})
    if kind in REFUSED:
        raise CheckpointError(REFUSED[kind])
    if kind == "safetensors" or (not kind and path.name.endswith(".safetensors")):
        tensors, metadata = read_safetensors(path)
        return Payload(tensors, {key: metadata[key] for key in METADATA_KEYS if key in metadata})
    if path.name.endswith(".npz"):
        raise NotWeightsError("arrays of NumPy, without the names of a network's weights.")
    return _read_torch(path)


def _read_torch(path: Path) -> Payload:
    file = read_torch_file(path)
    value = contents_of(file.value)
    if file.is_plain and (value is None or not holds_tensors(value)):
        raise NotWeightsError(
            "a plain pickle, not a file of torch.save, and it holds no weights. Save the network's "
            "with torch.save(model.state_dict(), ...)."
        )
    if value is None:
        raise NotWeightsError(
            f"it holds a {_kind_of(file.value)}, not a dict of tensors. Save model.state_dict()."
        )
    if re.search(r"mp_rank_\d+_model_states\.pt$", path.name) and not holds_tensors(value):
        raise CheckpointError(ZERO)
    module = file.value.full_name if is_module(file.value) else None
    return Payload(value, {}, module, file.unknown)


def check_regular(path: Path) -> None:
    """Raises CheckpointError where a path is no regular file: opening a pipe waits for ever."""
    try:
        if path.is_symlink() and not path.exists():
            raise CheckpointError(f"a link to {path.readlink()}, where no file is.")
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot open the file: {error}") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            "no regular file (a pipe, a socket or a device), so it is not opened."
        )


def check_inside(path: Path, root: Path) -> None:
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


def _kind_of(payload: object) -> str:
    """What a reader would call it."""
    return "tensor" if isinstance(payload, StoredTensor) else type(payload).__name__


def _read_folder(folder: Path, root: Path) -> Payload:
    kind = folder_kind(folder)
    if kind == "Orbax":
        raise CheckpointError(REFUSED["flax"])
    if kind is None:
        raise CheckpointError("a folder without the files of Hugging Face.")
    return _read_hugging_face(folder, root) if kind == "Hugging Face" else _read_dcp(folder, root)


def _read_dcp(folder: Path, root: Path) -> Payload:
    def check(path: Path) -> None:
        check_inside(path, root)
        check_regular(path)

    file = read_dcp(folder, check)
    beside: dict[Any, Any] = {}
    for name in DCP_FACTS:
        if _is_file(folder / name):
            check(folder / name)
            beside |= contents_of(read_torch_file(folder / name).value) or {}
    return Payload({**beside, **file.value}, {"format": "DCP"}, unknown=file.unknown)


def _read_hugging_face(folder: Path, root: Path) -> Payload:
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
        check_inside(folder / file, root)
        check_regular(folder / file)
        if file.endswith(".safetensors"):
            tensors.update(read_safetensors(folder / file)[0])
        else:
            tensors.update(_read_torch(folder / file).value)
    facts: dict[str, Any] = {"format": "Hugging Face"}
    for key in HUGGING_FACE_FACTS:
        if _is_file(folder / f"{key}.json"):
            facts[key] = _read_json(folder / f"{key}.json", root)
    return Payload(tensors, facts)


def _is_file(path: Path) -> bool:
    """False for names that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read_json(path: Path, root: Path) -> dict[str, Any]:
    check_inside(path, root)
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path.name}: {error}") from error
    return value if isinstance(value, dict) else {}


def format_of(payload: Mapping[str, Any], facts: Mapping[str, Any], path: Path) -> str:
    """Name of the framework that wrote it, as in FORMATS."""
    if facts.get("format") in FOLDER_PARTS:
        return str(facts["format"])
    keys = {key for key in payload if isinstance(key, str)} | {f"format:{facts.get('format')}"}
    for name, required in FORMATS:
        if required <= keys:
            return name
    if path.suffix == ".safetensors":
        return "safetensors"
    return "state dict" if tensors_in(payload) else "torch"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
