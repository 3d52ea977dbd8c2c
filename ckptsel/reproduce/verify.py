"""`reproduce verify RUN`: is what a run folder says what its numbers say?

Files against the manifest's digests; claims against the raw numbers; and, where the checkpoints and
the drawn targets are there, scores against the checkpoints.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ckptsel.common.devices import default_device
from ckptsel.common.files import read_json
from ckptsel.errors import InputError, listed_below
from ckptsel.features.encoders import typed_or_recorded
from ckptsel.ranking.rank import rank
from ckptsel.ranking.scoring import SCORES_VERSION
from ckptsel.reproduce.layer_trends import LAYERS_NAME, describe_layers
from ckptsel.reproduce.paper_claims import check_claims
from ckptsel.reproduce.results import (
    Record,
    Results,
    layer_kind,
    load_results,
    prediction_key,
)
from ckptsel.reproduce.run import CLAIMS_SCHEMA, check_extras, digests, scores_of
from ckptsel.scores import find_score
from ckptsel.settings.rank import RankSettings

SCORE_TOLERANCE = {"accuracy": 0.005, "nats": 0.01, "directions": 0.1, "slope": 0.01}
"""How far scores may be from those of another machine: its last digits move an image in two hundred
at most."""

FIRST_SCORES_VERSION = 2
"""Of runs whose manifest does not name it."""


def verify(folder: Path, quiet: bool = False) -> list[str]:
    """What was checked and found right, a line each.

    Raises InputError naming everything that does not agree.
    """
    check_extras()
    manifest = _read_run_json(folder / "manifest.json")
    checks = (_check_files, _check_claims, _check_scores)
    right, wrong = [], []
    for check in checks:
        found, problems = check(folder, manifest, quiet)
        right.append(found)
        wrong += problems
    if wrong:
        raise InputError(f"{len(wrong)} things in {folder} do not agree:", *listed_below(wrong))
    return right


def _check_files(folder: Path, manifest: dict[str, Any], quiet: bool) -> tuple[str, list[str]]:
    there = digests(folder)
    problems = []
    n_left_out = 0
    for name, digest in manifest["sha256"].items():
        if name in there and there[name] != digest:
            problems.append(f"{name} has changed since the manifest was written")
        elif name not in there and _may_be_left_out(name):
            n_left_out += 1
        elif name not in there:
            problems.append(f"{name} is missing")
    absent = f"; {n_left_out} checkpoints and target files are not shipped" if n_left_out else ""
    return f"{len(there)} files are as the manifest names them{absent}", problems


def _may_be_left_out(name: str) -> bool:
    """What the recipe makes again, and is too large to ship."""
    return name.startswith("targets/") or "/checkpoints/" in name


def _check_claims(folder: Path, manifest: dict[str, Any], quiet: bool) -> tuple[str, list[str]]:
    kept = _read_run_json(folder / "claims.json")
    if kept["schema"] != CLAIMS_SCHEMA:
        said = f"they are {kept['schema']}, this version writes {CLAIMS_SCHEMA}"
        return f"claims were not compared: {said}", []
    written = kept["claims"]
    results = load_results(folder)
    computed = [claim.to_dict() for claim in check_claims(results, manifest["recipe"]["name"])]
    # As they are read back: tuples become lists.
    again = json.loads(json.dumps(computed))
    problems = [
        f"claim {new['name']} ({new['target']}): claims.json has {_said(old)}, the raw numbers "
        f"give {_said(new)}"
        for old, new in zip(written, again, strict=False)
        if _said(old) != _said(new)
    ]
    if len(written) != len(again):
        problems.append(f"claims.json has {len(written)} claims, the raw numbers give {len(again)}")
    problems += _disagreeing_accuracies(results)
    problems += _disagreeing_layers(folder, results)
    return f"{len(again)} claims follow from the raw numbers", problems


def _said(claim: dict[str, Any]) -> str:
    findings = [*claim["ours"], *([claim["pooled"]] if claim.get("pooled") else [])]
    ours = "; ".join(f"{f.get('seeds', f.get('seed'))}: {f['text']}" for f in findings)
    return f"{claim['name']}: {claim['verdict']} ({ours})"


def _disagreeing_accuracies(results: Results) -> Iterator[str]:
    """Where `transfers.csv` and the predictions say different things."""
    first = min((row["transfer_seed"] for row in results.tables["transfers"]), default=0)
    for row in results.tables["transfers"]:
        where = f"{row['target']}/seed{row['seed']}/{row['goal']}/{row['epoch']:03d}"
        correct = results.correct(where)
        if row["accuracy"] == "" or correct is None:
            continue
        accuracy = correct[row["transfer_seed"] - first].mean()
        if abs(accuracy - row["accuracy"]) > 1e-5:
            yield (
                f"transfers.csv has {row['accuracy']} for {where}, run {row['transfer_seed']}; the "
                f"predictions give {accuracy:.6f}"
            )


def _disagreeing_layers(folder: Path, results: Results) -> Iterator[str]:
    """Where `layers.csv`, the predictions and `layers.md` say different things. Older runs have none."""
    rows = results.tables["layers"]
    for row in rows:
        kind = layer_kind(row["layer"], row["component"])
        correct = results.correct(prediction_key(row["target"], row["seed"], kind, row["epoch"]))
        found = None if correct is None else correct.mean()
        if found is None or abs(found - row["accuracy"]) > 1e-5:
            yield (
                f"layers.csv has {row['accuracy']} for {row['component']} of {row['layer']}, epoch "
                f"{row['epoch']}; the predictions give {'none' if found is None else f'{found:.6f}'}"
            )
    path = folder / LAYERS_NAME
    if rows and path.is_file() and path.read_text(encoding="utf-8") != describe_layers(results):
        yield f"{LAYERS_NAME} is not what the raw numbers give"


def _check_scores(folder: Path, manifest: dict[str, Any], quiet: bool) -> tuple[str, list[str]]:
    made_with = manifest.get("scores_version", FIRST_SCORES_VERSION)
    if made_with != SCORES_VERSION:
        return (
            f"scores were not computed again: they are of version {made_with} of the scores, this is "
            f"version {SCORES_VERSION}",
            [],
        )
    results = load_results(folder)
    problems = []
    n_checkpoints = n_scores = 0
    for run in sorted(folder.glob("seed*")):
        if not (run / "checkpoints").is_dir():
            continue
        n_checkpoints += len(list((run / "checkpoints").iterdir()))
        for data in sorted((folder / "targets").glob("*")):
            made = manifest["recipe"]["pretraining"]
            settings = RankSettings(
                model=typed_or_recorded(None, made["model"]),
                image_size=made["image_size"],
                device=default_device(),
                duplicates="keep",
                scores=scores_of(manifest["recipe"].get("scores", ())),
            )
            ranking = rank(run / "checkpoints", data, settings, quiet)
            scored = {(row.epoch, k): s.value for row in ranking for k, s in row.scores.items()}
            seed = int(run.name.removeprefix("seed"))
            for row in results.rows("scores", target=data.name, seed=seed):
                n_scores += 1
                problems += _compare(row, scored.get((row["epoch"], row["score"])))
    if not n_checkpoints:
        return "scores were not computed again: no checkpoints are shipped", []
    return f"{n_scores} scores follow from {n_checkpoints} checkpoints", problems


def _compare(row: Record, value: float | None) -> list[str]:
    tolerance = SCORE_TOLERANCE[find_score(row["score"]).unit]
    if value is not None and abs(value - row["value"]) <= tolerance:
        return []
    found = "none" if value is None else f"{value:.4f}"
    return [
        f"{row['score']} of epoch {row['epoch']} on {row['target']}: scores.csv has {row['value']}, "
        f"the checkpoint gives {found}"
    ]


def _read_run_json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: {path.parent} is no run folder of `ckptsel reproduce`."
        )
    return read_json(path)
