"""Where a network is read: stages, all of them side by side, and the choice among them."""

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import ckptsel
from ckptsel.confirmation.one_goal import _one_trajectory
from ckptsel.confirmation.race import Race
from ckptsel.errors import UsageError
from ckptsel.features.encoder import LAST
from ckptsel.features.encoders import ImageEncoder, build_image_encoder
from ckptsel.features.layers import (
    ALL,
    MAX_WIDTH,
    choose_layers,
    find_stages,
    scale_of,
    side_by_side,
)
from ckptsel.features.network import input_of_last_linear
from ckptsel.results.confirmation import Standing
from ckptsel.results.ranking import EPOCH
from ckptsel.results.summary import summary
from tests.conftest import TINY_MODEL, save_images
from tests.test_ranking import make_row

TIMM = {
    "resnet18": ["act1", "layer1", "layer2", "layer3", "layer4"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2", "stages.3"],
    "vit_tiny_patch16_224": ["blocks.2", "blocks.5", "blocks.8", "blocks.11"],
    "mobilenetv3_small_100": ["bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5"],
    "efficientnet_b0": ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"],
    "cifar_resnet18_w16_s2": ["act1", "layer1", "layer2", "layer3", "layer4"],
}


class WithAView(nn.Module):
    """A network of one's own, that flattens maps itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True))
        self.third = nn.Sequential(nn.Conv2d(16, 24, 3, 2, padding=1), nn.ReLU(inplace=True))
        self.fc = nn.Linear(24 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.pool(self.second(self.pool(self.first(x)))))
        return self.fc(x.contiguous().view(len(x), -1))


class TokensFirst(nn.Module):
    """A transformer as torch has it by default: (tokens, images, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8) for _ in range(4))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(2, 0, 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(0))


def forward_of(module: nn.Module, size: int) -> Any:
    return lambda: module(torch.zeros(2, 3, size, size))


def test_what_does_not_begin_with_the_images_is_no_stage() -> None:
    module = TokensFirst().eval()
    stages = find_stages(module, forward_of(module, 16))
    assert not any(stage.name.startswith("blocks") for stage in stages)


@pytest.mark.parametrize("name", TIMM)
def test_stages_have_timms_names(name: str) -> None:
    size = 224 if name.startswith("vit") else 64
    module = timm.create_model(name).eval()
    stages = find_stages(module, forward_of(module, size))
    assert [stage.name for stage in stages] == TIMM[name]
    maps = [stage for stage in stages if len(stage.shape) == 3]
    assert all(stage.width <= MAX_WIDTH or stage.grid == 1 for stage in maps)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "layer4"),
        ("vit_b_16", "encoder.layers.encoder_layer_11"),
        ("swin_t", "features.7"),
        ("mobilenet_v3_small", "features.12"),
        ("vgg11", "avgpool"),
    ],
)
def test_stages_of_torchvision_are_found_by_trial(name: str, last: str) -> None:
    module = torchvision.models.get_model(name, weights=None).eval()
    size = 224 if name == "vit_b_16" else 64
    stages = find_stages(module, forward_of(module, size))
    assert stages[-1].name == last and 3 <= len(stages) <= 6
    assert len({stage.resolution for stage in stages}) >= (1 if name == "vit_b_16" else 3)


def encoder_of(name: str) -> ImageEncoder:
    torch.manual_seed(0)
    size = 224 if name.startswith("vit") else 64
    encoder = build_image_encoder(name, image_size=size)
    encoder.to("cpu")
    return encoder


