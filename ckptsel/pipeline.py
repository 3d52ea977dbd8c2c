"""`rank`: from a folder of checkpoints and a target to a ranking.

scan -> audit (every checkpoint is matched to the model before anything is computed)
     -> features (cached) -> scores (cached) -> ranking
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.cache import Cache, default_cache_folder
from ckptsel.checkpoints import Checkpoint, read_weights, scan_checkpoints, trajectory_notes
from ckptsel.devices import default_device, default_precision
from ckptsel.environment import describe_environment, package_version, utc_now
from ckptsel.errors import CheckpointError, FeatureError, InputError, ModelError
from ckptsel.features import extract_features, feature_key
from ckptsel.models import Backbone, build_backbone, load_weights
from ckptsel.pixels import auto_workers, decode
from ckptsel.progress import Progress
from ckptsel.ranking import GOALS, Ranking, Row, order_rows
from ckptsel.scores import Score, ScoreInputs, ScoreResult, find_scores
from ckptsel.settings import RankSettings, make_settings
from ckptsel.sources import digest_of
from ckptsel.target import Target, load_target

SCORES_VERSION = 1
"""Part of the cache key; raised whenever the shared parts of scores change their numbers."""

Results = dict[str, dict[str, ScoreResult]]


@dataclass
class Run:
    """What the steps of one ranking share."""

    settings: RankSettings
    target: Target
    backbone: Backbone
    scores: list[Score]
    cache: Cache
    device: str
    precision: str
    quiet: bool
    time_s: dict[str, float] = field(default_factory=dict)
    _pixels: list[NDArray[np.uint8]] | None = None

    def pixels(self) -> list[NDArray[np.uint8]]:
        """Decoded pixels of each image set; decoded when first asked for."""
        if self._pixels is None:
            start = time.monotonic()
            self._pixels = [
                decode(
                    images,
                    self.backbone.preprocessing,
                    self.cache.pixels_folder,
                    auto_workers(self.settings.workers, len(images)),
                    self.quiet,
                )
                for images in self.target.image_sets
            ]
            self.time_s["decode"] = time.monotonic() - start
        return self._pixels


def rank(
    checkpoints: str | Path,
    data: str | Path,
    settings: RankSettings | None = None,
    quiet: bool = True,
    **options: Any,
) -> Ranking:
    """Rank the checkpoints of one pre-training run for a target.

    checkpoints: a folder (searched below) or one file. data: see `ckptsel.sources.open_source`.
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
    """The ranking, and the held-out predictions that its intervals can be recomputed from:
    arrays by `<checkpoint>/<score>/<predictions|per_image>`, and `labels`."""
    settings = settings or make_settings(options)
    start = time.monotonic()
    scores = _scores_for(settings)
    found = scan_checkpoints(Path(checkpoints), settings.weights)
    time_s = {"scan": time.monotonic() - start}
    backbone = _build(settings, found)
    target = _load_target(str(data), settings)
    device = settings.device or default_device()
    folder = Path(settings.cache_dir) if settings.cache_dir else default_cache_folder()
    run = Run(
        settings,
        target,
        backbone,
        scores,
        Cache(folder if settings.cache else None),
        device,
        settings.precision or default_precision(device),
        quiet,
        time_s,
    )
    audited = _audit(found, run)
    results, audited = _score_all(audited, run)
    ranking = _make_ranking(audited, results, run, str(checkpoints), start)
    return ranking, _predictions(results, run)


def _scores_for(settings: RankSettings) -> list[Score]:
    """The scores asked for, and the one that decides the goal."""
    deciding = GOALS[settings.goal]
    asked = list(settings.scores) if settings.scores else None
    if asked is not None and deciding not in asked:
        asked.insert(0, deciding)
    return find_scores(asked)


def _build(settings: RankSettings, found: Sequence[Checkpoint]) -> Backbone:
    name = settings.model or _recorded_model(found)
    return build_backbone(name, settings.pool, settings.image_size, settings.mean, settings.std)


