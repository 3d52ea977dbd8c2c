"""Scores: cheap numbers from features, one file each, and their registry.

A score is a function from `ScoreInputs` to `ScoreResult`. Another package adds one through the
entry point group `ckptsel.scores`, whose entries load to a `Score`.
"""

from importlib import import_module
from importlib.metadata import entry_points

from ckptsel.errors import UsageError, did_you_mean
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

__all__ = ["Score", "ScoreInputs", "ScoreResult", "find_scores", "known_scores"]

BUILT_IN = (
    "linear_probe",
    "linear_probe_loglik",
    "main_component",
    "residual_component",
    "logme",
    "logme_thuml",
)
"""Modules of this package; each holds one `Score` called SCORE. In the order of the table."""


def known_scores() -> dict[str, Score]:
    """All scores by name: the built-in ones, then those of installed plug-ins."""
    scores = {name: import_module(f"ckptsel.scores.{name}").SCORE for name in BUILT_IN}
    for entry in entry_points(group="ckptsel.scores"):
        scores.setdefault(entry.name, entry.load())
    return scores


def find_scores(names: list[str] | None) -> list[Score]:
    """The named scores, all built-in ones for None. Raises UsageError naming the known ones."""
    known = known_scores()
    for name in names or []:
        if name not in known:
            raise UsageError(
                f"unknown score {name!r}. Known: {', '.join(known)}." + did_you_mean(name, known)
            )
    return [known[name] for name in names or known]
