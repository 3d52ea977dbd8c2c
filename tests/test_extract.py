"""`extract` at the command line: features of new images as files, and what can go wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import ckptsel
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.results.files import write_ranking
from tests.conftest import save_checkpoint, save_images


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, images with a validation split, and their ranking at two layers."""
    folder = tmp_path_factory.mktemp("ranked")
    save_images(folder / "images" / "train", 12)
    save_images(folder / "images" / "val", 10, seed=1, noise=80)
    for epoch in (1, 5):
        save_checkpoint(folder / "ckpts" / f"m{epoch}.safetensors", epoch, epoch, 0.4)
    options: dict[str, Any] = {"scores": ("linear_probe",), "layers": ("last", "layer2", "all")}
    cache = str(folder / "cache")
    scored = rank_with_predictions(
        folder / "ckpts", folder / "images", cache_dir=cache, workers=0, **options
    )
    write_ranking(folder / "ranking", *scored)
    return folder


def read(path: Path) -> dict[str, Any]:
    """What a file of features holds, whatever its format, by the names of npz."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name].tolist() for name in opened.files}
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        names = {"name": "names", "split": "splits", "label": "labels", "prediction": "predictions"}
        found = {names.get(k, k): v for k, v in table.to_pydict().items()}
        about = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    else:
        found = {name: array.tolist() for name, array in load_file(path).items()}
        with safe_open(path, "np") as opened:
            about = opened.metadata()
    return {**found, **{k: json.loads(v) if v.startswith("[") else v for k, v in about.items()}}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".parquet"])
def test_every_format_holds_the_same(run, ranked: Path, tmp_path: Path, suffix: str) -> None:
    to = tmp_path / "new" / f"features{suffix}"
    arguments = ("extract", ranked / "ranking", "--data", ranked / "images" / "val", "--to", to)
    code, out, err = run(*arguments, "--candidate", "m5@all", "--predictions", "-q")
    assert (code, out, err) == (0, "", "")
    found = read(to)
    expected = {"features", "probabilities", "names", "labels", "predictions", "classes"}
    assert found.keys() == expected | {"candidate", "layer", "precision"}
    assert (found["candidate"], found["layer"], found["precision"]) == ("m5@all", "all", "float32")
    assert found["names"][0] == str(ranked / "images" / "val" / "class0" / "0.png")
    assert found["labels"] == [f"class{i}" for i in range(3) for _ in range(10)]
    assert found["classes"] == ["class0", "class1", "class2"]
    features, probabilities = np.array(found["features"]), np.array(found["probabilities"])
    assert features.shape == (30, 1792) and features.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert [found["classes"][i] for i in probabilities.argmax(1)] == found["predictions"]
    assert [path.name for path in to.parent.iterdir()] == [to.name], "and nothing else"


@pytest.mark.parametrize("candidate", ["m1", "m5@layer2", "m5@all"])
def test_the_probe_is_the_one_that_was_ranked(
    run, ranked: Path, tmp_path: Path, candidate: str
) -> None:
    """Where a split was held out: its images get the predictions that the ranking keeps."""
    to = tmp_path / "features.npz"
    arguments = (
        "extract",
        ranked / "ranking",
        "--data",
        ranked / "images",
        "--split",
        "validation",
    )
    options = ("--candidate", candidate, "--predictions", "--to", to, "-q")
    assert run(*arguments, *options)[0] == 0
    kept = load_file(ranked / "ranking" / "predictions.safetensors")
    expected = kept[f"{candidate}/linear_probe/predictions"][0]
    predicted = [read(to)["classes"].index(name) for name in read(to)["predictions"]]
    assert predicted == expected.tolist()
    assert 0.2 < np.mean(expected == kept["labels"]) < 1


def test_an_exported_file_gives_the_same(run, ranked: Path, tmp_path: Path) -> None:
    best, once, twice = (tmp_path / name for name in ("best.safetensors", "a.npz", "b.npz"))
    assert run("pick", ranked / "ranking", "--to", best)[0] == 0
    arguments = ("--data", ranked / "images", "--to")
    code, out, err = run("extract", ranked / "ranking", *arguments, once)
    assert code == 0 and out == ""
    name = json.loads((ranked / "ranking" / "ranking.json").read_text())["best"]
    assert f"66 images x 1792 features, {name} read at all: {once}" in err
    assert run("extract", best, *arguments, twice, "-q")[0] == 0
    assert read(once) == read(twice) and set(read(once)["splits"]) == {"train", "validation"}
    extractor = ckptsel.load_extractor(best)
    first = extractor.transform(Image.open(read(once)["names"][0]))
    with torch.inference_mode():
        np.testing.assert_allclose(extractor(first[None])[0], read(once)["features"][0], atol=1e-6)


@pytest.mark.parametrize("kind", ["folder", "image", "list", "parquet"])
def test_images_without_labels(run, ranked: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "loose"
    folder.mkdir()
    for i in range(1 if kind == "image" else 3):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    names = {"folder": "", "image": "0.png", "list": "list.csv", "parquet": "some.parquet"}
    data = folder / names[kind]
    if kind == "list":
        data.write_text("path\n0.png\n1.png\n2.png\n")
    if kind == "parquet":
        cells = [{"bytes": path.read_bytes()} for path in sorted(folder.iterdir())]
        pq.write_table(pa.table({"image": cells, "id": [7, 8, 9]}), data, row_group_size=2)
    to = tmp_path / "features.npz"
    arguments = ("extract", ranked / "ranking", "--data", data, "--to", to, "--predictions", "-q")
    code, _, err = run(*arguments)
    assert code == 0, err
    found = read(to)
    assert "labels" not in found and len(found["predictions"]) == len(found["names"])
    of_file = f"row {{}} of split train of {data}" if kind == "parquet" else f"{folder}/{{}}.png"
    assert found["names"] == [of_file.format(i) for i in range(1 if kind == "image" else 3)]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--to f.txt", 2, "--to is 'f.txt'; it must end in .safetensors, .npz or .parquet."),
        ("--to f.npz --candidate m6", 2, "no checkpoint 'm6' in the ranking; it has m"),
        ("--to f.npz --split test", 3, "has no split 'test'; it has train, validation."),
        ("--to f.npz --data nowhere", 3, "no data at nowhere: no such file or folder"),
        ("--to f.npz --predictions --fit-data other", 3, "name the right ones with --fit-data"),
        ("--to images/f.npz", 3, "cannot write"),
    ],
)
def test_what_is_wrong_is_said(
    run, ranked: Path, tmp_path: Path, options: str, code: int, message: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "other", 4)
    (tmp_path / "images").write_text("no folder")
    arguments = ("extract", ranked / "ranking", "--data", ranked / "images", *options.split(), "-q")
    found, out, err = run(*arguments)
    assert (found, out) == (code, "") and message in err, err
    said = [
        line for line in err.strip().splitlines() if not line.startswith("note: --data is given")
    ]
    assert len(said) == 1 or code == 2
    assert not list(tmp_path.glob("f.*"))


@pytest.mark.parametrize("option", [("--candidate", "m5"), ("--predictions",)])
def test_an_exported_file_is_one_candidate(
    run, ranked: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    best = tmp_path / "best.safetensors"
    arguments = ("extract", best, "--data", ranked / "images", "--to", tmp_path / "f.npz")
    code, _, err = run(*arguments, *option)
    assert (
        code == 2 and f"{option[0]} is for a ranking; an exported network is one candidate" in err
    )


def test_an_image_that_cannot_be_read_is_named(run, ranked: Path, tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "0.png").write_bytes(b"no picture")
    arguments = ("--data", tmp_path / "loose", "--to", tmp_path / "f.npz", "-q")
    code, _, err = run("extract", ranked / "ranking", *arguments)
    assert code == 3 and "loose/0.png (UnidentifiedImageError" in err
    assert "Repair or remove them." in err and "ckptsel rank" not in err
