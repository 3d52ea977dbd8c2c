"""Features of images as a file: safetensors, npz or parquet, by its suffix.

| | numbers | texts (names of images, splits, labels, predictions, classes) |
| --- | --- | --- |
| `.safetensors` | tensors `features`, `probabilities` | metadata, lists as JSON |
| `.npz` | arrays `features`, `probabilities` | arrays of text |
| `.parquet` | columns of lists | columns of text; `classes` in the schema's metadata |

A file is written to a temporary name, then renamed.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.safetensors_files import MAX_HEADER
from ckptsel.common.files import atomic_path, write_bytes
from ckptsel.errors import OutputError


@dataclass(frozen=True)
class ImageFeatures:
    """Features of N images, and what is known of them.

    features: (N, D) float32. names: of each image. about: what they are features of. splits: None where
    there is one. labels: names of classes; None where nothing says them. predictions: names of classes.
    classes: names, (C,). probabilities: (N, C) float32.
    """

    features: NDArray[np.float32]
    names: list[str]
    about: dict[str, str]
    splits: list[str] | None = None
    labels: list[str] | None = None
    predictions: list[str] | None = None
    classes: list[str] | None = None
    probabilities: NDArray[np.float32] | None = None

    @property
    def numbers(self) -> dict[str, NDArray[np.float32]]:
        found = {"features": self.features, "probabilities": self.probabilities}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def texts(self) -> dict[str, list[str]]:
        """One for each image."""
        names = ("names", "splits", "labels", "predictions")
        return {name: texts for name in names if (texts := getattr(self, name)) is not None}


def write_features(path: Path, found: ImageFeatures) -> None:
    """Raises OutputError where the file cannot be written."""
    WRITERS[path.suffix](path, found)


def _write_safetensors(path: Path, found: ImageFeatures) -> None:
    from safetensors.numpy import save

    lists = {**found.texts, **({} if found.classes is None else {"classes": found.classes})}
    texts = {name: json.dumps(values) for name, values in lists.items()}
    if sum(map(len, texts.values())) > MAX_HEADER // 2:  # the header escapes them once more
        raise OutputError(
            f"the names of {len(found.names)} images are too long for the metadata of a safetensors "
            "file. Write .npz or .parquet."
        )
    numbers = {name: np.ascontiguousarray(array) for name, array in found.numbers.items()}
    write_bytes(path, save(numbers, {**found.about, **texts}))


def _write_npz(path: Path, found: ImageFeatures) -> None:
    texts = {**found.about, **found.texts, "classes": found.classes}
    arrays: dict[str, Any] = {k: np.array(v) for k, v in texts.items() if v is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, **found.numbers})
    write_bytes(path, buffer.getvalue())


def _write_parquet(path: Path, found: ImageFeatures) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name.removesuffix("s"): pa.array(texts) for name, texts in found.texts.items()}
    for name, array in found.numbers.items():
        flat = pa.array(np.ascontiguousarray(array).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    classes = {} if found.classes is None else {"classes": json.dumps(found.classes)}
    table = pa.table(columns).replace_schema_metadata({**found.about, **classes})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


WRITERS: dict[str, Callable[[Path, ImageFeatures], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
