"""One reproduction, from nothing to claims, all in one run folder.

recipe -> targets -> for each seed: pre-training -> for each target: what is measured (`examine`)
       -> raw numbers -> figures, claims -> manifest

    RUN/manifest.json            recipe, seeds, versions, hardware, time, digests of all files
    RUN/claims.json, claims.md   the paper's claims beside ours
    RUN/layers.md                what over-training does to each layer, where layers were read
    RUN/raw/, RUN/figures/       numbers and pictures
    RUN/targets/<target>/        targets that were drawn
    RUN/seed<n>/checkpoints/     one trajectory, and log.csv
    RUN/seed<n>/<target>/        ranking.json and confirm.json of that trajectory
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ckptsel.common.environment import describe_environment, package_version, utc_now
from ckptsel.common.files import atomic_path, read_json, write_json, write_text
from ckptsel.common.progress import format_seconds
from ckptsel.errors import DataError, InputError, UsageError, did_you_mean
from ckptsel.ranking.scoring import SCORES_VERSION
from ckptsel.reproduce.claims import Claim
from ckptsel.reproduce.distributed import open_world
from ckptsel.reproduce.layer_trends import LAYERS_NAME, describe_layers
from ckptsel.reproduce.paper_claims import check_claims
from ckptsel.reproduce.pretrain import checkpoint_name, pretrain
from ckptsel.reproduce.recipes import Recipe, RecipeTarget
from ckptsel.reproduce.results import Results, save_results
from ckptsel.settings.engine import Where
from ckptsel.settings.rank import RankSettings
from ckptsel.target.images import ImageSet, Source
from ckptsel.target.sources import open_source
from ckptsel.target.splits import balanced_sample, stratified_sample

MANIFEST_SCHEMA = "ckptsel.run/2"
CLAIMS_SCHEMA = "ckptsel.claims/2"
CLAIMS_NAME = "claims.json"

HERE = Where()

TARGET_SEED = 0
"""Targets are drawn the same for every pre-training seed."""

NOT_SHIPPED = (
    "other-checkpoints",
    "chosen",
    "training_state.pt",
    "predictions.safetensors",
    "report.html",
)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    data_root: Path,
    seeds: Sequence[int] = (0,),
    where: Where = HERE,
    quiet: bool = False,
    beside: Path | None = None,
) -> list[Claim] | None:
    """Everything that the recipe asks for, into `folder`; goes on where it was killed.

    seeds: of the pre-training, which runs in this process. where: checkpoints are scored and
    transferred. beside: another run, whose verdicts `claims.md` shows too. Returns the claims; None in
    all processes of torchrun but the first.
    Raises DataError naming the data that is missing, before anything is computed.
    """
    start = time.monotonic()
    check_extras()
    check_data(recipe, data_root)
    other = None if beside is None else read_verdicts(beside)
    with open_world(where.first_device) as world:
        for seed in seeds:
            run = folder / f"seed{seed}"
            pretrain(recipe.pretraining, run, data_root, seed, world, quiet)
    if not world.is_main:
        return None
    results = measure_run(recipe, folder, data_root, seeds, where.on(world.device), quiet)
    save_results(results, folder)
    from ckptsel.reproduce.figures import draw_figures

    draw_figures(results, folder)
    if results.tables["layers"]:
        write_text(folder / LAYERS_NAME, describe_layers(results))
    claims = check_claims(results, recipe.name)
    write_claims(folder, claims, other)
    write_json(
        folder / "manifest.json",
        _manifest(recipe, folder, seeds, world.device, results, time.monotonic() - start),
    )
    return claims


def measure_run(
    recipe: Recipe,
    folder: Path,
    data_root: Path,
    seeds: Sequence[int],
    where: Where,
    quiet: bool,
) -> Results:
    """The raw numbers of trajectories that are there. where: as for `rank` and `confirm`."""
    from ckptsel.reproduce.examine import Place, examine
    from ckptsel.reproduce.layers import read_layers

    results = Results()
    for seed in seeds:
        for row in read_log(folder / f"seed{seed}" / "log.csv"):
            results.add("source", seed=seed, **row)
    for target in recipe.targets:
        settings = RankSettings(
            model=recipe.pretraining.model,
            image_size=recipe.pretraining.image_size,
            **where.settings(),
            # The paper evaluates on every image of a published split.
            duplicates="keep",
            scores=scores_of(recipe.scores),
        )
        data = target.data
        if target.n_train is not None:
            data = str(folder / "targets" / target.name)
            write_target(target, Path(data), data_root)
        else:
            settings = dataclasses.replace(settings, data_root=str(data_root), eval_split="test")
        for seed in seeds:
            run = folder / f"seed{seed}"
            place = Place(
                recipe,
                target,
                seed,
                _checkpoints_for(target, run),
                data,
                settings,
                run / target.name,
                quiet,
            )
            examine(place, results)
            if target.name in recipe.layer_targets:
                read_layers(place, results)
    return results


def scores_of(more: Sequence[str]) -> tuple[str, ...] | None:
    """What a recipe's rankings score: what `rank` does by default, and more; None for the default."""
    if not more:
        return None
    from ckptsel.scores import find_scores

    return (*(score.name for score in find_scores(None)), *more)


