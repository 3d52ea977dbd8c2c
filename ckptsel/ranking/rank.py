"""`rank`: from a folder of checkpoints and a target to a ranking.

scan -> audit (every checkpoint is matched to the model before anything is computed)
     -> features (cached) -> scores (cached) -> ranking
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from ckptsel.checkpoints.averages import with_averages
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import limits_of
from ckptsel.checkpoints.order import Order
from ckptsel.checkpoints.scan import Scan, scan
from ckptsel.checkpoints.trajectory import trajectory_notes
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common.devices import default_precision
from ckptsel.common.environment import describe_environment, package_version, utc_now
from ckptsel.common.places import as_urls, place_text
from ckptsel.common.remote import local_path
from ckptsel.errors import NothingToRank, OutputError, UsageError, listed
from ckptsel.features.candidate import Candidate, candidates_of
from ckptsel.features.names import check_name
from ckptsel.features.store import Cache
from ckptsel.ranking.audit import audit, fitting_key
from ckptsel.ranking.doubts import (
    duplicates_sentence,
    find_doubts,
    find_reasons,
    needs_a_look_inside,
)
from ckptsel.ranking.inside import Inside, probe_inside
from ckptsel.ranking.order import (
    ACROSS_LAYERS,
    GOALS,
    deciding_score,
    order_rows,
    reads_several,
    scores_at,
)
from ckptsel.ranking.passes import Results, Scales, Scored, n_at_once, score_all, usable_of
from ckptsel.ranking.ray_engine import join_cluster
from ckptsel.ranking.resolve import cache_of
from ckptsel.ranking.turns import Search
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.about import ModelAbout, SettingsAbout, TargetAbout
from ckptsel.results.ranking import EPOCH, AveragedPart, Ranking, Row
from ckptsel.results.summary import unsure_note
from ckptsel.scores import Score, find_score, find_scores
from ckptsel.settings.kinds import Precision
from ckptsel.settings.rank import RankSettings, make_settings


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
    cache = cache_of(settings)
    find = partial(_scan, checkpoints, cache=cache, quiet=quiet)
    return rank_found(find, place_text(checkpoints), place_text(data), settings, quiet, cache=cache)


@dataclass(frozen=True)
class Known:
    """What earlier rankings of the same run tell of its checkpoints, by the digests of their tensors.

    matched: the keys of their weights, of those that were matched to the network. gone: those of which
    no file is left: their scores come from the cache.
    """

    matched: Mapping[str, str | None] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


def rank_found(
    find: Callable[[RankSettings], Scan],
    root: str,
    data: str,
    settings: RankSettings,
    quiet: bool = True,
    known: Known | None = None,
    cache: Cache | None = None,
) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    """As `rank_with_predictions`, of the checkpoints that `find` finds with given settings.

    root: the name of where they are, which the ranking records. cache: None opens that of the settings.
    """
    start = time.monotonic()
    scores = _scores_for(settings)
    candidates, workspaces = _prepare(find, [(data, settings)], quiet, known or Known(), cache)
    search = None
    if settings.budget is not None:
        search = Search(usable_of(candidates), settings, n_at_once(workspaces[0]), start)
    scored = next(score_all(candidates, scores, workspaces, search))
    return _ranking_of(scored, workspaces[0], scores, root, start, search)


def rank_for_each(
    checkpoints: str | Path,
    targets: Sequence[tuple[str, RankSettings]],
    quiet: bool = True,
) -> list[tuple[Ranking, dict[str, NDArray[Any]]]]:
    """As `rank_with_predictions` for each of several targets: its data, and settings that differ in
    what they say of the data alone.

    Checkpoints are scanned and audited once; what one pass of a checkpoint needs is loaded once.
    """
    start = time.monotonic()
    scores, cache = _scores_for(targets[0][1]), cache_of(targets[0][1])
    find = partial(_scan, checkpoints, cache=cache, quiet=quiet)
    candidates, workspaces = _prepare(find, targets, quiet, Known(), cache)
    for workspace in workspaces:
        workspace.target  # noqa: B018 - what is wrong with one is said before any is scored
    return [
        _ranking_of(scored, workspace, scores, str(checkpoints), start)
        for scored, workspace in zip(
            score_all(candidates, scores, workspaces), workspaces, strict=True
        )
    ]


def _ranking_of(
    scored: Scored,
    workspace: Workspace,
    scores: Sequence[Score],
    root: str,
    start: float,
    search: Search | None = None,
) -> tuple[Ranking, dict[str, NDArray[Any]]]:
    rows = [
        _row_of(candidate, order, scored.scales)
        for order, candidate in _in_order(scored.candidates)
        if candidate.name not in scored.unseen
    ]
    ranking = _make_ranking(rows, scored.candidates, scored.results, scores, workspace, root, start)
    if search is not None:
        ranking = dataclasses.replace(ranking, search=search.record(_places(scored.candidates)))
    return ranking, _predictions(scored.results, workspace)


@dataclass(frozen=True)
class Part:
    """What was scored of a run, for a later ranking to find. problems: of those that failed, by name."""

    names: tuple[str, ...]
    problems: Mapping[str, str]
    cache: str


def score_part(
    checkpoints: str | Path,
    data: str | Path,
    settings: RankSettings,
    shard: tuple[int, int],
    quiet: bool = True,
) -> Part:
    """Score every n-th file, from the k-th on (shard: k of n, from 1), into the cache alone. Only these
    are read; where means of neighbours are asked for all are, and every n-th checkpoint is scored.

    Once all parts are there, a ranking with the same settings and cache finds its scores.
    Raises UsageError without a cache, and as `rank`.
    """
    if not settings.cache:
        raise UsageError("a part of a ranking is scored for the cache, and --no-cache keeps none.")
    if settings.budget is not None:
        raise UsageError(
            "a part of a ranking is scored by itself, and --budget chooses by what came of all before."
        )
    scores, cache = _scores_for(settings), cache_of(settings)
    mine = slice(shard[0] - 1, None, shard[1])
    files = mine if settings.average is None else None
    # Looked at before it is prepared: what cannot be read is not kept, and would be read again.
    find = lru_cache(partial(_scan, checkpoints, cache=cache, quiet=quiet, part=files))
    names, problems = _scored_part(find, (place_text(data), settings), quiet, cache, scores, mine)
    if cache.unkept is not None:
        raise OutputError(
            f"the scores of part {shard[0]} are not kept, so no ranking will find them: {cache.unkept}"
        )
    return Part(names, problems, str(cache.folder))


def _scored_part(
    find: Callable[[RankSettings], Scan],
    target: tuple[str, RankSettings],
    quiet: bool,
    cache: Cache,
    scores: Sequence[Score],
    mine: slice,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """(names, problems of those that failed, which may be all)."""
    found = find(target[1]).checkpoints
    if not found:
        return (), {}
    names = tuple(c.name for c in found if c.copy_of is None)
    try:
        candidates, (workspace,) = _prepare(find, [target], quiet, Known(), cache)
        part = usable_of(candidates)
        if target[1].average is not None:
            chosen = {c.name for c in _checkpoints(part)[mine]}
            part = tuple(c for c in part if c.checkpoint.name in chosen)
        names = tuple(c.name for c in part)
        scored = next(score_all(part, scores, [workspace])).candidates if part else ()
    except NothingToRank as error:
        why = "; ".join(line.strip() for line in error.lines[1:])
        return names, {name: why.removeprefix(f"{name}: ") for name in names}
    problems = {c.name: c.problem for c in scored if c.problem is not None}
    return names, problems


def _prepare(
    find: Callable[[RankSettings], Scan],
    targets: Sequence[tuple[str, RankSettings]],
    quiet: bool,
    known: Known,
    cache: Cache | None,
) -> tuple[list[Candidate], list[Workspace]]:
    """Every candidate, audited, and for each target the workspace that it is scored in."""
    start = time.monotonic()
    (data, settings), *others = [
        (data, _for_cluster(given) if given.engine == "ray" else given) for data, given in targets
    ]
    found = find(settings)
    scanned = time.monotonic()
    there = [c for c in found.checkpoints if c.digest not in known.gone] or found.checkpoints
    first = open_workspace(settings, there, data, quiet, cache)
    workspaces = [first, *(first.beside(*other) for other in others)]
    key = fitting_key(there, first)
    if key is not None:
        for workspace in workspaces:
            workspace.settings = dataclasses.replace(workspace.settings, weights=key)
        found = find(first.settings)
    audited, notes = audit(found.checkpoints, first, known.matched), found.others_notes()
    if settings.average is not None:
        averaged = with_averages(audited, settings.average, settings.average_across_drops)
        audited, notes = averaged.checkpoints, [*notes, *averaged.notes]
    for workspace in workspaces:
        workspace.time_s["scan"] = scanned - start
        workspace.notes = [*first.notes, *notes]
    return candidates_of(audited, first.layers), workspaces


def _for_cluster(settings: RankSettings) -> RankSettings:
    """With the precision of the cluster's devices, where none is given."""
    precision = default_precision(join_cluster(settings))
    return dataclasses.replace(settings, precision=settings.precision or cast(Precision, precision))


