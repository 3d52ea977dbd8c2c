"""F, F_m and F_r of every layer along a trajectory: where in the network over-training is felt.

`rank` reads each checkpoint at each layer, in the reading "train" with the converged probe, and keeps
its scores in the cache; the layers' own ranking lies in `layers/` of the target's folder.
"""

import dataclasses
from typing import Any

from ckptsel.features.encoder import LAST
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.reproduce.examine import Place
from ckptsel.reproduce.results import Results, layer_kind, prediction_key
from ckptsel.results.files import write_ranking
from ckptsel.results.ranking import Row

LAYERS = ("act1", "layer1", "layer2", "layer3", "layer4", LAST)
"""Stem, stages and penultimate activations of the recipes' networks, all of which are ResNets."""

SCORES = {
    "all": "linear_probe",
    "main": "main_component",
    "residual": "residual_component",
}
"""The score that reads each component."""


def read_layers(place: Place, results: Results) -> None:
    """Rows of `layers`, and the predictions that their intervals come from. Scores that were computed
    before come from the cache."""
    settings = dataclasses.replace(
        place.settings, layers=LAYERS, scores=tuple(SCORES.values()), by=SCORES["all"]
    )
    ranking, arrays = rank_with_predictions(place.checkpoints, place.data, settings, place.quiet)
    write_ranking(place.out / "layers", ranking, arrays)
    for row in sorted(ranking, key=lambda row: (row.order, LAYERS.index(row.layer))):
        for component, score in SCORES.items():
            if score in row.scores:
                results.add("layers", **_record(place, row, component))
                kind = layer_kind(row.layer, component)
                key = prediction_key(place.target.name, place.seed, kind, int(row.epoch or 0))
                scored = row.copy_of or row.name
                results.predictions[key] = arrays[f"{scored}/{score}/predictions"]


def _record(place: Place, row: Row, component: str) -> dict[str, Any]:
    """n_main: k, how many directions of that layer are main."""
    main: dict[str, Any] = {**row.scores[SCORES["main"]].details}
    return {
        "seed": place.seed,
        "stage": "before",
        "target": place.target.name,
        "epoch": row.epoch,
        "layer": row.layer,
        "component": component,
        "n_main": main["n_features"],
        "accuracy": row.scores[SCORES[component]].value,
    }
