"""Scores: cheap numbers from features, one file each, and their registry.

A score is a function from `ScoreInputs` to `ScoreResult`. Another package adds one through the
entry point group `ckptsel.scores`, whose entries load to a `Score`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from ckptsel.common.streams import say
from ckptsel.errors import UsageError, did_you_mean
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

__all__ = ["Score", "ScoreInputs", "ScoreResult", "find_score", "find_scores", "known_scores"]

BUILT_IN = (
    "linear_probe",
    "linear_probe_loglik",
    "main_component",
    "residual_component",
    "logme",
    "logme_thuml",
    "knn",
    "ridge_probe",
    "lda",
    "hscore",
    "disco",
    "rankme",
    "alpha_req",
)
"""Modules of this package; each holds one `Score` called SCORE. In the order of the table."""

ALL = "all"
"""Stands for every score."""


def known_scores() -> dict[str, Score]:
    """All scores by name: the built-in ones, then those of installed plug-ins, each under the name of
    its entry point."""
    scores = {name: _built_in(name) for name in BUILT_IN}
    for entry in entry_points(group="ckptsel.scores"):
        if entry.name in BUILT_IN:
            _say_once(
                f"warning: score {entry.name!r} ({entry.value}) has a built-in's name: left out"
            )
        elif entry.name not in scores:
            scores |= _of_package(entry)
    return scores


def _of_package(entry: EntryPoint) -> dict[str, Score]:
    """The score of an entry point, by its name; nothing but a word on stderr where it does not load:
    another package's mistake must not end a ranking that does not ask for it."""
    try:
        score = dataclasses.replace(entry.load(), name=entry.name)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        _say_once(f"warning: score {entry.name!r} ({entry.value}) is left out: {why}")
        return {}
    return {entry.name: score}


@cache
def _say_once(text: str) -> None:
    say(text)


def find_scores(names: Sequence[str] | None) -> list[Score]:
    """The named scores, each once; every one where a name is `all`; for None those that are computed by
    default. Raises UsageError as `find_score`."""
    if names is None:
        return [score for score in known_scores().values() if score.by_default]
    found = [find_score(name) for name in dict.fromkeys(names) if name != ALL]
    return list(known_scores().values()) if ALL in names else found


def _built_in(name: str) -> Score:
    score: Score = import_module(f"ckptsel.scores.{name}").SCORE
    return score


def find_score(name: str, known: Mapping[str, Score] | None = None) -> Score:
    """A score by its name. known: where to look; None for all that there are. Raises UsageError naming
    the known ones."""
    if known is None and name in BUILT_IN:
        return _built_in(name)  # plug-ins are looked for on the disk, for a fiftieth of a second
    known = known or known_scores()
    if name not in known:
        raise UsageError(
            f"unknown score {name!r}. Known: {', '.join(known)}." + did_you_mean(name, known)
        )
    return known[name]
