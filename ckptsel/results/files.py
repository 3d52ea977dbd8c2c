"""What `--out DIR` holds: the ranking as JSON, CSV and a page, predictions, and confirmed results."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ckptsel.common.environment import package_version, utc_now
from ckptsel.common.files import atomic_path, csv_text, write_json, write_text
from ckptsel.errors import InputError
from ckptsel.report.page import write_page
from ckptsel.results import confirmation as confirmed
from ckptsel.results.ranking import Ranking

if TYPE_CHECKING:
    from ckptsel.confirmation.confirm import Confirmation


RANKING_NAME = "ranking.json"
PREDICTIONS_NAME = "predictions.safetensors"


def write_ranking(folder: Path, ranking: Ranking, predictions: dict[str, NDArray[Any]]) -> None:
    """Write a ranking into `folder`; `ranking.json` comes last, so that it stands for the rest.

    Raises OutputError where the folder cannot be written.
    """
    with atomic_path(folder / PREDICTIONS_NAME) as temporary:
        save_file(predictions, temporary)
    _write_tables(folder, ranking, predictions)


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
    _write_tables(folder, confirmation.ranking, load_file(folder / PREDICTIONS_NAME))


def read_ranking(folder: Path) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    """The ranking in a folder that `rank --out` wrote, and its held-out predictions.

    Raises InputError where there is none.
    """
    ranking = _read_json(folder / RANKING_NAME)
    try:
        return ranking, load_file(folder / PREDICTIONS_NAME)
    except FileNotFoundError as error:
        raise _no_ranking(folder / PREDICTIONS_NAME) from error


def read_with_arrays(run: Path) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    """A ranking, from the folder that holds it or its JSON file, and the arrays beside it; none where
    only the JSON was kept. Raises InputError where there is no ranking."""
    path = run / RANKING_NAME if run.is_dir() else run
    ranking = _read_json(path)
    beside = path.with_name(PREDICTIONS_NAME)
    return ranking, load_file(beside) if path.name == RANKING_NAME and beside.is_file() else {}


def _read_json(path: Path) -> Ranking:
    try:
        return Ranking.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_ranking(path) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as a ranking: {type(error).__name__}: {error}. Rank again."
        ) from error


def _no_ranking(path: Path) -> InputError:
    return InputError(
        f"{path} does not exist: {path.parent} is no folder of a ranking. Make one with: "
        f"ckptsel rank CHECKPOINTS --data DATA --out {path.parent}."
    )


def _write_tables(folder: Path, ranking: Ranking, predictions: dict[str, NDArray[Any]]) -> None:
    write_page(folder, ranking, predictions)
    write_text(folder / "ranking.csv", csv_text(ranking.flat_rows()))
    write_json(folder / RANKING_NAME, ranking.to_dict())


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
