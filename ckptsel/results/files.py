"""What `--out DIR` holds: the ranking as JSON and CSV, predictions, and confirmed results.

`ranking.json` is written first of what depends on it, and the report (which is drawn elsewhere) last:
no chart that fails costs a result.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ckptsel.common.files import (
    atomic_path,
    csv_text,
    parse_json,
    read_json,
    write_json,
    write_text,
)
from ckptsel.errors import InputError
from ckptsel.results.confirmation import SCHEMA, ConfirmationRecord
from ckptsel.results.ranking import Ranking
from ckptsel.results.versions import upgrade_confirmation

RANKING_NAME = "ranking.json"
PREDICTIONS_NAME = "predictions.safetensors"
CONFIRMATION_NAME = "confirm.json"
CONFIRMED_NAME = "confirm.safetensors"
PAGE_NAME = "report.html"

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


def write_ranking(folder: Path, ranking: Ranking, predictions: "Arrays") -> None:
    """Write a ranking into `folder`: predictions, which it stands for, then JSON, then CSV.

    Raises OutputError where the folder cannot be written.
    """
    _write_arrays(folder / PREDICTIONS_NAME, predictions)
    _write_tables(folder, ranking)


def write_confirmation(
    folder: Path, ranking: Ranking, record: ConfirmationRecord, predictions: "Arrays"
) -> None:
    """Write `confirm.json` and `confirm.safetensors` (held-out predictions by
    `<goal>/<checkpoint>/<step>`, and `<goal>/labels`), then the ranking in its new order."""
    _write_arrays(folder / CONFIRMED_NAME, predictions)
    value = dataclasses.asdict(record)
    value["ckptsel"] = value.pop("version")
    first = ("schema", "ckptsel", "created")
    write_json(
        folder / CONFIRMATION_NAME,
        {key: value[key] for key in (*first, *(k for k in value if k not in first))},
    )
    _write_tables(folder, ranking)


def read_ranking(run: Path) -> "tuple[Ranking, Arrays]":
    """A ranking, from the folder that holds it or its JSON file, and the arrays beside it: those of
    the scores by their names, those of real training by `confirmed/` and theirs. None where only the
    JSON was kept. Raises InputError where there is no ranking."""
    path = run / RANKING_NAME if run.is_dir() else run
    ranking = _read_json(path)
    arrays: Arrays = {}
    if path.name == RANKING_NAME and path.with_name(PREDICTIONS_NAME).is_file():
        arrays = _read_arrays(path.with_name(PREDICTIONS_NAME))
    confirmed = path.with_name(CONFIRMED_NAME)
    if arrays and ranking.confirmation and confirmed.is_file():
        arrays |= with_confirmed(_read_arrays(confirmed))
    return ranking, arrays


def with_confirmed(predictions: "Arrays") -> "Arrays":
    """The arrays of a confirmation by the names that they have beside those of the scores."""
    return {f"confirmed/{name}": array for name, array in predictions.items()}


def read_confirmation(folder: Path) -> ConfirmationRecord:
    """What `confirm` wrote into a folder. Raises InputError where there is none."""
    path = folder / CONFIRMATION_NAME
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not an object. Confirm again.")
    value = upgrade_confirmation(value, SCHEMA)
    value["version"] = value.pop("ckptsel", None)
    try:
        return TypeAdapter(ConfirmationRecord).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{path} cannot be read: {error.errors()[0]['msg']}.") from error


def no_ranking(path: Path) -> InputError:
    """Says that a file of a ranking is not there, and how to make one."""
    return InputError(
        f"{path} does not exist: {path.parent} is no folder of a ranking. Make one with: "
        f"ckptsel rank CHECKPOINTS --data DATA --out {path.parent}."
    )


def check_writable(folder: Path) -> None:
    """Raises OutputError now rather than after the work is done."""
    with atomic_path(folder / ".writable"):
        pass
    (folder / ".writable").unlink(missing_ok=True)


def _read_json(path: Path) -> Ranking:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise InputError(f"it holds a {type(value).__name__}, not an object.")
        return Ranking.from_dict(value)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_ranking(path) from error
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise InputError(f"{path} cannot be read as a ranking: {error} Rank again.") from error


def _write_arrays(path: Path, arrays: "Arrays") -> None:
    # NumPy takes longer to import than all else that a gate needs, which has none to read.
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file(arrays, temporary)


def _read_arrays(path: Path) -> "Arrays":
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Rank again; where only {RANKING_NAME} was kept, remove "
            "it."
        ) from error


def _write_tables(folder: Path, ranking: Ranking) -> None:
    write_json(folder / RANKING_NAME, ranking.to_dict())
    write_text(folder / "ranking.csv", csv_text(ranking.flat_rows()))