def _scan(
    checkpoints: str | Path,
    settings: RankSettings,
    cache: Cache,
    quiet: bool,
    part: slice | None = None,
) -> Scan:
    order = Order(settings.order, settings.epoch_regex)
    root = local_path(checkpoints, settings.cache_dir, quiet, NOT_NEEDED)
    return scan(root, settings.weights, limits_of(settings), quiet, order, cache, part)


def check_names(settings: RankSettings) -> None:
    """Raises UsageError or ModelError, naming near names, for scores and networks that no checkpoint is
    needed to know of."""
    _scores_for(settings)
    if settings.model is not None:
        check_name(settings.model)


def _scores_for(settings: RankSettings) -> list[Score]:
    """The scores asked for, the one that decides among them, and what layers are compared by.

    Raises UsageError for a name that is not known, or for one that may not decide.
    """
    deciding, scores = deciding_score(settings), find_scores(settings.scores)
    if deciding == EPOCH and settings.budget is not None:
        raise UsageError(
            "a budget is for the search of the best by a score, and here the order of training decides: "
            "name a score, as in --by linear_probe."
        )
    wanted = [] if deciding == EPOCH else [find_score(deciding)]
    if any(score.cannot_decide for score in wanted):
        raise UsageError(
            f"{deciding} cannot decide a ranking: {wanted[0].cannot_decide}. It is shown with --scores "
            f"{deciding}."
        )
    if settings.scores is None and reads_several(settings) and deciding != ACROSS_LAYERS:
        wanted.append(find_score(ACROSS_LAYERS))
    asked = {score.name for score in scores}
    return [*(score for score in wanted if score.name not in asked), *scores]


