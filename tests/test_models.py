"""Strict loading, prefixes, and which activations are the features."""

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from ckptsel.errors import CheckpointError, FeatureError, ModelError
from ckptsel.features.encoders import ImageEncoder, build_image_encoder
from tests.conftest import TINY_MODEL


@pytest.fixture
def backbone() -> ImageEncoder:
    return build_image_encoder(TINY_MODEL)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(timm.create_model(TINY_MODEL, num_classes=7).state_dict())


def test_weights_arrive_and_the_head_may_differ(backbone: ImageEncoder, state: dict) -> None:
    assert backbone.load(state) == ""
    loaded = backbone.module.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    del state["fc.weight"], state["fc.bias"]
    assert backbone.load(state) == ""


@pytest.mark.parametrize("prefix", ["model.", "module.backbone.", "net._orig_mod.encoder."])
def test_prefixes_are_found(backbone: ImageEncoder, state: dict, prefix: str) -> None:
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    prefixed["projection_head.0.weight"] = torch.zeros(3)
    assert backbone.load(prefixed) == prefix


def test_of_student_and_teacher_the_teacher_is_taken(backbone: ImageEncoder, state: dict) -> None:
    both = {f"student_backbone.{n}": t + 1 for n, t in state.items()}
    both |= {f"teacher_backbone.{n}": t for n, t in state.items()}
    assert backbone.load(both) == "teacher_backbone."
    assert torch.equal(backbone.module.state_dict()["bn1.bias"], state["bn1.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.0.bn1.weight"), r"missing: layer2\.0\.bn1\.weight\. Name the"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(8, 16, 3, 3)}),
            r"layer1\.0\.conv1\.weight is 8x16x3x3, expected 16x16x3x3",
        ),
        (
            lambda s: s.update({"layer1.2.conv1.weight": torch.zeros(16, 16, 3, 3)}),
            r"no place for: layer1\.2\.conv1\.weight",
        ),
        (lambda s: s.clear(), r"missing: conv1\.weight, bn1\.weight, .* and \d+ more"),
    ],
)
def test_what_does_not_fit_is_named(
    backbone: ImageEncoder, state: dict, change, message: str
) -> None:
    change(state)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        backbone.load(state)
    after = backbone.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batch_counters_may_be_missing(backbone: ImageEncoder, state: dict) -> None:
    backbone.load({n: t for n, t in state.items() if "num_batches" not in n})


def test_a_stem_for_small_images_gets_a_hint(state: dict) -> None:
    with pytest.raises(CheckpointError, match=r"first convolution is 3x3 \(the model's: 7x7\)"):
        build_image_encoder("resnet18").load(state)


def test_vit_with_chunked_blocks_and_decoder_left_overs() -> None:
    name = "test_vit"
    state = timm.create_model(name).state_dict()
    chunked = {n.replace("blocks.", "blocks.0."): t for n, t in state.items()}
    chunked["decoder_embed.weight"] = chunked["mask_token"] = torch.zeros(2)
    prefixed = {f"backbone.{n}": t for n, t in chunked.items()}
    assert build_image_encoder(name).load(prefixed) == "backbone."


def test_blocks_of_other_networks_are_not_taken_for_chunks() -> None:
    state = timm.create_model("test_efficientnet").state_dict()
    prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
    assert build_image_encoder("test_efficientnet").load(prefixed) == "model."


def test_a_norm_within_the_head_belongs_to_the_backbone() -> None:
    state = timm.create_model("test_convnext", num_classes=5).state_dict()
    backbone = build_image_encoder("test_convnext")
    backbone.load({n: t for n, t in state.items() if not n.startswith("head.fc.")})
    del state["head.norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing: head\.norm\.weight"):
        backbone.load(state)


def test_the_prefix_is_named_where_weights_do_not_fit(backbone: ImageEncoder, state: dict) -> None:
    del state["conv1.weight"]
    prefixed = {f"backbone.{name}": tensor for name, tensor in state.items()}
    with pytest.raises(CheckpointError, match=r"below prefix 'backbone\.'; missing: conv1\.weight"):
        backbone.load(prefixed)


def test_half_precision_weights_are_loaded_as_single(backbone: ImageEncoder, state: dict) -> None:
    backbone.load({n: t.half() if t.ndim else t for n, t in state.items()})
    loaded = backbone.module.state_dict()["conv1.weight"]
    assert torch.equal(loaded, state["conv1.weight"].half().float())


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "deit_tiny_patch16_224"])
def test_the_image_size_can_be_chosen(name: str) -> None:
    backbone = build_image_encoder(name, image_size=96)
    assert backbone.preprocessing.input_size == (3, 96, 96)
    assert backbone.penultimate(torch.zeros(1, 3, 96, 96)).shape[0] == 1


def test_mean_and_std_need_one_number_or_one_a_channel() -> None:
    backbone = build_image_encoder(TINY_MODEL, mean=(0.1, 0.2, 0.3), std=(0.5,))
    assert backbone.preprocessing.mean == (0.1, 0.2, 0.3)
    assert backbone.preprocessing.std == (0.5, 0.5, 0.5)
    with pytest.raises(ModelError, match="--std has 2 numbers; the model has 3 channels"):
        build_image_encoder(TINY_MODEL, std=(0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "options", "crop_pct", "interpolation"),
    [
        (TINY_MODEL, {}, 1.0, "bilinear"),
        ("resnet18", {}, 0.95, "bicubic"),
        ("resnet18", {"crop_pct": 1.0, "interpolation": "box"}, 1.0, "box"),
        ("my_nets:make_net", {}, 1.0, "bicubic"),
        ("my_nets:make_net", {"crop_pct": 0.5}, 0.5, "bicubic"),
        ("my_nets:make_timm", {}, 0.95, "bicubic"),
    ],
)
def test_the_crop_is_the_models_own_or_as_asked(
    plain_module: str, name: str, options: dict, crop_pct: float, interpolation: str
) -> None:
    """A module without a configuration is not cropped; one that has timm's is as timm does."""
    found = build_image_encoder(name, image_size=32, typed=True, **options).preprocessing
    assert (found.crop_pct, found.interpolation) == (crop_pct, interpolation)


