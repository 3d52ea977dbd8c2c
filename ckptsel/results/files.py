"""What `--out DIR` holds: the ranking as JSON and CSV, predictions, and confirmed results.

`ranking.json` names the digest of every file that belongs to it (`ckptsel.results.together`). The
report, which is drawn elsewhere, comes last: no chart that fails costs a result.
"""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ckptsel.common.files import atomic_path, csv_text, parse_json, read_json
from ckptsel.errors import InputError, OutputError, listed
from ckptsel.results.confirmation import SCHEMA, ConfirmationRecord
from ckptsel.results.ranking import Ranking
from ckptsel.results.targets import TARGETS_NAME
from ckptsel.results.together import (
    FILES,
    digest_of_file,
    digests_of,
    index_text,
    read_together,
    write_together,
)
from ckptsel.results.versions import upgrade_confirmation

RANKING_NAME = "ranking.json"
TABLE_NAME = "ranking.csv"
PREDICTIONS_NAME = "predictions.safetensors"
CONFIRMATION_NAME = "confirm.json"
CONFIRMED_NAME = "confirm.safetensors"
PAGE_NAME = "report.html"

BESIDE = (TABLE_NAME, PREDICTIONS_NAME, CONFIRMATION_NAME, CONFIRMED_NAME)
"""Files that `ranking.json` names, where they belong to it."""

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


def write_ranking(
    folder: Path, ranking: Ranking, predictions: "Arrays", keep_page: bool = False
) -> None:
    """Write a ranking into `folder`, in place of one that was there, its confirmation and its report.

    keep_page: leave a report there until it is drawn again, for one that is being looked at.
    Raises OutputError where the folder cannot be written; the old ranking is then still whole.
    """
    _write(folder, ranking, {PREDICTIONS_NAME: _array_bytes(predictions)}, {})
    if not keep_page:
        _remove_page(folder)


def is_written(folder: Path, ranking: Ranking, predictions: "Arrays") -> bool:
    """Whether a folder holds this very ranking, whole and not confirmed, with its report."""
    if not (folder / PAGE_NAME).is_file():
        return False  # as in a new folder, for which nothing need be serialised
    value, files = _contents(ranking, {PREDICTIONS_NAME: _array_bytes(predictions)}, {})
    wanted = {RANKING_NAME: index_text(value).encode(), **files}
    try:
        return all((folder / name).read_bytes() == data for name, data in wanted.items())
    except OSError:
        return False


def write_confirmation(
    folder: Path, ranking: Ranking, record: ConfirmationRecord, predictions: "Arrays"
) -> None:
    """Write `confirm.json` and `confirm.safetensors` (held-out predictions by
    `<goal>/<checkpoint>/<step>`, and `<goal>/labels`) beside a ranking, in its new order.

    Raises OutputError as `write_ranking`, and where another ranking has taken the place of this one.
    """
    _check_same(folder / RANKING_NAME, ranking)
    arrays = _array_bytes(predictions)
    value = dataclasses.asdict(record)
    value["ckptsel"] = value.pop("version")
    value[FILES] = {CONFIRMED_NAME: digest_of_file(arrays)}
    first = ("schema", "ckptsel", "created")
    ordered = {key: value[key] for key in (*first, *(k for k in value if k not in first))}
    text = json.dumps(ordered, indent=2, allow_nan=False) + "\n"
    files = {CONFIRMED_NAME: arrays, CONFIRMATION_NAME: text.encode()}
    _write(folder, ranking, files, _digest_of_predictions(folder))
    _remove_page(folder)


def read_ranking(run: Path) -> "tuple[Ranking, Arrays]":
    """A ranking, from the folder that holds it or its JSON file, and the arrays beside it: those of
    the scores by their names, those of real training by `confirmed/` and theirs. None where only the
    JSON was kept. Raises InputError where there is no ranking, or files of another lie beside it."""
    is_json = not run.is_dir() and (run.exists() or run.suffix == ".json")
    path = run if is_json else run / RANKING_NAME
    before = digests_of(path)
    try:
        return _read_with_arrays(path)
    except InputError:
        if digests_of(path) == before:
            raise
        return _read_with_arrays(path)  # another took its place meanwhile


def _read_with_arrays(path: Path) -> "tuple[Ranking, Arrays]":
    ranking = _read_json(path)
    if path.name != RANKING_NAME:
        return ranking, {}
    arrays = _read_arrays(path, PREDICTIONS_NAME, ranking.files)
    if arrays and ranking.confirmation:
        arrays |= with_confirmed(_read_arrays(path, CONFIRMED_NAME, ranking.files))
    return ranking, arrays


