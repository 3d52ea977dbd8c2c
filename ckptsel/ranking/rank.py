"""`rank`: from a folder of checkpoints and a target to a ranking.

scan -> audit (every checkpoint is matched to the model before anything is computed)
     -> features (cached) -> scores (cached) -> ranking
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ckptsel.checkpoints.scan import Checkpoint, scan_checkpoints, trajectory_notes
from ckptsel.common.environment import describe_environment, package_version, utc_now
from ckptsel.common.progress import Progress
from ckptsel.errors import DataError, FeatureError, OutputError, reason_of
from ckptsel.ranking.doubts import find_doubts
from ckptsel.ranking.order import GOALS, order_rows
from ckptsel.ranking.workspace import Workspace, audit, fail_copies, open_workspace
from ckptsel.results.ranking import EPOCH, Ranking, Row
from ckptsel.results.scores import ScoreResult
from ckptsel.scores import Score, ScoreInputs, find_scores
from ckptsel.settings.rank import RankSettings, make_settings
from ckptsel.target.images import digest_of

SCORES_VERSION = 3
"""Part of the cache key; raised whenever the shared parts of scores change what is kept."""

Results = dict[str, dict[str, ScoreResult]]


def rank(
    checkpoints: str | Path,
    data: str | Path,
    settings: RankSettings | None = None,
    quiet: bool = True,
    **options: Any,
) -> Ranking:
    """Rank the checkpoints of one pre-training run for a target.

    checkpoints: a folder (searched below) or one file. data: see `ckptsel.target.sources.open_source`.
    options: fields of `RankSettings`, where no `settings` are given. quiet: no progress on stderr.
    Raises UsageError for options, InputError where nothing can be ranked.
    """
    return rank_with_predictions(checkpoints, data, settings, quiet, **options)[0]


def rank_with_predictions(
    checkpoints: str | Path,
    data: str | Path,
    settings: RankSettings | None = None,
    quiet: bool = True,
    **options: Any,
) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    """The ranking, and what its intervals can be recomputed from: held-out predictions by
    `<checkpoint>/<score>/<predictions|per_image>`, what else scores keep by their own names
    (`main_component/singular_values`), and `labels`."""
    settings = settings or make_settings(options)
    start = time.monotonic()
    scores = _scores_for(settings)
    found = scan_checkpoints(Path(checkpoints), settings.weights)
    scanned = time.monotonic()
    workspace = open_workspace(settings, found, str(data), quiet)
    workspace.time_s["scan"] = scanned - start
    audited = audit(found, workspace)
    results, audited = _score_all(audited, scores, workspace)
    ranking = _make_ranking(audited, results, scores, workspace, str(checkpoints), start)
    return ranking, _predictions(results, workspace)


def _scores_for(settings: RankSettings) -> list[Score]:
    """The scores asked for, and the one that decides the goal."""
    deciding = GOALS[settings.goal]
    asked = list(settings.scores) if settings.scores else None
    if asked is not None and deciding not in (EPOCH, *asked):
        asked.insert(0, deciding)
    return find_scores(asked)


def _score_all(
    audited: Sequence[Checkpoint], scores: Sequence[Score], workspace: Workspace
) -> tuple[Results, list[Checkpoint]]:
    """Score results by checkpoint and score, and the checkpoints with new problems marked."""
    results: Results = {}
    checkpoints = []
    to_do = sum(c.problem is None and c.copy_of is None for c in audited)
    with Progress("rank", to_do, quiet=workspace.quiet) as progress:
        for checkpoint in audited:
            if checkpoint.problem is None and checkpoint.copy_of is None:
                try:
                    found = _score_one(checkpoint, scores, workspace)
                    results[checkpoint.name] = _finite(checkpoint.name, found, workspace)
                    progress.advance(checkpoint.name)
                except (DataError, OutputError):
                    raise  # the images and the cache are every checkpoint's
                except Exception as error:  # one checkpoint's surprise must not end the run
                    checkpoint = dataclasses.replace(checkpoint, problem=reason_of(error))
                    progress.advance(f"{checkpoint.name} failed")
            checkpoints.append(checkpoint)
    return results, fail_copies(checkpoints, workspace.settings.strict)


def _finite(
    name: str, results: dict[str, ScoreResult], workspace: Workspace
) -> dict[str, ScoreResult]:
    """Without the scores that are not finite, which no file could hold; they are noted.

    Raises FeatureError where it is the one that decides.
    """
    finite = {}
    for score, result in results.items():
        if math.isfinite(result.value):
            finite[score] = result
        elif score == GOALS[workspace.settings.goal]:
            raise FeatureError(f"its {score} is {result.value}, which is no number to rank by.")
        else:
            workspace.notes.append(f"{score} of {name} is {result.value}, and left out")
    return finite


def _score_one(
    checkpoint: Checkpoint, scores: Sequence[Score], workspace: Workspace
) -> dict[str, ScoreResult]:
    feature_keys = workspace.feature_keys(checkpoint)
    keys = {score.name: _score_key(score, feature_keys, workspace) for score in scores}
    cached = {name: workspace.cache.get_score(key) for name, key in keys.items()}
    results = {name: result for name, result in cached.items() if result is not None}
    missing = [score for score in scores if score.name not in results]
    if missing:
        features = workspace.features(checkpoint)
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


def _make_ranking(
    audited: Sequence[Checkpoint],
    results: Results,
    scores: Sequence[Score],
    workspace: Workspace,
    root: str,
    start: float,
) -> Ranking:
    settings = workspace.settings
    score = GOALS[settings.goal]
    rows, baselines = order_rows(
        [_row_of(checkpoint, i) for i, checkpoint in enumerate(audited)],
        results,
        score,
        settings.n_resamples,
        settings.seed,
    )
    workspace.time_s["total"] = time.monotonic() - start
    tied = [row for row in rows if row.in_tie_set and row.copy_of is None]
    return Ranking(
        goal=settings.goal,
        score=score,
        checkpoints=tuple(rows),
        best=rows[0].name,
        tie_set=tuple(row.name for row in tied),
        baselines=baselines,
        units={score.name: score.unit for score in scores},
        notes=(*trajectory_notes(audited), *workspace.notes),
        doubts=tuple(find_doubts(rows)),
        target=workspace.target.describe(),
        model={
            "name": workspace.backbone.name,
            "layer": workspace.backbone.layer,
            "preprocessing": workspace.backbone.preprocessing.to_dict(),
        },
        settings={
            "checkpoints": root,
            **dataclasses.asdict(settings),
            "device": workspace.device,
            "precision": workspace.precision,
        },
        environment=describe_environment(workspace.device),
        time_s={stage: round(seconds, 3) for stage, seconds in workspace.time_s.items()},
        created=utc_now(),
        version=package_version("ckptsel"),
    )


def _row_of(checkpoint: Checkpoint, order: int) -> Row:
    return Row(
        name=checkpoint.name,
        path=str(checkpoint.path),
        digest=checkpoint.digest,
        order=order,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        epoch_from=checkpoint.epoch_from,
        source_accuracy=checkpoint.source_accuracy,
        format=checkpoint.format,
        status="ok" if checkpoint.problem is None else "failed",
        reason=checkpoint.problem,
        weights_key=checkpoint.weights_key,
        copy_of=checkpoint.copy_of,
    )


def _predictions(results: Results, workspace: Workspace) -> dict[str, NDArray[Any]]:
    evaluated = workspace.target.evaluation.evaluated
    arrays: dict[str, NDArray[Any]] = {
        "evaluated": evaluated,
        "labels": workspace.target.labels[evaluated],
    }
    for name, scores in results.items():
        for score, result in scores.items():
            if result.per_image is not None:
                arrays[f"{name}/{score}/per_image"] = result.per_image
            if result.predictions is not None:
                arrays[f"{name}/{score}/predictions"] = result.predictions
            for key, array in result.arrays.items():
                arrays[f"{name}/{score}/{key}"] = array
    return arrays
