"""One reproduction: pre-training, its target, and the manifest that says how they were made."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ckptsel.environment import describe_environment, package_version, utc_now
from ckptsel.files import atomic_path, write_json
from ckptsel.progress import format_seconds
from ckptsel.reproduce.pretrain import pretrain
from ckptsel.reproduce.recipes import Recipe, TargetSample
from ckptsel.sources import ImageSet, open_source
from ckptsel.splits import stratified_sample

MANIFEST_SCHEMA = "ckptsel.run/1"


def run_recipe(
    recipe: Recipe,
    folder: Path,
    data_root: Path,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> None:
    """Pre-train, draw the target, write the manifest, all into `folder`; resumes where it stopped."""
    log = pretrain(recipe.pretraining, folder, data_root, seed, device, quiet)
    write_target(recipe.target, folder / "target", data_root, seed)
    write_json(folder / "manifest.json", _manifest(recipe, folder, seed, device, log))


def write_target(sample: TargetSample, folder: Path, data_root: Path, seed: int) -> None:
    """A training and a validation split without overlap, both drawn from the training images.

    The data's own test split stays untouched, for those who want to test what was chosen.
    """
    source = open_source(str(data_root / sample.data))
    images = source.read("train")
    train = stratified_sample(images.labels, sample.n_train, (seed, 3))
    rest = np.setdiff1d(np.arange(len(images)), train)
    held = stratified_sample(images.labels[rest], sample.n_validation, (seed, 4))
    for split, indices in (("train", train), ("validation", rest[held])):
        order = np.random.default_rng((seed, 5)).permutation(len(indices))
        path = folder / f"{split}-00000-of-00001.parquet"
        _write_parquet(path, images.subset(indices[order]))


def _write_parquet(path: Path, images: ImageSet) -> None:
    """Images as lossless PNG and integer labels, in the Hugging Face layout."""
    import io
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = []
    for i in range(len(images)):
        buffer = io.BytesIO()
        images.open_image(i).save(buffer, format="PNG", optimize=True)
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
    recipe: Recipe, folder: Path, seed: int, device: str, log: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = sum(row["time_s"] for row in log)
    shipped = (*sorted(folder.glob("checkpoints/*.safetensors")), *sorted(folder.glob("target/*")))
    return {
        "schema": MANIFEST_SCHEMA,
        "ckptsel": package_version("ckptsel"),
        "created": utc_now(),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "environment": describe_environment(device),
        "pretraining_time_s": round(seconds, 1),
        "pretraining_time": format_seconds(seconds),
        "final": log[-1],
        "sha256": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in shipped
        },
    }
