"""A reproduction in seconds: what the run folder holds, that it goes on, and that it can be verified."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import DataError, InputError, UsageError
from ckptsel.reproduce.clusters import neighbour_purity
from ckptsel.reproduce.readings import _parts, main_component, read_components
from ckptsel.reproduce.recipes import early_dense_epochs
from ckptsel.reproduce.registry import find_recipe, list_recipes
from ckptsel.reproduce.results import load_results
from ckptsel.reproduce.run import (
    _checkpoints_for,
    check_data,
    choose_targets,
    digests,
    write_target,
)
from ckptsel.settings.engine import Where
from ckptsel.settings.rank import RankSettings
from ckptsel.target.images import ImageSet
from ckptsel.target.sources import open_source
from ckptsel.target.splits import balanced_sample, plan_validation
from tests.conftest import make_data, make_imagenet

SMOKE = find_recipe("cifar10-mnist", "smoke")

LAYER_CHANGED = "0,before,mnist-50,1,act1,all,9,0.123"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root / "cifar10", "train", 220, "RGB")
    make_data(root / "cifar10", "test", 40, "RGB")
    make_data(root / "mnist", "train", 120, "L")
    make_imagenet(root / "imagenet")
    return root


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe, run at the command line's door."""
    from ckptsel.reproduce.run import run_recipe

    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKPTSEL_CACHE", str(folder.parent / "cache"))
        run_recipe(SMOKE, folder, data_root, seeds=(0,), where=Where("cpu"), quiet=True)
    return folder


@pytest.mark.slow
def test_two_processes_measure_what_one_does(
    finished: Path, data_root: Path, tmp_path: Path
) -> None:
    from ckptsel.reproduce.run import run_recipe

    run_recipe(SMOKE, tmp_path / "run", data_root, (0,), Where("cpu", processes=2), quiet=True)
    for path in (finished / "raw").iterdir():
        if path.name != "source.csv":  # which has seconds
            there = tmp_path / "run" / "raw" / path.name
            assert there.read_bytes() == path.read_bytes(), path.name


