"""What is kept between runs: features, score results, training runs; each file whole or not there.

A file's name is the digest of everything that determines its content, so nothing is ever stale and
two runs may share a cache. Deleting the folder is always safe.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ckptsel.common.files import atomic_path
from ckptsel.results.scores import ScoreResult

FOLDER_VARIABLE = "CKPTSEL_CACHE"


def default_cache_folder() -> Path:
    """$CKPTSEL_CACHE, else the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ckptsel"


class Cache:
    """Features, score results and training runs by key; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @property
    def pixels_folder(self) -> Path | None:
        return None if self.folder is None else self.folder / "pixels"

    def get_features(self, key: str) -> NDArray[np.float32] | None:
        path = self._path("features", key, "npy")
        return np.load(path) if path is not None and path.is_file() else None

    def put_features(self, key: str, features: NDArray[np.float32]) -> None:
        path = self._path("features", key, "npy")
        if path is not None:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, features)

    def get_score(self, key: str) -> ScoreResult | None:
        path = self._path("scores", key, "npz")
        if path is None or not path.is_file():
            return None
        with np.load(path) as stored:
            about = json.loads(str(stored["about"]))
            return ScoreResult(
                value=float(stored["value"]),
                per_image=stored["per_image"] if "per_image" in stored else None,
                predictions=stored["predictions"] if "predictions" in stored else None,
                flags=tuple(about["flags"]),
                details=about["details"],
                arrays={name: stored[f"array {name}"] for name in about["arrays"]},
            )

    def put_score(self, key: str, result: ScoreResult) -> None:
        path = self._path("scores", key, "npz")
        if path is None:
            return
        arrays: dict[str, Any] = {"value": np.array(result.value)}
        if result.per_image is not None:
            arrays["per_image"] = result.per_image
        if result.predictions is not None:
            arrays["predictions"] = result.predictions
        arrays |= {f"array {name}": array for name, array in result.arrays.items()}
        about = json.dumps(
            {"flags": result.flags, "details": result.details, "arrays": list(result.arrays)}
        )
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(about), **arrays)

    def get_record(self, kind: str, key: str) -> dict[str, Any] | None:
        """Tensors and plain values, the tensors on the CPU. kind: `transfers` or `training`."""
        path = self._path(kind, key, "pt")
        if path is None or not path.is_file():
            return None
        record: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return record

    def put_record(self, kind: str, key: str, record: dict[str, Any]) -> None:
        path = self._path(kind, key, "pt")
        if path is not None:
            with atomic_path(path) as temporary:
                torch.save(record, temporary)

    def drop_record(self, kind: str, key: str) -> None:
        path = self._path(kind, key, "pt")
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, kind: str, key: str, suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / kind / f"{key[:40]}.{suffix}"
