"""The checkpoints and images that the package carries, written out as files that any command reads."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.common.files import write_bytes

FOLDER = Path(__file__).parent
WEIGHTS, IMAGES = "checkpoints.npz", "-00000-of-00001.parquet"
STEM, SCALE, FACTS = "checkpoint-", "scale", "facts"


def unpack(folder: Path) -> tuple[Path, Path]:
    """Write the checkpoints and the images; gives their folders. What lies there already is replaced.

    Weights of filters were stored in eight bits, with a scale for each filter (`tools/demo_data.py`).
    """
    from safetensors.numpy import save

    checkpoints, images = folder / "checkpoints", folder / "images"
    with np.load(FOLDER / WEIGHTS, allow_pickle=False) as packed:
        arrays = dict(packed)
    for name in sorted({key.partition("/")[0] for key in arrays}):
        own = {
            key.partition("/")[2]: array for key, array in arrays.items() if key.startswith(name)
        }
        facts = dict(str(fact).split("=", 1) for fact in own.pop(FACTS))
        write_bytes(checkpoints / f"{STEM}{name}.safetensors", save(_tensors(own), facts))
    images.mkdir(parents=True, exist_ok=True)
    for file in sorted(FOLDER.glob(f"*{IMAGES}")):
        shutil.copyfile(file, images / file.name)
    return checkpoints, images


def _tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    tensors = {}
    for key, array in arrays.items():
        if key.endswith(f"/{SCALE}"):
            continue
        scale = arrays.get(f"{key}/{SCALE}")
        if scale is not None:
            array = array.astype(np.float32) * scale.reshape(-1, *(1,) * (array.ndim - 1))
        tensors[key] = array
    return tensors