def choose_targets(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with some of its targets. Raises UsageError for one that it does not have."""
    known = {target.name: target for target in recipe.targets}
    for name in names:
        if name not in known:
            raise UsageError(
                f"recipe {recipe.name} --preset {recipe.preset} has no target {name!r}. Known: "
                f"{', '.join(known)}." + did_you_mean(name, known)
            )
    return dataclasses.replace(recipe, targets=tuple(known[name] for name in names))


def check_extras() -> None:
    """Raises UsageError where figures could not be drawn, or clusters not be measured."""
    missing = [name for name in ("matplotlib", "sklearn") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not installed, which `reproduce` draws and measures clusters "
            "with. Install them with: pip install 'ckptsel[reproduce]'."
        )


def check_data(recipe: Recipe, data_root: Path) -> None:
    """Raises DataError naming everything that the recipe needs and that is not there."""
    problems = []
    try:
        open_source(str(data_root / recipe.pretraining.data))
    except InputError as error:
        problems.append(f"source {recipe.pretraining.data}: {error}")
    for target in recipe.targets:
        try:
            _open_target(target, data_root).read(target.drawn_from)
        except InputError as error:
            problems.append(f"target {target.name}: {error}")
    if problems:
        raise DataError(
            f"{len(problems)} of {1 + len(recipe.targets)} data sets of the recipe are not there, below "
            f"{data_root}:",
            *(f"  {problem}" for problem in problems),
            "Name another --data-root, or leave targets out with --targets.",
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of `log.csv`, as numbers."""
    import csv

    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]


def write_target(target: RecipeTarget, folder: Path, data_root: Path) -> None:
    """A training and a validation split without overlap, both drawn from one split of the data.

    What is there already is left: its files' times are part of what features are known by.
    """
    names = {split: f"{split}-00000-of-00001.parquet" for split in ("train", "validation")}
    if all((folder / name).is_file() for name in names.values()):
        return
    assert target.n_train is not None and target.n_validation is not None
    images = _open_target(target, data_root).read(target.drawn_from)
    draw = balanced_sample if target.balanced else stratified_sample
    train = draw(images.labels, target.n_train, (TARGET_SEED, 3))
    rest = np.setdiff1d(np.arange(len(images)), train)
    held = draw(images.labels[rest], target.n_validation, (TARGET_SEED, 4))
    for split, indices in (("train", train), ("validation", rest[held])):
        order = np.random.default_rng((TARGET_SEED, 5)).permutation(len(indices))
        write_parquet(folder / names[split], images.subset(indices[order]), target.inverted)


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """Those of another run. by_claim: by name and target of the claim."""

    run: str
    by_claim: dict[tuple[str, str], str]


def read_verdicts(folder: Path) -> Verdicts:
    """Raises InputError where the folder holds no claims."""
    path = folder / CLAIMS_NAME
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: {folder} is no finished run of `ckptsel reproduce`, so it has no "
            "verdicts to stand beside."
        )
    claims = read_json(path)["claims"]
    return Verdicts(folder.name, {(c["name"], c["target"]): c["verdict"] for c in claims})