def test_a_crop_is_recorded_and_confirmed_with(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = ("--crop-pct", 0.5, "--interpolation", "nearest")
    options = ("-d", images, "-q", "--scores", "linear_probe")
    _, plain, _ = run("rank", trajectory, *options)
    code, text, _ = run("rank", trajectory, *options, *asked, "-o", out)
    assert code == 0 and text != plain
    recorded = json.loads((out / "ranking.json").read_text())
    used = recorded["model"]["preprocessing"]
    assert (used["crop_pct"], used["interpolation"]) == (0.5, "nearest")
    assert run("pick", out, "--to", tmp_path / "best.safetensors")[0] == 0
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert "--crop-pct 0.5 --interpolation nearest" in file.metadata()["command"]
    # Any other preprocessing would need the images once more.
    monkeypatch.setattr("ckptsel.ranking.workspace.prepare_all", None)
    confirm = ("confirm", out, "--steps", 5, "--seeds", 1, "--lr", "0.1", "-q")
    assert run(*confirm)[0] == 0


def test_an_older_ranking_is_confirmed_with_the_crop_that_it_had(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    options = ("-d", images, "-q", "--scores", "linear_probe", "--crop-pct", 0.5)
    run("rank", trajectory, *options, "--duplicates", "keep", "-o", out)
    ranking = json.loads((out / "ranking.json").read_text())
    for name in ("crop_pct", "interpolation", "duplicates"):
        del ranking["settings"][name]
    (out / "ranking.json").write_text(json.dumps(ranking))
    monkeypatch.setattr("ckptsel.ranking.workspace.prepare_all", None)
    assert run("confirm", out, "--steps", 5, "--seeds", 1, "--lr", "0.1", "-q")[0] == 0


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_features_equal_the_input_of_the_classifier(name: str) -> None:
    whole = timm.create_model(name, num_classes=5).eval()
    backbone = build_image_encoder(name)
    backbone.load(whole.state_dict())
    images = torch.randn(2, 3, *backbone.preprocessing.input_size[1:])
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        logits = whole.get_classifier()(backbone.penultimate(images))
        torch.testing.assert_close(logits, whole(images))
    assert torch.equal(backbone.penultimate(images), expected)


def test_timm_features_are_the_pre_logits(backbone: ImageEncoder) -> None:
    images = torch.randn(3, 3, 32, 32)
    module = backbone.module
    with torch.no_grad():
        maps = module.forward_features(images)
    assert torch.equal(backbone.penultimate(images), maps.mean((2, 3)))
    assert backbone.position == "pre-logits (pool avg)"


def test_buffers_do_not_change_and_the_model_stays_in_eval(backbone: ImageEncoder) -> None:
    before = {name: buffer.clone() for name, buffer in backbone.module.named_buffers()}
    backbone.penultimate(torch.randn(4, 3, 32, 32))
    assert not backbone.module.training
    assert all(torch.equal(b, before[name]) for name, b in backbone.module.named_buffers())


PLAIN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(5, 2)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.body(x[:, :, :2, :2]))

make_net = Net
number = int

def make_timm():
    import timm

    return timm.create_model("resnet18")
"""


@pytest.fixture
def plain_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_nets.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return "my_nets:make_net"


def test_any_module_gives_the_input_of_its_last_linear_layer(plain_module: str) -> None:
    backbone = build_image_encoder(plain_module, image_size=8, mean=(0.5,), std=(0.5,), typed=True)
    images = torch.randn(4, 3, 8, 8)
    assert backbone.position == "input of classifier"
    assert torch.equal(backbone.penultimate(images), backbone.module.body(images[:, :, :2, :2]))
    assert backbone.preprocessing.input_size == (3, 8, 8)
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    state = backbone.module.state_dict()
    del state["classifier.weight"]
    assert backbone.load(state) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", r"unknown model 'resnet5O'.*Did you mean resnet50"),
        ("no_such_package:make", r"cannot import 'no_such_package'"),
        ("my_nets:make_nett", r"no function 'make_nett'\. Did you mean make_net"),
        ("my_nets:number", r"returned a int, not a torch\.nn\.Module"),
    ],
)
def test_unknown_models(plain_module: str, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_image_encoder(name, typed=True)


def test_features_that_are_not_pooled_are_refused(backbone: ImageEncoder) -> None:
    backbone.module.global_pool = nn.Identity()
    with pytest.raises(FeatureError, match=r"has shape \(2, 128, 2, 2\), not \(images, features\)"):
        backbone.penultimate(torch.randn(2, 3, 32, 32))


def test_pooling_is_chosen_and_recorded() -> None:
    assert build_image_encoder("test_vit", pool="avg").position == "pre-logits (pool avg)"
    assert build_image_encoder("test_vit").position == "pre-logits (pool token)"
