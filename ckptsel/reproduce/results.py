"""The raw numbers of a run: tables (one CSV file each) and held-out predictions.

| file in `raw/` | one row for |
| --- | --- |
| `source.csv` | a pre-training epoch: loss and accuracy on the source |
| `scores.csv` | a score of a checkpoint on a target, with its interval over images |
| `transfers.csv` | an FE or FT run: a checkpoint, a target, a transfer seed |
| `components.csv` | a component of the features (F, F_m, F_r), before FT or after, in one reading |
| `layers.csv` | a component of the features of a layer, before FT |
| `spectra.csv` | a singular value of the training features, before FT or after |
| `clusters.csv` | how well classes cluster, in the features and in their t-SNE embedding |
| `embedding.csv` | an image in a t-SNE embedding |
| `predictions.safetensors` | class numbers (runs, held-out images), from which intervals come |
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from ckptsel.common.files import csv_text, write_bytes, write_text
from ckptsel.errors import InputError
from ckptsel.ranking.intervals import Values

TABLES = (
    "source",
    "scores",
    "transfers",
    "components",
    "layers",
    "spectra",
    "clusters",
    "embedding",
)

DIGITS = 6

Record = dict[str, Any]


@dataclass
class Results:
    """Tables by name, and predictions by `/`-separated key (see `prediction_key`)."""

    tables: dict[str, list[Record]] = field(default_factory=lambda: {name: [] for name in TABLES})
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, table: str, **row: Any) -> None:
        """A row; numbers are rounded to six digits after the point."""
        self.tables[table].append(
            {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()}
        )

    def rows(self, table: str, **equal: Any) -> list[Record]:
        """The rows of a table whose columns have these values."""
        return [r for r in self.tables[table] if all(r[k] == v for k, v in equal.items())]

    def values(self, table: str, column: str) -> list[Any]:
        """The values that a column takes, in order of appearance."""
        return list(dict.fromkeys(row[column] for row in self.tables[table]))

    def correct(self, key: str) -> Values | None:
        """Which held-out images are right, (runs, images), 1.0 or 0.0; None where it was not run."""
        if key not in self.predictions:
            return None
        target, seed = key.split("/")[:2]
        labels = self.predictions[f"{target}/{seed}/labels"]
        return (self.predictions[key] == labels).astype(np.float64)


def prediction_key(target: str, seed: int, kind: str, epoch: int) -> str:
    """kind: `fe`, `ft`, `components/<stage>/<reading>/<probe>/<component>`, or a `layer_kind`."""
    return f"{target}/seed{seed}/{kind}/{epoch:03d}"


def layer_kind(layer: str, component: str) -> str:
    """For `prediction_key`: a component of the features of a layer, before FT."""
    return f"layers/{layer}/{component}"


def save_results(results: Results, folder: Path) -> None:
    """Write `raw/`, each file whole or not at all. Tables without rows are left out."""
    for name, rows in results.tables.items():
        if rows:
            write_text(folder / "raw" / f"{name}.csv", csv_text(rows))
    arrays = {k: _small(v) for k, v in results.predictions.items()}
    write_bytes(folder / "raw" / "predictions.safetensors", save(arrays))


def load_results(folder: Path) -> Results:
    """The raw numbers of a run folder. Raises InputError where there are none."""
    path = folder / "raw" / "predictions.safetensors"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: {folder} holds no raw numbers of a reproduction. Make them with: "
            f"ckptsel reproduce RECIPE --out {folder}."
        )
    results = Results(predictions=load_file(path))
    for name in TABLES:
        table = folder / "raw" / f"{name}.csv"
        if table.is_file():
            with table.open(newline="", encoding="utf-8") as lines:
                results.tables[name] = [
                    {key: _number(text) for key, text in row.items()}
                    for row in csv.DictReader(lines)
                ]
    return results


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _small(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.uint8 if array.max(initial=0) < 256 else np.int16)
