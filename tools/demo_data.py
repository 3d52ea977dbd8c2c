"""Writes the data of `ckptsel demo` from the shipped run: three of its checkpoints, in eight bits, and
1,300 of its images.

    python -m tools.demo_data
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from ckptsel.common.files import atomic_path
from ckptsel.demo.unpack import FACTS, FOLDER, IMAGES, SCALE, STEM, WEIGHTS
from ckptsel.reproduce.run import write_parquet
from ckptsel.target.sources import open_source

RUN = Path(__file__).parents[1] / "reference_runs/cifar10-mnist-small"
EPOCHS = (5, 30, 120)
N_IMAGES = {"train": 300, "validation": 1000}


def main() -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    for epoch in EPOCHS:
        arrays |= packed(RUN / f"seed0/checkpoints/{STEM}{epoch:03d}.safetensors", f"{epoch:03d}")
    with atomic_path(FOLDER / WEIGHTS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    source = open_source(str(RUN / "targets/mnist-1000"))
    for split, n in N_IMAGES.items():
        images = source.read(split)
        write_parquet(FOLDER / f"{split}{IMAGES}", images.subset(chosen(images.labels, n)))


def packed(path: Path, name: str) -> dict[str, NDArray[np.generic]]:
    """Tensors of a checkpoint by `<name>/<tensor>`: filters as whole numbers in [-127, 127] with a scale
    each, all others as they are; and what it records beside them, as text."""
    arrays: dict[str, NDArray[np.generic]] = {}
    with safe_open(path, "np") as checkpoint:
        facts = checkpoint.metadata()
        arrays[f"{name}/{FACTS}"] = np.array([f"{k}={v}" for k, v in sorted(facts.items())])
        for key in checkpoint.keys():  # noqa: SIM118 - it is no dict
            tensor = checkpoint.get_tensor(key)
            if tensor.ndim < 2:
                arrays[f"{name}/{key}"] = tensor
                continue
            flat = tensor.astype(np.float32).reshape(len(tensor), -1)
            scale = np.maximum(np.abs(flat).max(axis=1) / 127, 1e-12).astype(np.float32)
            whole = np.rint(flat / scale[:, None]).astype(np.int8)
            arrays[f"{name}/{key}"] = whole.reshape(tensor.shape)
            arrays[f"{name}/{key}/{SCALE}"] = scale
    return arrays


def chosen(labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The first images of each class, as many of each; n in all."""
    classes = np.unique(labels)
    each = [np.flatnonzero(labels == label)[: n // len(classes)] for label in classes]
    return np.sort(np.concatenate(each))


if __name__ == "__main__":
    main()
