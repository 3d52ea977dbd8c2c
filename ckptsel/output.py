"""What `--out DIR` holds: the ranking as JSON and CSV, held-out predictions, and confirmed results."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ckptsel import confirmed
from ckptsel.environment import package_version, utc_now
from ckptsel.errors import InputError
from ckptsel.files import atomic_path, csv_text, write_json, write_text
from ckptsel.ranking import Ranking

if TYPE_CHECKING:
    from ckptsel.confirmation import Confirmation


def write_ranking(folder: Path, ranking: Ranking, predictions: dict[str, NDArray[Any]]) -> None:
    """Write a ranking into `folder`; `ranking.json` comes last, so that it stands for the rest.

    Raises OutputError where the folder cannot be written.
    """
    with atomic_path(folder / "predictions.safetensors") as temporary:
        save_file(predictions, temporary)
    _write_table(folder, ranking)


def write_confirmation(folder: Path, confirmation: "Confirmation") -> None:
    """Write `confirm.json` and `confirm.safetensors` (held-out predictions by
    `<goal>/<checkpoint>/<step>`, and `<goal>/labels`), then the ranking in its new order."""
    predictions = {}
    for goal, outcome in confirmation.outcomes.items():
        predictions[f"{goal}/labels"] = outcome.labels
        for key, value in outcome.predictions.items():
            predictions[f"{goal}/{key}"] = value
    with atomic_path(folder / "confirm.safetensors") as temporary:
        save_file(predictions, temporary)
    write_json(folder / "confirm.json", _confirm_json(confirmation))
    _write_table(folder, confirmation.ranking)


def read_ranking(folder: Path) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    """The ranking in a folder that `rank --out` wrote, and its held-out predictions.

    Raises InputError where there is none.
    """
    path = folder / "ranking.json"
    try:
        ranking = Ranking.from_dict(json.loads(path.read_text(encoding="utf-8")))
        return ranking, load_file(folder / "predictions.safetensors")
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or folder / 'predictions.safetensors'} does not exist: {folder} is no "
            "folder of a ranking. Make one with: ckptsel rank CHECKPOINTS --data DATA --out "
            f"{folder}."
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as a ranking: {type(error).__name__}: {error}. Rank again."
        ) from error


def _write_table(folder: Path, ranking: Ranking) -> None:
    write_text(folder / "ranking.csv", csv_text(ranking.flat_rows()))
    write_json(folder / "ranking.json", ranking.to_dict())


def _confirm_json(confirmation: "Confirmation") -> dict[str, Any]:
    return {
        "schema": confirmed.SCHEMA,
        "ckptsel": package_version("ckptsel"),
        "created": utc_now(),
        "ranking_created": confirmation.ranking.created,
        "settings": confirmation.settings,
        "environment": confirmation.environment,
        "time_s": confirmation.time_s,
        "goals": {
            goal: {
                **dataclasses.asdict(outcome.summary),
                "standings": [dataclasses.asdict(s) for s in outcome.race.standings],
                "runs": [dataclasses.asdict(run) for run in outcome.runs],
            }
            for goal, outcome in confirmation.outcomes.items()
        },
    }


def check_writable(folder: Path) -> None:
    """Raises OutputError now rather than after the work is done."""
    with atomic_path(folder / ".writable"):
        pass
    (folder / ".writable").unlink(missing_ok=True)