def _recorded_model(found: Sequence[Checkpoint]) -> str:
    usable = [c for c in found if c.problem is None]
    if not usable:
        raise InputError(_nothing_to_rank(found))
    names = sorted({c.arch for c in usable if c.arch})
    if len(names) == 1:
        return names[0]
    if not names:
        raise ModelError(
            "the checkpoints do not record their architecture. Name it with --model: a timm name "
            "such as resnet50, or package.module:function."
        )
    raise ModelError(
        f"the checkpoints record several architectures ({', '.join(names)}). Rank one trajectory "
        "at a time, or name the architecture with --model."
    )


def _load_target(data: str, settings: RankSettings) -> Target:
    return load_target(
        data,
        data_root=Path(settings.data_root) if settings.data_root else None,
        image_column=settings.image_column,
        label_column=settings.label_column,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        holdout=settings.holdout,
        max_train_samples=settings.max_train_samples,
        max_eval_samples=settings.max_eval_samples,
        seed=settings.seed,
    )


def _audit(found: Sequence[Checkpoint], run: Run) -> list[Checkpoint]:
    """Each checkpoint matched to the backbone; those that do not fit get a problem."""
    audited = []
    for checkpoint in found:
        if checkpoint.problem is None and checkpoint.copy_of is None:
            try:
                prefix = load_weights(run.backbone, read_weights(checkpoint, run.settings.weights))
                key = f"{checkpoint.weights_key}:{prefix}" if prefix else checkpoint.weights_key
                checkpoint = dataclasses.replace(checkpoint, weights_key=key)
            except CheckpointError as error:
                checkpoint = dataclasses.replace(checkpoint, problem=str(error))
        audited.append(checkpoint)
    audited = _fail_copies(audited)
    _check_some_usable(audited, run.settings.strict)
    return audited