def _make_ranking(
    scored: Sequence[Row],
    candidates: Sequence[Candidate],
    results: Results,
    scores: Sequence[Score],
    workspace: Workspace,
    root: str,
    start: float,
) -> Ranking:
    settings = workspace.settings
    score = deciding_score(settings)
    units = {one.name: one.unit for one in scores}
    lower = tuple(one.name for one in scores if not one.higher_is_better)
    ordered = order_rows(
        scored,
        results,
        units,
        score,
        settings.n_resamples,
        settings.seed,
        lower,
    )
    rows = ordered.rows
    target = workspace.target.describe()
    reasons = find_reasons(rows, target, _look_inside(rows, candidates, workspace))
    left_out, on_top = duplicates_sentence(target)
    notes = [*trajectory_notes(_files(candidates)), *workspace.target.notes]
    notes += _notes_on_order(score, settings, lower, is_sure=rows[0].p_best is not None)
    notes += _notes_on_layers(scores, workspace)
    doubts = reasons or find_doubts(rows, target, score)
    if left_out:
        (doubts if on_top else notes).append(left_out)
    workspace.time_s["total"] = time.monotonic() - start
    tied = [row for row in rows if row.in_tie_set and row.copy_of is None]
    return Ranking(
        goal=settings.goal,
        score=score,
        checkpoints=tuple(rows),
        best=rows[0].name,
        tie_set=tuple(row.name for row in tied),
        references=ordered.references,
        expected=ordered.expected,
        units=units,
        lower_is_better=lower,
        notes=(*notes, *workspace.notes, *workspace.cache.notes()),
        doubts=tuple(doubts),
        no_winner=reasons[0] if reasons else None,
        target=cast(TargetAbout, target),
        model=_model_about(workspace),
        settings=cast(SettingsAbout, _settings_used(workspace, root)),
        environment=describe_environment(workspace.device),
        time_s={stage: round(seconds, 3) for stage, seconds in workspace.time_s.items()},
        created=utc_now(),
        version=package_version("ckptsel"),
    )


