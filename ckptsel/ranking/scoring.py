"""Scores of candidates: a pure function of plain data.

An engine decides where it is called: here, in another process, on another machine. What it needs
besides lies in files that the data name: checkpoints, images, the store.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ckptsel.errors import DataError, FeatureError, OutputError, reason_of
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.order import GOALS
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.scores import ScoreResult
from ckptsel.scores import Score, ScoreInputs, find_scores
from ckptsel.settings.rank import RankSettings
from ckptsel.target.images import digest_of

SCORES_VERSION = 5
"""Part of the cache key; raised whenever the shared parts of scores change what is kept."""


@dataclass(frozen=True)
class ScoringSpec:
    """What is to be scored; plain data, which passes to other processes.

    candidates: usable ones, audited.
    data: as for `rank`.
    settings: with the encoder's name as `model`.
    scores: names.
    """

    candidates: tuple[Candidate, ...]
    data: str
    settings: RankSettings
    scores: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The scores of one candidate by name; or why it failed. notes: what a reader should know."""

    name: str
    results: dict[str, ScoreResult] = field(default_factory=dict)
    problem: str | None = None
    notes: tuple[str, ...] = ()


def score_candidates(spec: ScoringSpec, workspace: Workspace | None = None) -> Iterator[Outcome]:
    """The outcome of each candidate, as soon as it is there.

    workspace: one that is open for the same data and settings; None opens one.
    Raises DataError or OutputError where the images or the store fail, which are every candidate's.
    """
    workspace = workspace or open_workspace(
        spec.settings, [c.checkpoint for c in spec.candidates], spec.data, quiet=True
    )
    scores = find_scores(list(spec.scores))
    for candidate in spec.candidates:
        try:
            found = _score_one(candidate, scores, workspace)
            finite, notes = _finite(candidate, found, spec.settings.goal)
            yield Outcome(candidate.name, finite, notes=notes)
        except (DataError, OutputError):
            raise
        except Exception as error:  # one candidate's surprise must not end the run
            yield Outcome(candidate.name, problem=reason_of(error))


def _score_one(
    candidate: Candidate, scores: Sequence[Score], workspace: Workspace
) -> dict[str, ScoreResult]:
    feature_keys = workspace.feature_keys(candidate)
    keys = {score.name: _score_key(score, feature_keys, workspace) for score in scores}
    cached = {name: workspace.cache.get_score(key) for name, key in keys.items()}
    results = {name: result for name, result in cached.items() if result is not None}
    missing = [score for score in scores if score.name not in results]
    if missing:
        features = workspace.features(candidate)
        with workspace.timed("scores"):
            inputs = ScoreInputs(
                features,
                workspace.target.labels,
                workspace.target.evaluation,
                energy=workspace.settings.energy,
                probe=workspace.settings.probe,
                seed=workspace.settings.seed,
                device=workspace.device,
            )
            for score in missing:
                results[score.name] = score.compute(inputs)
                workspace.cache.put_score(keys[score.name], results[score.name])
    return {score.name: results[score.name] for score in scores}


def _finite(
    candidate: Candidate, results: dict[str, ScoreResult], goal: str
) -> tuple[dict[str, ScoreResult], tuple[str, ...]]:
    """Without the scores that are not finite, which no file could hold; and a note of each.

    Raises FeatureError where it is the one that decides.
    """
    finite, notes = {}, []
    for score, result in results.items():
        if math.isfinite(result.value):
            finite[score] = result
        elif score == GOALS[goal]:
            raise FeatureError(f"its {score} is {result.value}, which is no number to rank by.")
        else:
            notes.append(f"{score} of {candidate.name} is {result.value}, and left out")
    return finite, tuple(notes)


def _score_key(score: Score, feature_keys: Sequence[str], workspace: Workspace) -> str:
    settings, plan = workspace.settings, workspace.target.evaluation
    folds = [part.tobytes() for fold in plan.folds for part in fold]
    return digest_of(
        f"score {SCORES_VERSION} {score.name} {score.version}",
        f"{settings.energy} {settings.probe} {settings.seed} {plan.n_repeats}",
        workspace.target.labels.tobytes(),
        digest_of(*folds),
        *feature_keys,
    )
