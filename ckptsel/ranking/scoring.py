"""Scores of candidates: a pure function of plain data.

An engine decides where it is called: here, in another process, on another machine. What it needs
besides lies in files that the data name: checkpoints, images, the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ckptsel.errors import DataError, FeatureError, OutputError, UsageError, reason_of
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.order import deciding_score, scores_at
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.ranking import LARGEST
from ckptsel.results.scores import ScoreResult
from ckptsel.scores import Score, ScoreInputs, find_scores
from ckptsel.settings.rank import RankSettings
from ckptsel.target.images import digest_of

SCORES_VERSION = 8
"""Part of the cache key; raised whenever the shared parts of scores change what is kept."""


@dataclass(frozen=True)
class ScoringSpec:
    """What is to be scored; plain data, which passes to other processes.

    candidates: usable ones, audited.
    data: as for `rank`.
    settings: with the encoder's name as `model`.
    scores: names; not each of them is computed at each layer.
    """

    candidates: tuple[Candidate, ...]
    data: str
    settings: RankSettings
    scores: tuple[str, ...]

    @property
    def streams(self) -> bool:
        """Whether all that is computed reads features a chunk at a time."""
        is_logistic = self.settings.probe == "logistic"
        return is_logistic and all(score.streams for score in find_scores(self.scores))

    def scores_of(self, candidate: Candidate) -> list[Score]:
        return find_scores(list(scores_at(candidate.layer, self.scores, self.settings)))


@dataclass(frozen=True)
class Outcome:
    """The scores of one candidate by name; or why it failed. left_out: scores that could not be had,
    by name, and why; not the one that decides, without which the candidate fails. scales: what each
    stage was divided by, where all are read side by side."""

    name: str
    results: dict[str, ScoreResult] = field(default_factory=dict)
    problem: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)


def score_candidates(spec: ScoringSpec, workspace: Workspace | None = None) -> Iterator[Outcome]:
    """The outcome of each candidate, as soon as it is there.

    workspace: one that is open for the same data and settings; None opens one.
    Raises DataError or OutputError where the images or the store fail, UsageError where memory does not
    suffice, which are every candidate's.
    """
    workspace = workspace or open_workspace(
        spec.settings, [c.checkpoint for c in spec.candidates], spec.data, quiet=True
    )
    workspace.streams = spec.streams
    for candidate in spec.candidates:
        try:
            yield _score_one(candidate, spec.scores_of(candidate), workspace)
        except (DataError, OutputError, UsageError):
            raise
        except Exception as error:  # one candidate's surprise must not end the run
            yield Outcome(candidate.name, problem=reason_of(error))
    workspace.cache.let_go("features")


def is_kept(candidate: Candidate, spec: ScoringSpec, workspace: Workspace) -> bool:
    """Whether the store has all scores of a candidate."""
    feature_keys = workspace.feature_keys(candidate)
    keys = [_score_key(score, feature_keys, workspace) for score in spec.scores_of(candidate)]
    has_scores = all(workspace.cache.get_score(key) is not None for key in keys)
    return has_scores and workspace.kept_scales(candidate) is not None


def keep(outcome: Outcome, candidate: Candidate, workspace: Workspace) -> None:
    """Put what was scored elsewhere into the store of this machine."""
    feature_keys = workspace.feature_keys(candidate)
    for score in find_scores(list(outcome.results)):
        key = _score_key(score, feature_keys, workspace)
        workspace.cache.put_score(key, outcome.results[score.name])
    workspace.keep_scales(candidate, outcome.scales)


def _score_one(candidate: Candidate, scores: Sequence[Score], workspace: Workspace) -> Outcome:
    """The scores of a candidate. One that fails costs itself alone, unless it decides."""
    feature_keys = workspace.feature_keys(candidate)
    keys = {score.name: _score_key(score, feature_keys, workspace) for score in scores}
    kept = {name: workspace.cache.get_score(key) for name, key in keys.items()}
    inputs = _inputs_of(candidate, workspace) if None in kept.values() else None
    deciding = deciding_score(workspace.settings)
    outcome = Outcome(candidate.name, scales=workspace.scales(candidate))
    for score in scores:
        try:
            result = kept[score.name]
            if result is None:
                assert inputs is not None
                workspace.pulse(f"{candidate.name}: {score.name}")
                with workspace.timed("scores"):
                    result = _computed(score, inputs)
                workspace.cache.put_score(keys[score.name], result)
            _check(result, len(workspace.target.evaluation.evaluated))
            outcome.results[score.name] = result
        except (DataError, OutputError):
            raise
        except Exception as error:  # a plug-in's may raise anything
            if score.name == deciding:
                raise FeatureError(f"{score.name}, which decides: {reason_of(error)}") from error
            outcome.left_out[score.name] = reason_of(error)
    return outcome


def _inputs_of(candidate: Candidate, workspace: Workspace) -> ScoreInputs:
    features = workspace.features(candidate)
    workspace.check_scoring(features.shape[1], features.shape[1])
    with workspace.timed("scores"):
        return ScoreInputs(
            features,
            workspace.target.labels,
            workspace.target.evaluation,
            energy=workspace.settings.energy,
            probe=workspace.settings.probe,
            seed=workspace.settings.seed,
            device=workspace.device,
        )


def _computed(score: Score, inputs: ScoreInputs) -> ScoreResult:
    result = score.compute(inputs)
    if not isinstance(result, ScoreResult):
        raise FeatureError(f"it gives {type(result).__name__}, and must give a ScoreResult.")
    return result


def _check(result: ScoreResult, n_eval: int) -> None:
    """Raises FeatureError for what no file could hold, or no interval could come from."""
    if not abs(result.value) <= LARGEST:
        raise FeatureError(f"it is {result.value:g}, which is no number to rank by.")
    values = result.per_image
    if values is not None and (values.shape != (n_eval,) or not np.isfinite(values).all()):
        raise FeatureError(
            f"its values by image must be {n_eval} finite numbers, one for each evaluated image."
        )


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
