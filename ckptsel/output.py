"""What `--out DIR` holds: the ranking as JSON and CSV, and the held-out predictions."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file

from ckptsel.files import atomic_path, csv_text, write_json, write_text
from ckptsel.ranking import Ranking


def write_ranking(folder: Path, ranking: Ranking, predictions: dict[str, NDArray[Any]]) -> None:
    """Write a ranking into `folder`; `ranking.json` comes last, so that it stands for the rest.

    Raises OutputError where the folder cannot be written.
    """
    with atomic_path(folder / "predictions.safetensors") as temporary:
        save_file(predictions, temporary)
    write_text(folder / "ranking.csv", csv_text(ranking.flat_rows()))
    write_json(folder / "ranking.json", ranking.to_dict())


def check_writable(folder: Path) -> None:
    """Raises OutputError now rather than after the work is done."""
    with atomic_path(folder / ".writable"):
        pass
    (folder / ".writable").unlink(missing_ok=True)