@pytest.mark.parametrize("name", [*TIMM, "torchvision:resnet18", "own"])
def test_features_are_those_of_a_plain_hook(name: str) -> None:
    if name == "own":
        module = WithAView().eval()
        whole = build_image_encoder("resnet18", image_size=32)
        small = dataclasses.replace(whole.preprocessing, input_size=(3, 16, 16))
        encoder = ImageEncoder(
            "own", module, small, "input of fc", ("fc",), read=input_of_last_linear
        )
    else:
        encoder = encoder_of(name)
    size = encoder.preprocessing.input_size[1]
    images = torch.randint(0, 255, (3, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        found = encoder.features(images, encoder.layers)
        alone = encoder.features(images, (LAST,))
    assert torch.equal(found[LAST], alone[LAST]), "to the bit what the last layer alone gives"
    assert len(encoder.stages) >= 3
    for stage in encoder.stages:
        output = plain(encoder, stage.name, images)
        if output.ndim == 4:
            expected = nn.functional.adaptive_avg_pool2d(output, stage.grid).flatten(1)
        else:
            expected = torch.cat([output[:, 0], output[:, 1:].mean(1)], 1)
        assert found[stage.name].shape == (3, stage.width)
        torch.testing.assert_close(found[stage.name], expected, rtol=1e-5, atol=1e-5)


def plain(encoder: ImageEncoder, name: str, images: Tensor) -> Tensor:
    seen = []
    module = encoder.module.get_submodule(name)
    hook = module.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with torch.inference_mode():
        encoder.features(images, (LAST,))
    hook.remove()
    return seen[0]


def test_all_is_every_stage_at_equal_variance() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(3, s, (50, d)).astype(np.float32) for s, d in ((0.01, 4), (7, 30))]
    parts.append(np.full((50, 2), 5, np.float32))  # a stage that says nothing
    fitted = np.arange(40)
    scales = [scale_of(part[fitted]) for part in parts]
    whole = side_by_side([[part[:40], part[40:]] for part in parts], scales)
    np.testing.assert_array_equal(whole, side_by_side([[part] for part in parts], scales))
    widths = np.cumsum([0, 4, 30, 2])
    variances = [whole[fitted, a:b].var(0).sum() for a, b in pairwise(widths)]
    np.testing.assert_allclose(variances, [1, 1, 0], rtol=1e-4, atol=1e-6)


def test_choosing_layers() -> None:
    def known() -> tuple[str, ...]:
        return (LAST, "a", "b")

    def never() -> tuple[str, ...]:
        raise AssertionError

    assert choose_layers(("last",), never) == (LAST,)
    assert choose_layers(("auto",), known) == (LAST, "a", "b", ALL)
    assert choose_layers(("b", "last"), known) == (LAST, "b")
    assert choose_layers(("auto",), lambda: (LAST,)) == (LAST,)
    for asked in (("c",), ("auto", "c")):
        with pytest.raises(UsageError, match=r"no layer 'c'. There are: last, a, b, all\."):
            choose_layers(asked, known)
    with pytest.raises(
        UsageError, match=r"no layer 'all'. There are: last \(the network has no stages"
    ):
        choose_layers(("all",), lambda: (LAST,))


def test_a_module_named_as_a_choice_is_no_stage() -> None:
    module = nn.Sequential()
    module.all = nn.Conv2d(3, 4, 3, 2, 1)
    module.kept = nn.Conv2d(4, 4, 3, 2, 1)
    module.last = nn.Conv2d(4, 4, 3, 1, 1)
    stages = find_stages(module, forward_of(module, 16))
    assert [stage.name for stage in stages] == ["kept"]


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first stages see the colours that the classes differ by, and whose later ones see
    only the noise on them."""
    folder = tmp_path_factory.mktemp("telling")
    (folder / "ckpts").mkdir()
    for epoch in (1, 5):
        torch.manual_seed(epoch)
        weights = timm.create_model(TINY_MODEL).state_dict()
        stem = weights["conv1.weight"]
        stem[:8] = stem[:8].mean((2, 3), keepdim=True)
        stem[8:] -= stem[8:].mean((2, 3), keepdim=True)
        for name in ("layer1.0", "layer1.1"):  # passes on what it gets
            weights[f"{name}.conv2.weight"].zero_()
        for name in ("conv1", "downsample.0"):
            weights[f"layer2.0.{name}.weight"][:, :8] = 0
        facts = {"format": "ckptsel", "arch": TINY_MODEL, "epoch": str(epoch)}
        save_file(weights, folder / "ckpts" / f"m{epoch}.safetensors", facts)
    save_images(folder / "images" / "train", 20)
    save_images(folder / "images" / "val", 40, seed=1)
    return folder


def test_auto_ranks_checkpoints_times_layers(telling: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": False, "workers": 0}
    ranking = ckptsel.rank(telling / "ckpts", telling / "images", layers=("auto",), **options)
    layers = (LAST, "act1", "layer1", "layer2", "layer3", "layer4", ALL)
    assert ranking.layers == layers and len(ranking) == 2 * len(layers)
    assert len(ranking.at_best_layer()) == 2
    assert set(ranking.references) >= {"last", "last_layer", "last_checkpoint"}
    assert ranking.references["last"].name == "m5"
    assert ranking["m5@layer2"].checkpoint == "m5" and ranking["m5@layer2"].layer == "layer2"
    alone = ckptsel.rank(telling / "ckpts", telling / "images", **options)
    for row in alone:
        assert row.scores.items() <= ranking[row.name].scores.items(), "what the last gave alone"
    assert ranking.score == "ridge_probe" and alone.score == "linear_probe"
    elsewhere = [row for row in ranking if row.layer != LAST]
    assert all(row.scores.keys() == {"ridge_probe"} for row in elsewhere)
    note = "linear_probe, linear_probe_loglik and 4 more are computed at the last layer alone"
    assert any(line.startswith(note) for line in ranking.notes)
    behind = ranking.references["last_layer"].ahead
    assert behind is not None and behind.bounds[0] > 0.1
    assert ranking[ranking.best].layer in ("act1", "layer1", ALL)
    text, last = summary(ranking), ranking.references["last_checkpoint"]
    assert f"at the last layer the first is {ranking.references['last_layer'].name}, " in text
    assert last.name == ranking.best or f"the last checkpoint's best is {last.name}, " in text
    best = {row.name: row.scores["ridge_probe"].value for row in ranking}
    assert max(best[row.name] for row in alone) < best[ranking.best] - 0.1, "last does not find it"


def test_the_interval_of_what_the_layer_brings_covers(telling: Path, tmp_path: Path) -> None:
    """The same classifiers on 3,000 images stand for the truth."""

    def ranked(n_per_class: int, seed: int) -> Any:
        target = tmp_path / f"of-seed-{seed}"
        shutil.copytree(telling / "images" / "train", target / "train")
        save_images(target / "val", n_per_class, seed)
        options: dict[str, Any] = {"scores": ("ridge_probe",), "cache": False, "workers": 0}
        return ckptsel.rank(telling / "ckpts", target, layers=("auto",), **options)

    truth = {row.name: row.scores["ridge_probe"].value for row in ranked(1000, 99)}
    covers = []
    for seed in range(200, 206):
        of_few = ranked(40, seed)
        last = of_few.references["last_layer"]
        low, high = last.ahead.bounds
        covers.append(low <= truth[of_few.best] - truth[last.name] <= high)
    assert sum(covers) >= 5


def test_the_layer_is_not_charged_to_the_epoch(telling: Path) -> None:
    """Where the last layer was not read, each reference is still at its own best layer."""
    options: dict[str, Any] = {"cache": False, "workers": 0, "scores": ("ridge_probe",)}
    ranking = ckptsel.rank(
        telling / "ckpts", telling / "images", layers=("layer1", "layer4"), **options
    )
    last = ranking.references["last_checkpoint"]
    assert last.name == "m5@layer1" and "last_layer" not in ranking.references
    expected = "" if ranking.best == last.name else "the last checkpoint's best is m5@layer1, "
    assert expected in summary(ranking) and "the last is " not in summary(ranking)


def test_scores_that_are_named_are_computed_at_each_layer(telling: Path) -> None:
    options: dict[str, Any] = {"cache": False, "workers": 0, "layers": ("last", "layer1")}
    given = (telling / "ckpts", telling / "images")
    named = ckptsel.rank(*given, scores=("logme",), **options)
    assert all(row.scores.keys() == {"ridge_probe", "logme"} for row in named)
    by = ckptsel.rank(*given, by="lda", **options)
    assert by.score == "lda" and by["m1"].scores.keys() > {"lda", "ridge_probe", "main_component"}
    assert by["m1@layer1"].scores.keys() == {"lda", "ridge_probe"}
    for_tuning = ckptsel.rank(*given, goal="ft", **options)
    assert for_tuning.score == EPOCH
    assert for_tuning["m1@layer1"].scores.keys() == {"ridge_probe"}


def test_several_layers_decided_by_the_probe_break_ties_as_one_does(telling: Path) -> None:
    options: dict[str, Any] = {"cache": False, "workers": 0, "by": "linear_probe"}
    ranking = ckptsel.rank(
        telling / "ckpts", telling / "images", layers=("layer1", "layer2"), **options
    )
    wanted = {"linear_probe", "linear_probe_loglik", "ridge_probe"}
    assert all(row.scores.keys() == wanted for row in ranking)
    tied = [row.scores["linear_probe_loglik"].value for row in ranking if row.in_tie_set]
    assert tied == sorted(tied, reverse=True)


def test_the_last_layer_alone_looks_for_no_stages(
    telling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ckptsel.features.encoders.find_stages", never)
    options: dict[str, Any] = {"scores": ("logme",), "cache": False, "workers": 0}
    ranking = ckptsel.rank(telling / "ckpts", telling / "images", **options)
    assert ranking.layers == (LAST,) and "stages" not in ranking.model


def test_inspect_lists_layers(run, telling: Path) -> None:
    code, out, _ = run("inspect", telling / "ckpts", "--layers", "--format", "json")
    table = json.loads(out)
    assert code == 0 and [row["layer"] for row in table] == [*TIMM[TINY_MODEL], LAST, ALL]
    assert table[2] == {"layer": "layer2", "output": [32, 8, 8], "features": 512}
    assert table[-1]["features"] == sum(row["features"] for row in table[:-2])


def test_inspect_wants_layers_for_a_model(run, telling: Path) -> None:
    code, out, err = run("inspect", telling / "ckpts", "--model", "resnet18")
    assert (code, out) == (2, "") and "--model is for --layers." in err


def test_a_layer_that_there_is_not(run, telling: Path) -> None:
    arguments = ("rank", telling / "ckpts", "-d", telling / "images", "--layers", "layer9")
    code, _, err = run(*arguments, "-q")
    assert code == 2 and "no layer 'layer9'. There are: last, act1, layer1" in err


@pytest.fixture
def ranked_layers(run, telling: Path, tmp_path: Path) -> Path:
    """The folder of a ranking at two layers, of which the last says nothing."""
    out = tmp_path / "ranking"
    rank = ("rank", telling / "ckpts", "-d", telling / "images", "--scores", "linear_probe")
    code, table, _ = run(*rank, "--layers", "last,layer1", "--out", out, "-q")
    assert code == 0 and "layer" in table.splitlines()[0]
    return out


def test_the_report_and_pick_name_the_layer(run, ranked_layers: Path) -> None:
    assert "Where to read" in (ranked_layers / "report.html").read_text()
    code, _, err = run("pick", ranked_layers)
    assert code == 0 and "read it at layer1, not at its last layer" in err


def test_confirm_trains_on_features_where_they_are_read(run, ranked_layers: Path) -> None:
    options = ("--steps", 30, "--seeds", 2, "--full", "-q")
    code, out, err = run("confirm", ranked_layers, "--goal", "both", *options)
    assert code == 0, err
    value = json.loads((ranked_layers / "confirm.json").read_text())
    fe, ft = value["goals"]["fe"], value["goals"]["ft"]
    accuracy = {s["name"]: s["accuracy"]["value"] for s in fe["standings"]}
    assert accuracy.keys() == {"m1", "m1@layer1", "m5", "m5@layer1"}
    at_stage = min(accuracy["m1@layer1"], accuracy["m5@layer1"])
    assert at_stage > 0.1 + max(accuracy["m1"], accuracy["m5"])
    assert fe["own_rates"]["m1"] == fe["own_rates"]["m5"] != fe["own_rates"]["m1@layer1"]
    assert {s["name"] for s in ft["standings"]} == {"m1", "m5"}, "no layer is read"
    assert not ft["flags"] and not ft["own_rates"]
    assert "learning rates for fe: m" in out
    after = json.loads((ranked_layers / "ranking.json").read_text())
    assert after["best"] == fe["winner"] and after["best"].endswith("@layer1")
    assert after["references"]["last_checkpoint"]["name"] == "m5@layer1"
    assert after["references"]["last_layer"]["name"] in ("m1", "m5")
    assert run("report", ranked_layers)[0] == 0


def test_fine_tuning_is_the_same_wherever_a_checkpoint_is_read(
    run, telling: Path, ranked_layers: Path, tmp_path: Path
) -> None:
    last = tmp_path / "last"
    rank = ("rank", telling / "ckpts", "-d", telling / "images", "--scores", "linear_probe")
    assert run(*rank, "--out", last, "-q")[0] == 0
    curves = []
    for folder in (ranked_layers, last):
        options = ("--goal", "ft", "--steps", 8, "--seeds", 1, "--lr", "0.1", "--full", "-q")
        assert run("confirm", folder, *options, "--no-cache")[0] == 0
        runs = json.loads((folder / "confirm.json").read_text())["goals"]["ft"]["runs"]
        curves.append({run["checkpoint"].partition("@")[0]: run["points"] for run in runs})
    assert curves[0] == curves[1] and curves[0].keys() == {"m1", "m5"}


def test_after_fine_tuning_the_last_checkpoint_is_the_one_that_raced(
    run, ranked_layers: Path
) -> None:
    options = ("--goal", "ft", "--steps", 8, "--seeds", 2, "--lr", "0.1", "--full", "-q")
    code, out, _ = run("confirm", ranked_layers, *options)
    assert code == 0 and "it did not race" not in out
    value = json.loads((ranked_layers / "ranking.json").read_text())
    last = value["references"]["last"]
    assert last["name"] == "m5" and last["ahead"]["by"] == "confirmed"
    assert "last_layer" not in value["references"] and "@" not in value["best"]
    assert "read it at" not in run("pick", ranked_layers)[2]


def test_agreement_is_measured_along_the_epochs_of_one_layer() -> None:
    rows = [
        make_row(f"m{i}@{layer}", i, layer=layer)
        for i in range(3)
        for layer in ("layer1", "layer2")
    ]
    standings = tuple(
        Standing(row.name, "won" if row.name == "m1@layer2" else "behind") for row in rows
    )
    ended = Race(standings, {}, 1, 1)
    assert [row.name for row in _one_trajectory(rows, "fe", ended)] == [
        "m0@layer2",
        "m1@layer2",
        "m2@layer2",
    ]
    assert _one_trajectory(rows, "ft", ended) == rows


def test_a_ranking_at_one_stage_alone_is_confirmed(run, telling: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranking"
    rank = ("rank", telling / "ckpts", "-d", telling / "images", "--scores", "linear_probe")
    assert run(*rank, "--layers", "all", "--out", out, "-q")[0] == 0
    options = ("--steps", 9, "--seeds", 1, "--lr", "0.1", "-q")
    code, text, err = run("confirm", out, *options)
    assert code == 0, err
    assert "confirmed for fe: m" in text