def test_a_run_folder_holds_everything(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    figures = (
        "fig1-transfer",
        "fig3-tsne",
        "fig4-components",
        "fig5-logme",
        "layers",
        "readings",
        "spectrum",
    )
    expected = {
        "manifest.json",
        "claims.json",
        "claims.md",
        "layers.md",
        "seed0/log.csv",
        "seed0/checkpoints/checkpoint-001.safetensors",
        "seed0/other-checkpoints/checkpoint-002.safetensors",
        "seed0/mnist-50/ranking.json",
        "seed0/mnist-50/confirm.json",
        "targets/mnist-50/train-00000-of-00001.parquet",
        "raw/predictions.safetensors",
        *(f"figures/{name}.{suffix}" for name in figures for suffix in ("svg", "png")),
    }
    assert expected <= names
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["recipe"]["preset"] == "smoke"
    assert manifest["seeds"] == [0]
    assert "seed0/checkpoints/checkpoint-001.safetensors" in manifest["sha256"]
    assert not any("other-checkpoints" in name for name in manifest["sha256"])


def test_checkpoints_carry_epoch_and_source_accuracy(finished: Path) -> None:
    with safe_open(finished / "seed0/checkpoints/checkpoint-003.safetensors", "pt") as file:
        metadata = file.metadata()
    log = list(csv.DictReader((finished / "seed0/log.csv").open()))
    assert metadata["arch"] == "cifar_resnet18_w16_s2"
    assert metadata["epoch"] == "3"
    assert metadata["source_accuracy"] == log[2]["source_accuracy"]
    assert [row["lr"] for row in log] == ["0.05", "0.05", "0.005"]


def test_the_target_is_balanced_and_its_splits_do_not_overlap(finished: Path) -> None:
    source = open_source(str(finished / "targets/mnist-50"))
    train, validation = source.read("train"), source.read("validation")
    assert np.bincount(train.labels).tolist() == [5] * 10
    assert np.bincount(validation.labels).tolist() == [5] * 10
    pixels = [
        np.asarray(images.open_image(i)).tobytes()
        for images in (train, validation)
        for i in range(50)
    ]
    assert len(set(pixels)) == 100


def test_raw_numbers_have_a_row_for_every_checkpoint_and_seed(finished: Path) -> None:
    results = load_results(finished)
    runs = [(r["goal"], r["epoch"], r["transfer_seed"]) for r in results.tables["transfers"]]
    assert runs == [(g, e, s) for g in ("fe", "ft") for e in (1, 3) for s in (0, 1)]
    for row in results.tables["transfers"]:
        correct = results.correct(f"mnist-50/seed0/{row['goal']}/{row['epoch']:03d}")
        assert correct[row["transfer_seed"]].mean() == pytest.approx(row["accuracy"], abs=1e-6)
    # Before: 2 checkpoints; after: the last and 2 seeds; each 2 probes of F and 3 readings of 2.
    assert len(results.tables["components"]) == (2 + 2) * 2 * (1 + 3 * 2)
    # 2 checkpoints, 6 layers, F and F_m and F_r.
    assert len(results.tables["layers"]) == 2 * 6 * 3
    at_last = results.rows("layers", layer="last", component="residual", epoch=3)[0]["accuracy"]
    (score,) = results.rows("scores", score="residual_component", epoch=3)
    assert at_last == score["value"]
    (tsne, *_) = results.rows("clusters", space="tsne", stage="before")
    points = results.rows("embedding", stage="before", epoch=tsne["epoch"])
    purity = neighbour_purity(
        np.array([[row["x"], row["y"]] for row in points]),
        np.array([row["label"] for row in points]),
    )
    assert purity.mean() == pytest.approx(tsne["knn_purity"], abs=0.02)


def test_the_claims_are_beside_the_papers_and_say_why_not(finished: Path) -> None:
    claims = {c["name"]: c for c in json.loads((finished / "claims.json").read_text())["claims"]}
    assert claims["source-accuracy"]["verdict"] == "fails"
    assert claims["fe-falls"]["paper"] == "96.47 %, 88.47 %: -8.00 points"
    assert claims["fe-falls"]["ours"][0]["interval"]["low"] < 0.5
    assert claims["ft-grows"]["verdict"] == "not tested"
    table = (finished / "claims.md").read_text()
    assert "| Table 1 | mnist-50 |" in table
    assert "**not tested**" in table


def test_verify_finds_a_whole_run_right(finished: Path, run, monkeypatch) -> None:
    monkeypatch.setenv("CKPTSEL_CACHE", str(finished.parent / "cache"))
    code, out, err = run("reproduce", "verify", finished, "--quiet")
    assert (code, err) == (0, "")
    assert "files are as the manifest names them" in out
    assert "claims follow from the raw numbers" in out
    assert "12 scores follow from 2 checkpoints" in out


def test_verify_names_what_was_changed(finished: Path, tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setenv("CKPTSEL_CACHE", str(finished.parent / "cache"))
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    scores = (copy / "raw/scores.csv").read_text().splitlines()
    fields = scores[1].split(",")
    fields[5] = "0.987"
    (copy / "raw/scores.csv").write_text("\n".join([scores[0], ",".join(fields), *scores[2:]]))
    layers = (copy / "raw/layers.csv").read_text()
    (copy / "raw/layers.csv").write_text(layers.replace(layers.splitlines()[1], LAYER_CHANGED))
    (copy / "layers.md").write_text("F_r rises.")
    claims = (copy / "claims.json").read_text().replace('"fails"', '"holds"')
    (copy / "claims.json").write_text(claims)
    code, out, err = run("reproduce", "verify", copy, "--quiet")
    assert (code, out) == (3, "")
    assert "raw/scores.csv has changed since the manifest was written" in err
    assert "claim source-accuracy (source): claims.json has source-accuracy: holds" in err
    assert "layers.csv has 0.123 for all of act1, epoch 1; the predictions give" in err
    assert "layers.md is not what the raw numbers give" in err
    assert "linear_probe of epoch 1 on mnist-50: scores.csv has 0.987, the checkpoint gives" in err


def test_verify_of_another_folder_says_so(tmp_path: Path, run) -> None:
    code, _, err = run("reproduce", "verify", tmp_path)
    assert code == 3
    assert "is no run folder of `ckptsel reproduce`" in err
    assert run("reproduce", "verify")[0] == 2


@pytest.mark.parametrize("what", [("verify", "run"), ("cifar10-mnist", "--preset", "smoke")])
def test_without_the_extra_it_is_named_before_anything_else(
    what: tuple[str, ...], run, monkeypatch
) -> None:
    monkeypatch.setattr("ckptsel.reproduce.run.find_spec", lambda name: None)
    code, out, err = run("reproduce", *what)
    assert (code, out) == (2, "")
    assert "matplotlib and sklearn not installed" in err
    assert "pip install 'ckptsel[reproduce]'" in err


def test_a_finished_run_is_not_trained_again(
    data_root: Path, finished: Path, tmp_path: Path, run, monkeypatch
) -> None:
    """Trainings and scores are read back; what is computed from them is the same."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    monkeypatch.setenv("CKPTSEL_CACHE", str(finished.parent / "cache"))
    monkeypatch.setattr("ckptsel.training.loop.Training.run", None)
    # The probes of components are trained too, and not kept.
    monkeypatch.setattr("ckptsel.reproduce.readings.PROBES", ())
    monkeypatch.setattr("ckptsel.reproduce.figures.FIGURES", {})
    recipe = ("cifar10-mnist", "--preset", "smoke", "--data-root", data_root, "--out", copy)
    code, out, _ = run("reproduce", *recipe, "--quiet")
    assert code == 0
    assert "| Fig. 1 | mnist-50 |" in out
    for name in ("transfers", "scores", "layers", "spectra", "clusters"):
        assert (copy / f"raw/{name}.csv").read_bytes() == (
            finished / f"raw/{name}.csv"
        ).read_bytes()


def test_the_imagenet_recipe_runs_on_a_folder_of_its_layout(
    data_root: Path, tmp_path: Path, run
) -> None:
    recipe = ("imagenet", "--preset", "smoke", "--data-root", data_root, "--out", tmp_path / "run")
    code, out, err = run("reproduce", *recipe)
    assert code == 0
    assert "pre-train resnet10t 2/2" in err
    assert "| Fig. 2 | shenzhen | FE is best at a middle epoch" in out
    results = load_results(tmp_path / "run")
    assert {row["target"] for row in results.tables["transfers"]} == {"cifar10-50"}
    ranking = json.loads((tmp_path / "run/seed0/cifar10-50/ranking.json").read_text())
    assert ranking["model"]["preprocessing"]["input_size"] == [3, 32, 32]


@pytest.mark.slow
def test_pretraining_without_labels_stands_beside_pretraining_with_them(
    data_root: Path, finished: Path, tmp_path: Path, run, monkeypatch
) -> None:
    monkeypatch.setenv("CKPTSEL_CACHE", str(finished.parent / "cache"))
    folder = tmp_path / "ssl"
    recipe = ("cifar10-ssl", "--preset", "smoke", "--data-root", data_root, "--out", folder)
    code, out, err = run("reproduce", *recipe, "--beside", finished)
    assert code == 0, err
    assert f"| verdict | verdict of {finished.name} |" in out.splitlines()[0]
    (fe_falls,) = [line for line in out.splitlines() if "FE is worse at the last epoch" in line]
    assert "asks whether it is so without" in fe_falls
    assert fe_falls.split(" | ")[-1] in ("holds |", "fails |", "undecided |")
    (rankme,) = [line for line in out.splitlines() if "(rankme) go with better FT" in line][:1]
    assert "no claim of the paper" in rankme and rankme.endswith("| none |")
    results = load_results(folder)
    assert {"rankme", "alpha_req", "linear_probe"} <= set(results.values("scores", "score"))
    assert len(results.tables["layers"]) == 2 * 6 * 3
    assert {row["goal"] for row in results.tables["transfers"]} == {"fe", "ft"}
    assert (folder / "figures/layers.svg").is_file()
    code, out, _ = run("reproduce", "verify", folder, "--quiet")
    assert (code, out.splitlines()[-1]) == (0, "16 scores follow from 2 checkpoints")


def test_a_run_to_stand_beside_must_have_verdicts(data_root: Path, tmp_path: Path, run) -> None:
    recipe = ("cifar10-ssl", "--preset", "smoke", "--data-root", data_root, "--out", tmp_path)
    code, _, err = run("reproduce", *recipe, "--beside", tmp_path / "none")
    assert code == 3
    assert "has no verdicts to stand beside" in err
    assert not (tmp_path / "seed0").exists()


def test_the_papers_target_has_as_many_images_of_each_class(
    data_root: Path, tmp_path: Path
) -> None:
    target = dataclasses.replace(SMOKE.targets[0], n_train=31, n_validation=20, balanced=True)
    write_target(target, tmp_path, data_root)
    source = open_source(str(tmp_path))
    assert np.bincount(source.read("train").labels).tolist() == [4] + [3] * 9
    assert np.bincount(source.read("validation").labels).tolist() == [2] * 10
    assert find_recipe("cifar10-mnist", "paper").targets[1].balanced
    with pytest.raises(ValueError, match="a class has 3 images, fewer than the 4 wanted"):
        balanced_sample(np.arange(30) % 10, 31, 0)


def test_a_target_may_be_drawn_from_the_test_images_as_negatives(
    data_root: Path, tmp_path: Path
) -> None:
    target = dataclasses.replace(
        SMOKE.targets[0],
        data="cifar10",
        n_train=10,
        n_validation=10,
        drawn_from="test",
        inverted=True,
    )
    write_target(target, tmp_path, data_root)
    drawn, of = open_source(str(tmp_path)), open_source(str(data_root / "cifar10"))

    def pixels(images: ImageSet) -> dict[bytes, int]:
        opened = (np.asarray(images.open_image(i)) for i in range(len(images)))
        return {p.tobytes(): label for p, label in zip(opened, images.labels.tolist(), strict=True)}

    tested = pixels(of.read("test"))
    for split in ("train", "validation"):
        for image, label in pixels(drawn.read(split)).items():
            assert tested[bytes(255 - value for value in image)] == label


def test_a_target_may_want_some_checkpoints_only(finished: Path, tmp_path: Path) -> None:
    target = dataclasses.replace(SMOKE.targets[0], only_epochs=(3,))
    shutil.copytree(finished / "seed0", tmp_path / "seed0")
    folder = _checkpoints_for(target, tmp_path / "seed0")
    assert [c.epoch for c in scan_checkpoints(folder)] == [3]
    assert _checkpoints_for(SMOKE.targets[0], tmp_path / "seed0") == tmp_path / "seed0/checkpoints"
    assert not any("chosen" in name for name in digests(tmp_path))


def test_missing_data_is_named_before_anything_is_computed(tmp_path: Path, run) -> None:
    code, _, err = run("reproduce", "imagenet", "--preset", "paper", "--data-root", tmp_path)
    assert code == 3
    assert "10 of 10 data sets of the recipe are not there" in err
    assert "source imagenet: no data at" in err
    assert "CUB_200_2011.tgz from www.vision.caltech.edu" in err
    assert f"put it at {tmp_path / 'CUB_200_2011'}" in err
    assert "leave targets out with --targets" in err


def test_targets_can_be_left_out(data_root: Path) -> None:
    recipe = find_recipe("cifar10-mnist", "small")
    with pytest.raises(DataError, match=r"(?s)1 of 3 data sets .* target cifar100-2000"):
        check_data(recipe, data_root)
    check_data(choose_targets(recipe, ["mnist-1000"]), data_root)
    with pytest.raises(UsageError, match=r"no target 'mnist'. Known: mnist-1000"):
        choose_targets(recipe, ["mnist"])


def test_recipes_are_listed_with_their_presets(run) -> None:
    code, out, _ = run("reproduce", "--list")
    assert code == 0
    for name in ("cifar10-mnist", "cifar10-ssl", "imagenet"):
        for preset in ("paper", "small", "smoke"):
            assert f"{name} --preset {preset}: " in out
    assert run("reproduce", "cifar10-mnist", "--seeds", "0")[0] == 2


def test_the_paper_presets_are_the_papers() -> None:
    recipes = {(r.name, r.preset): r for r in list_recipes()}
    cifar = recipes["cifar10-mnist", "paper"].pretraining
    assert (cifar.model, cifar.epochs, cifar.n_images) == ("cifar_resnet18", 200, None)
    imagenet = recipes["imagenet", "paper"]
    p = imagenet.pretraining
    assert (p.model, p.epochs, p.lr, p.milestones, p.weight_decay) == (
        "resnet50",
        90,
        0.1,
        (30, 60),
        1e-4,
    )
    without = recipes["cifar10-ssl", "paper"].pretraining
    for name in ("model", "epochs", "n_images", "weight_decay", "checkpoint_epochs"):
        assert getattr(without, name) == getattr(cifar, name)
    assert len(imagenet.targets) == 9
    assert len({target.name for target in imagenet.targets}) == 9


def test_early_epochs_are_dense() -> None:
    assert early_dense_epochs(120) == (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 100, 120)
    assert early_dense_epochs(12) == (1, 2, 3, 5, 7, 10, 12)


def test_readings_take_each_part_in_its_own_basis() -> None:
    import torch

    random = np.random.default_rng(0)
    features = torch.from_numpy(random.standard_normal((300, 6)) * [9, 5, 2, 1, 1, 1])
    fitted, held = np.arange(200), np.arange(200, 300)

    def by_svd(basis: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        _, s, v = torch.linalg.svd(basis, full_matrices=False)
        k = int((s.cumsum(0) / s.sum() < 0.8).sum()) + 1
        return rows @ v[:k].T @ v[:k]

    expected = {
        "own": torch.cat([by_svd(features[:200], features[:200]), by_svd(*[features[200:]] * 2)]),
    }
    for reading, main in expected.items():
        assert torch.allclose(main_component(features, _parts(reading, fitted, held))[0], main)
    batches = _parts("batch", fitted, held)
    assert [len(basis) for basis, _ in batches] == [200, 100]
    assert sorted(np.concatenate([rows for _, rows in batches])) == list(range(300))


def test_readings_of_the_training_basis_are_the_scores_of_rank() -> None:
    from ckptsel.scores import ScoreInputs

    random = np.random.default_rng(1)
    labels = np.arange(120) % 3
    features = random.standard_normal((120, 8)).astype(np.float32)
    features[:, 0] += 2 * labels
    plan = plan_validation(80, 40)
    rows = {
        (row["reading"], row["probe"], row["component"]): row["accuracy"]
        for row, _ in read_components(features, labels, plan)
    }
    inputs = ScoreInputs(features, labels, plan)
    for component, view in (("main", "main"), ("residual", "residual")):
        predicted = inputs.held_out(view).predictions[0]
        assert rows["train", "logistic", component] == (predicted == labels[80:]).mean()
    assert len(rows) == 2 * 7


def test_a_run_folder_of_another_recipe_is_not_continued(data_root: Path, finished: Path) -> None:
    from ckptsel.reproduce.pretrain import pretrain

    other = dataclasses.replace(SMOKE.pretraining, lr=0.01)
    with pytest.raises(InputError, match="belongs to another recipe or seed"):
        pretrain(other, finished / "seed0", data_root, quiet=True)


@pytest.mark.parametrize(
    ("options", "where", "in_rankings"),
    [
        ((), Where(), Where("cpu")),
        (("--device", "cpu", "--processes", "2"), Where("cpu", processes=2), None),
        (("--devices", "cpu,cpu"), Where(devices=("cpu", "cpu")), None),
        (
            ("--engine", "ray", "--ray-address", "a:1"),
            Where(engine="ray", ray_address="a:1"),
            None,
        ),
    ],
)
def test_checkpoints_are_scored_and_transferred_where_options_say(
    monkeypatch, run, options: tuple[str, ...], where: Where, in_rankings: Where | None
) -> None:
    told = []
    monkeypatch.setattr("ckptsel.reproduce.run.run_recipe", lambda *given: told.append(given[4]))
    assert run("reproduce", "cifar10-mnist", "--preset", "smoke", *options)[0] == 0
    assert told == [where]
    assert where.on("cpu") == (in_rankings or where)
    settings = RankSettings(**where.settings())
    assert Where.of(settings) == where


def test_two_options_that_say_where_are_refused(run) -> None:
    code, _, error = run("reproduce", "cifar10-mnist", "--device", "cpu", "--devices", "cpu,cpu")
    assert code == 2 and "--devices and --device both say where" in error