def _fail_copies(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """A copy of a checkpoint that cannot be used cannot be used either."""
    problems = {c.name: c.problem for c in checkpoints}
    return [
        dataclasses.replace(c, problem=problems[c.copy_of])
        if c.copy_of and problems.get(c.copy_of)
        else c
        for c in checkpoints
    ]


def _check_some_usable(checkpoints: Sequence[Checkpoint], strict: bool) -> None:
    failed = [c for c in checkpoints if c.problem is not None]
    if len(failed) == len(checkpoints):
        raise InputError(_nothing_to_rank(checkpoints))
    if failed and strict:
        raise InputError(
            f"{len(failed)} of {len(checkpoints)} checkpoints cannot be used, and --strict asks for "
            "all of them:\n" + _problems(failed)
        )


def _nothing_to_rank(checkpoints: Sequence[Checkpoint]) -> str:
    return (
        f"none of the {len(checkpoints)} checkpoints can be used, so there is nothing to rank:\n"
        + _problems([c for c in checkpoints if c.problem])
    )


def _problems(failed: Sequence[Checkpoint]) -> str:
    return "\n".join(f"  {c.name}: {c.problem}" for c in failed if not c.copy_of)


def _score_all(audited: Sequence[Checkpoint], run: Run) -> tuple[Results, list[Checkpoint]]:
    """Score results by checkpoint and score, and the checkpoints with new problems marked."""
    results: Results = {}
    checkpoints = []
    to_do = sum(c.problem is None and c.copy_of is None for c in audited)
    with Progress("rank", to_do, quiet=run.quiet) as progress:
        for checkpoint in audited:
            if checkpoint.problem is None and checkpoint.copy_of is None:
                try:
                    results[checkpoint.name] = _score_one(checkpoint, run)
                    progress.advance(checkpoint.name)
                except FeatureError as error:
                    checkpoint = dataclasses.replace(checkpoint, problem=str(error))
                    progress.advance(f"{checkpoint.name} failed")
            checkpoints.append(checkpoint)
    checkpoints = _fail_copies(checkpoints)
    _check_some_usable(checkpoints, run.settings.strict)
    return results, checkpoints


def _score_one(checkpoint: Checkpoint, run: Run) -> dict[str, ScoreResult]:
    feature_keys = [
        feature_key(checkpoint.digest or "", images.fingerprint, run.backbone, run.precision)
        for images in run.target.image_sets
    ]
    keys = {score.name: _score_key(score, feature_keys, run) for score in run.scores}
    cached = {name: run.cache.get_score(key) for name, key in keys.items()}
    results = {name: result for name, result in cached.items() if result is not None}
    missing = [score for score in run.scores if score.name not in results]
    if missing:
        features = np.concatenate(_features(checkpoint, feature_keys, run))
        start = time.monotonic()
        inputs = ScoreInputs(
            features,
            run.target.labels,
            run.target.evaluation,
            energy=run.settings.energy,
            probe=run.settings.probe,
            seed=run.settings.seed,
            device=run.device,
        )
        for score in missing:
            results[score.name] = score.compute(inputs)
            run.cache.put_score(keys[score.name], results[score.name])
        _add_time(run, "scores", start)
    return {score.name: results[score.name] for score in run.scores}


def _features(checkpoint: Checkpoint, keys: Sequence[str], run: Run) -> list[NDArray[np.float32]]:
    """Features of each image set, from the cache or extracted (and then cached)."""
    features = [run.cache.get_features(key) for key in keys]
    if any(f is None for f in features):
        pixels = run.pixels()
        start = time.monotonic()
        load_weights(run.backbone, read_weights(checkpoint, run.settings.weights))
        for i, key in enumerate(keys):
            if features[i] is None:
                extracted = extract_features(
                    run.backbone, pixels[i], run.device, run.precision, run.settings.batch_size
                )
                run.cache.put_features(key, extracted)
                features[i] = extracted
        _add_time(run, "features", start)
    return [f for f in features if f is not None]


def _score_key(score: Score, feature_keys: Sequence[str], run: Run) -> str:
    settings, plan = run.settings, run.target.evaluation
    folds = [part.tobytes() for fold in plan.folds for part in fold]
    return digest_of(
        f"score {SCORES_VERSION} {score.name} {score.version}",
        f"{settings.energy} {settings.probe} {settings.seed} {plan.n_repeats}",
        run.target.labels.tobytes(),
        digest_of(*folds),
        *feature_keys,
    )


def _add_time(run: Run, stage: str, start: float) -> None:
    run.time_s[stage] = run.time_s.get(stage, 0.0) + time.monotonic() - start


def _make_ranking(
    audited: Sequence[Checkpoint], results: Results, run: Run, root: str, start: float
) -> Ranking:
    settings = run.settings
    score = GOALS[settings.goal]
    rows, baselines = order_rows(
        [_row_of(checkpoint, i) for i, checkpoint in enumerate(audited)],
        results,
        score,
        settings.n_resamples,
        settings.seed,
    )
    run.time_s["total"] = time.monotonic() - start
    tied = [row for row in rows if row.in_tie_set and row.copy_of is None]
    return Ranking(
        goal=settings.goal,
        score=score,
        checkpoints=tuple(rows),
        best=rows[0].name,
        tie_set=tuple(row.name for row in tied),
        baselines=baselines,
        notes=tuple(trajectory_notes(audited)),
        target=run.target.describe(),
        model={
            "name": run.backbone.name,
            "layer": run.backbone.layer,
            "preprocessing": run.backbone.preprocessing.to_dict(),
        },
        settings={
            "checkpoints": root,
            **dataclasses.asdict(settings),
            "device": run.device,
            "precision": run.precision,
        },
        environment=describe_environment(run.device),
        time_s={stage: round(seconds, 3) for stage, seconds in run.time_s.items()},
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


def _predictions(results: Results, run: Run) -> dict[str, NDArray[Any]]:
    evaluated = run.target.evaluation.evaluated
    arrays: dict[str, NDArray[Any]] = {
        "evaluated": evaluated,
        "labels": run.target.labels[evaluated],
    }
    for name, scores in results.items():
        for score, result in scores.items():
            if result.per_image is not None:
                arrays[f"{name}/{score}/per_image"] = result.per_image
            if result.predictions is not None:
                arrays[f"{name}/{score}/predictions"] = result.predictions
    return arrays
