"""Logging a ranking to experiment trackers."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ckptsel.errors import CkptselError, OutputError, UsageError, reason_of
from ckptsel.results.files import read_ranking
from ckptsel.trackers.entry import Entry, entry_of

NAMES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}
"""The trackers, by the names of their packages."""


def check_installed(trackers: Sequence[str]) -> None:
    """Raises UsageError for a tracker whose package is not there."""
    for name in trackers:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise UsageError(
                f"{NAMES[name]} needs the package {name}: pip install 'ckptsel[{name}]'."
            )


def log_run(run: Path, tracker: str) -> str:
    """Log the ranking that lies in a folder; gives where it can be seen.

    Raises InputError where there is no ranking, OutputError where the tracker did not take it, whatever
    it raised.
    """
    check_installed([tracker])
    ranking, _ = read_ranking(run)
    folder = run if run.is_dir() else run.parent
    log: Callable[[Entry, Path], str] = import_module(f"ckptsel.trackers.to_{tracker}").log
    try:
        with contextlib.redirect_stdout(sys.stderr):  # trackers greet; stdout carries results
            return log(entry_of(ranking, folder), folder)
    except CkptselError:
        raise
    except Exception as error:  # of a library that may raise anything
        raise OutputError(
            f"{NAMES[tracker]} did not take the ranking: {reason_of(error)}. It lies whole in "
            f"{folder}; log it again with: ckptsel log {folder} --to {tracker}."
        ) from error