def write_claims(folder: Path, claims: Sequence[Claim], beside: Verdicts | None = None) -> None:
    """`claims.json`, and the same as a table for people."""
    write_text(folder / "claims.md", claims_table(claims, beside))
    write_json(
        folder / CLAIMS_NAME,
        {"schema": CLAIMS_SCHEMA, "claims": [claim.to_dict() for claim in claims]},
    )


def claims_table(claims: Sequence[Claim], beside: Verdicts | None = None) -> str:
    """Markdown: one row a claim; the verdicts of another run in a last column."""
    titles = ["where", "target", "claim", "the paper", "ours", "verdict"]
    if beside is not None:
        titles.append(f"verdict of {beside.run}")
    lines = [_row_of(titles), _row_of(["---"] * len(titles))]
    for claim in claims:
        shown = [f"{len(claim.ours)} seeds: {claim.pooled.text}"] if claim.pooled else []
        shown += [f"seed {f.seeds[0]}: {f.text}" for f in claim.ours]
        ours = "<br>".join([*shown, f"({claim.why})"] if claim.why else shown)
        cells = [claim.where, claim.target, claim.claim, claim.paper, ours, f"**{claim.verdict}**"]
        if beside is not None:
            cells.append(beside.by_claim.get((claim.name, claim.target), "none"))
        lines.append(_row_of(cells))
    return "\n".join(lines) + "\n"


def _row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _checkpoints_for(target: RecipeTarget, run: Path) -> Path:
    """The trajectory's folder; or one of links to the checkpoints that the target wants."""
    if not target.only_epochs:
        return run / "checkpoints"
    chosen = run / target.name / "chosen"
    chosen.mkdir(parents=True, exist_ok=True)
    for epoch in target.only_epochs:
        link = chosen / checkpoint_name(epoch)
        if not link.exists():
            link.symlink_to(Path("../..") / "checkpoints" / link.name)
    return chosen


def _open_target(target: RecipeTarget, data_root: Path) -> Source:
    if target.data.startswith("paper/"):
        return open_source(target.data, data_root)
    return open_source(str(data_root / target.data))


def write_parquet(path: Path, images: ImageSet, inverted: bool = False) -> None:
    """Images, or their negatives, as lossless PNG and integer labels, in the Hugging Face layout."""
    import io
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import ImageOps

    encoded = []
    for i in range(len(images)):
        buffer = io.BytesIO()
        image = images.open_image(i)
        image = ImageOps.invert(image) if inverted else image
        image.save(buffer, format="PNG", optimize=True)
        encoded.append({"bytes": buffer.getvalue(), "path": f"{i:05d}.png"})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(images.class_names), "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table({"image": encoded, "label": images.labels}, schema=schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _manifest(
    recipe: Recipe,
    folder: Path,
    seeds: Sequence[int],
    device: str,
    results: Results,
    seconds: float,
) -> dict[str, Any]:
    pretraining = {
        f"seed{seed}": round(sum(row["time_s"] for row in results.rows("source", seed=seed)), 1)
        for seed in seeds
    }
    return {
        "schema": MANIFEST_SCHEMA,
        "ckptsel": package_version("ckptsel"),
        "created": utc_now(),
        "scores_version": SCORES_VERSION,
        "recipe": recipe.to_dict(),
        "seeds": list(seeds),
        "environment": describe_environment(device),
        "pretraining_time_s": pretraining,
        # Of the last call alone: what was finished before is read from the caches.
        "time_s": round(seconds, 1),
        "time": format_seconds(seconds),
        "sha256": digests(folder),
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run that is kept, by its path in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_left_out(path.relative_to(folder))
    }


def _is_left_out(path: Path) -> bool:
    if path.parts[0] == "raw":
        return False
    left_out = path.name in ("manifest.json", "README.md", "confirm.safetensors")
    return left_out or any(part in NOT_SHIPPED for part in path.parts)