def _model_about(workspace: Workspace) -> ModelAbout:
    about = workspace.encoder.describe()
    if len(workspace.layers) > 1:
        about["layers"] = list(workspace.layers)
    return cast(ModelAbout, about)


def _notes_on_order(
    score: str, settings: RankSettings, lower: Sequence[str], is_sure: bool
) -> list[str]:
    """What is to be known of what decided, and of scores whose lowest value is the best."""
    notes = [f"of {name} the lowest value is the best" for name in lower]
    if score == EPOCH:
        return notes
    if not is_sure:
        notes.append(unsure_note(score))
    if GOALS[settings.goal] == EPOCH:
        notes.append(
            f"{score} decides since --by asks for it; no score was found to foretell fine-tuning"
        )
    return notes


def _notes_on_layers(scores: Sequence[Score], workspace: Workspace) -> list[str]:
    """Which scores are not computed at every layer."""
    asked = [score.name for score in scores]
    at_each = [scores_at(layer, asked, workspace.settings) for layer in workspace.layers]
    left = [name for name in asked if not all(name in some for some in at_each)]
    if not left:
        return []
    return [
        f"{listed(left, 2)} are computed at the last layer alone; what --scores names is computed at "
        "each, which takes far longer"
    ]


def _settings_used(workspace: Workspace, root: str) -> dict[str, Any]:
    """Every option, and what was chosen where none was given."""
    chosen = {"device": workspace.device, "precision": workspace.precision}
    return {"checkpoints": root, **dataclasses.asdict(workspace.settings), **chosen}


def _look_inside(
    rows: Sequence[Row], candidates: Sequence[Candidate], workspace: Workspace
) -> tuple[Inside, ...]:
    """A probe inside each split on the features of the best, where there is reason to look."""
    target = workspace.target
    if not needs_a_look_inside(rows, target.describe()):
        return ()
    best = next(candidate for candidate in candidates if candidate.name == rows[0].name)
    with workspace.timed("scores"):
        return probe_inside(workspace.features(best), target, workspace.settings.seed)


def _checkpoints(candidates: Sequence[Candidate]) -> list[Checkpoint]:
    """Each checkpoint once, in order."""
    return list({c.checkpoint.name: c.checkpoint for c in candidates}.values())


def _files(candidates: Sequence[Candidate]) -> list[Checkpoint]:
    """The checkpoints without the averages of them."""
    return [checkpoint for checkpoint in _checkpoints(candidates) if not checkpoint.parts]


def _places(candidates: Sequence[Candidate]) -> dict[str, int]:
    """The place of each checkpoint in the order of training."""
    return {checkpoint.name: i for i, checkpoint in enumerate(_files(candidates))}


def _in_order(candidates: Sequence[Candidate]) -> Iterator[tuple[int, Candidate]]:
    """(place in the order of training, candidate): the same for all layers of a checkpoint, and for
    averages that end with it."""
    places = _places(candidates)
    return ((places[(c.checkpoint.parts or (c.checkpoint,))[-1].name], c) for c in candidates)


def _row_of(candidate: Candidate, order: int, scales: Scales) -> Row:
    checkpoint = candidate.checkpoint
    return Row(
        name=candidate.name,
        path="" if checkpoint.parts else as_urls(str(checkpoint.path)),
        digest=checkpoint.digest,
        order=order,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        epoch_from=checkpoint.epoch_from,
        source_accuracy=checkpoint.source_accuracy,
        format=checkpoint.format,
        status="ok" if candidate.problem is None else "failed",
        reason=None if candidate.problem is None else as_urls(candidate.problem),
        weights_key=checkpoint.weights_key,
        copy_of=candidate.copy_of,
        layer=candidate.layer,
        stage_scales=scales.get(candidate.copy_of or candidate.name) or None,
        average_of=tuple(
            AveragedPart(part.name, as_urls(str(part.path)), part.digest, part.weights_key)
            for part in checkpoint.parts
        ),
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