def with_confirmed(predictions: "Arrays") -> "Arrays":
    """The arrays of a confirmation by the names that they have beside those of the scores."""
    return {f"confirmed/{name}": array for name, array in predictions.items()}


def read_confirmation(folder: Path) -> ConfirmationRecord:
    """What `confirm` wrote into a folder. Raises InputError where there is none, or it is of another
    ranking than the one that lies there."""
    path, index = folder / CONFIRMATION_NAME, folder / RANKING_NAME
    data = read_together(index, CONFIRMATION_NAME, digests_of(index) or {})
    value = read_json(path) if data is None else _parsed(path, data)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not an object. Confirm again.")
    value = upgrade_confirmation(value, SCHEMA)
    value["version"] = value.pop("ckptsel", None)
    try:
        return TypeAdapter(ConfirmationRecord).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{path} cannot be read: {error.errors()[0]['msg']}.") from error


def no_ranking(path: Path) -> InputError:
    """Says that a file of a ranking is not there, and how to make one; or where those of several
    targets are."""
    if path.with_name(TARGETS_NAME).is_file():
        there = sorted(str(found.parent) for found in path.parent.glob(f"*/{RANKING_NAME}"))
        return InputError(
            f"{path.parent} holds the rankings of several targets: give the folder of one, "
            f"{listed(there) or 'of which none is left'}."
        )
    return InputError(
        f"{path} does not exist: {path.parent} is no folder of a ranking. Make one with: "
        f"ckptsel rank CHECKPOINTS --data DATA --out {path.parent}."
    )


def check_room_for_targets(folder: Path, names: Sequence[str]) -> None:
    """As `check_writable`, for a folder of several rankings, by the names of their targets. Raises
    OutputError where a single one lies there."""
    for name in names:
        check_writable(folder / name)
    if (folder / RANKING_NAME).exists():
        raise OutputError(
            f"{folder} holds the ranking of one target, whose report would be lost. Choose another "
            "folder for those of several, or remove it."
        )


def check_writable(folder: Path) -> None:
    """Raises OutputError now rather than after the work is done; also where rankings of several targets
    lie there."""
    if (folder / TARGETS_NAME).is_file():
        raise OutputError(
            f"{folder} holds the rankings of several targets, whose report would be lost. Choose "
            "another folder for that of one, or remove it."
        )
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


def _write(folder: Path, ranking: Ranking, files: dict[str, bytes], kept: dict[str, str]) -> None:
    """A ranking with new files. kept: digests of those that lie there and go on belonging to it."""
    value, files = _contents(ranking, files, kept)
    write_together(folder / RANKING_NAME, value, files, BESIDE)


def _contents(
    ranking: Ranking, files: dict[str, bytes], kept: dict[str, str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(what `ranking.json` holds, all files beside it that are new)."""
    files = {**files, TABLE_NAME: csv_text(ranking.flat_rows()).encode()}
    digests = kept | {name: digest_of_file(data) for name, data in files.items()}
    return {**ranking.to_dict(), FILES: digests}, files


def _remove_page(folder: Path) -> None:
    """It shows the old numbers, and is drawn again."""
    with contextlib.suppress(OSError):
        (folder / PAGE_NAME).unlink(missing_ok=True)


def _check_same(path: Path, ranking: Ranking) -> None:
    if path.is_file() and _read_json(path).created != ranking.created:
        raise OutputError(
            f"{path} was replaced by another ranking while this one was confirmed. What was trained is "
            "kept in the cache: confirm the new one."
        )


def _digest_of_predictions(folder: Path) -> dict[str, str]:
    """As `ranking.json` names it; of the file itself where that is older and names none."""
    path = folder / PREDICTIONS_NAME
    named = digests_of(folder / RANKING_NAME)
    if named is not None:
        return {name: named[name] for name in named if name == PREDICTIONS_NAME}
    return {PREDICTIONS_NAME: digest_of_file(path.read_bytes())} if path.is_file() else {}


def _array_bytes(arrays: "Arrays") -> bytes:
    # NumPy takes longer to import than all else that a gate needs, which has none to read.
    from safetensors.numpy import save

    return bytes(save(arrays))


def _read_arrays(index: Path, name: str, digests: dict[str, str]) -> "Arrays":
    """The arrays of a file beside an index; none where it is not there."""
    data = read_together(index, name, digests)
    if data is None:
        return {}

    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(data)
        return arrays
    except (SafetensorError, ValueError, LookupError) as error:
        raise InputError(
            f"{index.with_name(name)} cannot be read: {error}. Rank again; where only {RANKING_NAME} "
            "was kept, remove it."
        ) from error


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
