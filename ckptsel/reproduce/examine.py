"""What is measured of one trajectory on one target: scores, FE and FT, components, spectra, clusters.

`rank` and `confirm` do the work; what they write is kept in the run folder beside the raw numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.common.fields import from_known_fields
from ckptsel.common.progress import Progress
from ckptsel.confirmation.confirm import Confirmation, confirm_ranking, write_confirmation_of
from ckptsel.confirmation.protocols import TrainingPlan
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.features.candidate import Candidate
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.reproduce.clusters import embed, neighbour_purity, silhouette
from ckptsel.reproduce.readings import read_components
from ckptsel.reproduce.recipes import Recipe, RecipeTarget
from ckptsel.reproduce.results import Results, prediction_key
from ckptsel.results.files import write_ranking
from ckptsel.results.ranking import Ranking
from ckptsel.scores.spectrum import compute_spectrum
from ckptsel.settings.confirm import make_confirm_settings
from ckptsel.settings.engine import Where
from ckptsel.settings.rank import RankSettings

N_EMBEDDED = 2000
"""Held-out images of a t-SNE picture."""


@dataclass(frozen=True)
class Place:
    """One trajectory and one target.

    checkpoints: its folder.
    data, settings: as for `rank`.
    out: where the ranking and the confirmation go.
    """

    recipe: Recipe
    target: RecipeTarget
    seed: int
    checkpoints: Path
    data: str
    settings: RankSettings
    out: Path
    quiet: bool


def examine(place: Place, results: Results) -> None:
    """Everything that the recipe asks for, added to `results`. Goes on where it was killed."""
    ranking, confirmation = _rank_and_confirm(place)
    found = [c for c in scan_checkpoints(place.checkpoints) if c.problem is None]
    workspace = open_workspace(place.settings, found, place.data, place.quiet)
    labels = workspace.target.labels
    ((_, held),) = workspace.target.evaluation.folds
    results.predictions[f"{place.target.name}/seed{place.seed}/labels"] = labels[held]
    _add_scores(place, ranking, results)
    _add_transfers(place, ranking, confirmation, results)
    closer = place.target.name in place.recipe.closer_targets
    stages = list(_features_by_stage(place, workspace, found, confirmation, closer))
    with Progress(f"components {place.target.name}", len(stages), quiet=place.quiet) as progress:
        for about, checkpoint, extract in stages:
            features = extract()
            _add_spectrum(about, features, workspace, results)
            if closer:
                _add_components(about, features, workspace, results)
                _add_clusters(about, features, workspace, results, place.recipe.after_epochs)
            progress.advance(f"{checkpoint.name} {about['stage']} fine-tuning")


def _rank_and_confirm(place: Place) -> tuple[Ranking, Confirmation | None]:
    ranking, predictions = rank_with_predictions(
        place.checkpoints, place.data, place.settings, place.quiet
    )
    write_ranking(place.out, ranking, predictions)
    if not place.recipe.goals:
        return ranking, None
    settings = make_confirm_settings(
        {
            "n_candidates": len(ranking),
            "goal": "both" if len(place.recipe.goals) == 2 else place.recipe.goals[0],
            "n_seeds": place.recipe.n_transfer_seeds,
            "preset": place.target.preset,
            "epochs": place.target.epochs,
            "full": True,
            "data_root": place.settings.data_root,
            "cache_dir": place.settings.cache_dir,
            "workers": place.settings.workers,
            **Where.of(place.settings).settings(),
        }
    )
    confirmation = confirm_ranking(ranking, settings, place.quiet)
    write_confirmation_of(place.out, confirmation)
    return ranking, confirmation


def _add_scores(place: Place, ranking: Ranking, results: Results) -> None:
    for row in sorted(ranking, key=lambda row: row.order):
        for name, score in row.scores.items():
            results.add(
                "scores",
                target=place.target.name,
                seed=place.seed,
                epoch=row.epoch,
                source_accuracy=row.source_accuracy,
                score=name,
                value=score.value,
                low="" if score.low is None else score.low,
                high="" if score.high is None else score.high,
                flags="; ".join(score.flags),
            )


def _add_transfers(
    place: Place, ranking: Ranking, confirmation: Confirmation | None, results: Results
) -> None:
    if confirmation is None:
        return
    epochs = {row.name: int(row.epoch or 0) for row in ranking}
    for goal, outcome in confirmation.outcomes.items():
        for run in outcome.runs:
            if run.purpose == "race":
                last = run.points[-1] if run.points and run.diverged_at is None else None
                results.add(
                    "transfers",
                    target=place.target.name,
                    seed=place.seed,
                    epoch=epochs[run.checkpoint],
                    goal=goal,
                    transfer_seed=run.seed,
                    lr=run.lr,
                    n_steps=outcome.summary.rungs[-1],
                    accuracy="" if last is None else last.held_accuracy,
                    held_loss="" if last is None else last.held_loss,
                    train_loss="" if last is None else last.train_loss,
                )
        for name, epoch in epochs.items():
            predicted = outcome.predictions.get(f"{name}/{outcome.summary.rungs[-1]}")
            if predicted is not None:
                key = prediction_key(place.target.name, place.seed, goal, epoch)
                results.predictions[key] = predicted


def _features_by_stage(
    place: Place,
    workspace: Workspace,
    found: list[Checkpoint],
    confirmation: Confirmation | None,
    closer: bool,
) -> Iterator[tuple[dict[str, Any], Checkpoint, Callable[[], NDArray[np.float32]]]]:
    """(what they are of, checkpoint, how to get them) for the features before and after FT."""
    first = {"target": place.target.name, "seed": place.seed}
    for checkpoint in found:
        about = {**first, "epoch": checkpoint.epoch, "stage": "before", "transfer_seed": -1}
        yield about, checkpoint, partial(workspace.features, Candidate(checkpoint))
    if confirmation is None or "ft" not in confirmation.outcomes or not closer:
        return
    summary = confirmation.outcomes["ft"].summary
    fitted, held = workspace.target.evaluation.folds[0]
    protocol = from_known_fields(TrainingPlan, summary.protocol)
    task = Task(protocol, workspace, workspace.cache, fitted, held)
    for checkpoint in found:
        if checkpoint.epoch in place.recipe.after_epochs:
            for seed in range(place.recipe.n_transfer_seeds):
                run = Transfer(task, Candidate(checkpoint), seed, summary.lr)
                about = {**first, "epoch": checkpoint.epoch, "stage": "after"}
                yield {**about, "transfer_seed": seed}, checkpoint, run.features_after


def _add_spectrum(
    about: dict[str, Any], features: NDArray[np.float32], workspace: Workspace, results: Results
) -> None:
    fitted = workspace.target.evaluation.folds[0][0]
    spectrum = compute_spectrum(torch.from_numpy(features[fitted]).to(workspace.device))
    for i, value in enumerate(spectrum.singular_values.tolist()):
        main = int(i < spectrum.n_main)
        results.add("spectra", **about, index=i + 1, singular_value=value, is_main=main)


def _add_components(
    about: dict[str, Any], features: NDArray[np.float32], workspace: Workspace, results: Results
) -> None:
    target = workspace.target
    for row, predicted in read_components(
        features, target.labels, target.evaluation, workspace.device
    ):
        results.add("components", **about, **row)
        kind = f"components/{about['stage']}/{row['reading']}/{row['probe']}/{row['component']}"
        key = prediction_key(about["target"], about["seed"], kind, about["epoch"])
        known = results.predictions.get(key)
        results.predictions[key] = (
            predicted[None] if known is None else np.concatenate([known, predicted[None]])
        )


def _add_clusters(
    about: dict[str, Any],
    features: NDArray[np.float32],
    workspace: Workspace,
    results: Results,
    epochs: tuple[int, ...],
) -> None:
    """How classes cluster among held-out images; t-SNE of the first and last of `epochs`, for one
    transfer seed."""
    held = workspace.target.evaluation.folds[0][1][:N_EMBEDDED]
    labels, points = workspace.target.labels[held], features[held]
    spaces = {"features": points}
    if epochs and about["epoch"] in (epochs[0], epochs[-1]) and about["transfer_seed"] <= 0:
        spaces["tsne"] = embed(points)
        for (x, y), label in zip(spaces["tsne"].round(2).tolist(), labels.tolist(), strict=True):
            results.add("embedding", **about, label=label, x=x, y=y)
    for space, coordinates in spaces.items():
        results.add(
            "clusters",
            **about,
            space=space,
            knn_purity=float(neighbour_purity(coordinates, labels).mean()),
            silhouette=silhouette(coordinates, labels),
        )
