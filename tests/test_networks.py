"""The right network with the right inputs, for what trainers write; plain words where it cannot be had.

Files are small twins of what trainers save. Those of the real libraries: tests/test_trainers.py.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import ckptsel
from ckptsel.checkpoints.guard import DEFAULT
from ckptsel.checkpoints.network_inputs import recorded
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import FeatureError, ModelError, UsageError
from ckptsel.features import hugging_face
from ckptsel.features.encoders import ImageEncoder, build_image_encoder
from ckptsel.features.inputs import Inputs
from ckptsel.features.names import told_by_tensors
from ckptsel.features.network import Recorded, recorded_in, skeleton
from ckptsel.features.own_code import LIBRARIES
from ckptsel.ranking.audit import audit
from ckptsel.ranking.workspace import open_workspace
from ckptsel.settings.kinds import LIBRARIES as KINDS
from ckptsel.settings.rank import RankSettings
from tests.conftest import TINY_MODEL

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def encoder_for(path: Path, images: Path, **options: Any) -> ImageEncoder:
    """The encoder that `rank` builds for a folder, with the weights of its first checkpoint."""
    found = scan_checkpoints(path)
    settings = RankSettings(cache=False, **options)
    workspace = open_workspace(settings, found, str(images), quiet=True)
    audited = audit(found, workspace)
    workspace.load(audited[0])
    encoder = workspace.encoder
    assert isinstance(encoder, ImageEncoder)
    return encoder


def same_features(encoder: ImageEncoder, reference: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, *encoder.preprocessing.input_size)
    with torch.no_grad():
        expected = reference(images)
        found = encoder.penultimate(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def save_timm(folder: Path, name: str, module: nn.Module, **arguments: object) -> None:
    folder.mkdir(exist_ok=True)
    known = {"model": name, "img_size": None, "input_size": None, **arguments}
    payload = {
        "epoch": 1,
        "arch": name,
        "state_dict": module.state_dict(),
        "optimizer": {},
        "args": argparse.Namespace(**known),
    }
    torch.save(payload, folder / "checkpoint-1.pth.tar")


def save_torchvision(folder: Path, name: str, module: nn.Module, **arguments: object) -> None:
    folder.mkdir(exist_ok=True)
    known = {"model": name, "val_crop_size": 64, "val_resize_size": 72, **arguments}
    known["interpolation"] = "bilinear"
    rest = {"optimizer": {}, "lr_scheduler": {}, "epoch": 1, "args": argparse.Namespace(**known)}
    torch.save({"model": module.state_dict(), **rest}, folder / "model_1.pth")


def test_timms_arguments_say_how_images_go_in(images: Path, tmp_path: Path) -> None:
    module = timm.create_model(TINY_MODEL, num_classes=5).eval()
    said = {"img_size": 48, "mean": [0.1, 0.2, 0.3], "std": [0.5], "crop_pct": 0.75}
    save_timm(tmp_path / "run", TINY_MODEL, module, interpolation="bicubic", **said)
    encoder = encoder_for(tmp_path / "run", images)
    used = encoder.preprocessing
    assert (used.input_size, used.mean, used.std) == ((3, 48, 48), (0.1, 0.2, 0.3), (0.5,) * 3)
    assert (used.crop_pct, used.interpolation) == (0.75, "bicubic")
    typed = encoder_for(tmp_path / "run", images, image_size=32, mean=(0.5,), crop_pct=1.0)
    assert typed.preprocessing.input_size == (3, 32, 32)
    assert (typed.preprocessing.mean, typed.preprocessing.crop_pct) == ((0.5,) * 3, 1.0)
    same_features(
        encoder, lambda x: module.forward_head(module.forward_features(x), pre_logits=True)
    )


def test_what_files_record_is_said(run, images: Path, tmp_path: Path) -> None:
    save_timm(tmp_path / "run", TINY_MODEL, timm.create_model(TINY_MODEL), img_size=48)
    _, _, err = run("rank", tmp_path / "run", "-d", images, "--scores", "linear_probe")
    assert "note: inputs as checkpoint-1 records them (args): image_size 48" in err
    _, _, err = run(
        *("rank", tmp_path / "run", "-d", images, "--scores", "linear_probe", "--image-size", 32)
    )
    assert "inputs as" not in err


@pytest.mark.parametrize("model", [None, "torchvision:mobilenet_v3_small", "mobilenet_v3_small"])
def test_torchvisions_networks(images: Path, tmp_path: Path, model: str | None) -> None:
    module = torchvision.models.mobilenet_v3_small(num_classes=5).eval()
    save_torchvision(tmp_path / "run", "mobilenet_v3_small", module)
    encoder = encoder_for(tmp_path / "run", images, model=model)
    assert encoder.name == "torchvision:mobilenet_v3_small"
    assert encoder.preprocessing.to_dict() == {
        "input_size": (3, 64, 64),
        "interpolation": "bilinear",
        "mean": IMAGENET[0],
        "std": IMAGENET[1],
        "crop_pct": 64 / 72,
        "crop_mode": "center",
    }
    module.classifier[3] = nn.Identity()
    same_features(encoder, module)


def test_the_tensors_decide_between_registries(tmp_path: Path) -> None:
    """A name of both, with other tensors."""
    ours = _tensors_of("convnext_tiny")
    theirs = timm.create_model("convnext_tiny", num_classes=5).state_dict()
    of_torchvision = build_image_encoder("convnext_tiny", recorded=Recorded(read=lambda: ours))
    of_timm = build_image_encoder("convnext_tiny", recorded=Recorded(read=lambda: theirs))
    assert (of_torchvision.name, of_timm.name) == ("torchvision:convnext_tiny", "convnext_tiny")


def _tensors_of(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(torchvision.models.get_model(name, weights=None, num_classes=5).state_dict())


def test_a_network_that_cannot_be_built_without_values() -> None:
    """Its constructor computes with tensors."""
    weights = torchvision.models.regnet_x_400mf(num_classes=5).state_dict()
    encoder = build_image_encoder("regnet_x_400mf", recorded=Recorded(read=lambda: weights))
    assert encoder.load(weights) == ""


def test_torchvisions_vision_transformer_has_the_size_of_the_file() -> None:
    with torch.device("meta"):
        vit = torchvision.models.vit_b_32(image_size=64, num_classes=5).state_dict()
    told = Recorded(read=lambda: vit)
    assert build_image_encoder("vit_b_32", recorded=told).preprocessing.input_size == (3, 64, 64)
    with pytest.raises(ModelError, match="is of 64x64 pixels, and --image-size is 96"):
        build_image_encoder("torchvision:vit_b_32", image_size=96, typed=True, recorded=told)


@pytest.mark.parametrize(
    ("arguments", "options", "size"),
    [
        ({}, {}, 64),
        ({"model_kwargs": {"img_size": 64}}, {}, 64),
        ({}, {"image_size": 64}, 64),
        ({}, {"image_size": 96}, 96),
        ({}, {"model": "test_vit"}, 64),
    ],
)
def test_a_vision_transformer_trained_at_another_size(
    images: Path, tmp_path: Path, arguments: dict, options: dict, size: int
) -> None:
    module = timm.create_model("test_vit", img_size=64, num_classes=5, dynamic_img_size=True).eval()
    save_timm(tmp_path / "run", "test_vit", module, **arguments)
    encoder = encoder_for(tmp_path / "run", images, **options)
    assert encoder.preprocessing.input_size == (3, size, size)
    same_features(
        encoder, lambda x: module.forward_head(module.forward_features(x), pre_logits=True)
    )
    said = "interpolated to 96x96" in " ".join(encoder.notes)
    assert said == (size == 96)


@pytest.mark.parametrize("patch", [16, 8])
def test_dino_is_known_by_its_own_name_and_normalised_as_trained(
    images: Path, tmp_path: Path, patch: int
) -> None:
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=patch, depth=12, num_classes=0
    ).eval()
    weights = {f"backbone.{name}": tensor for name, tensor in module.state_dict().items()}
    student = {f"module.{name}": tensor + 1 for name, tensor in weights.items()}
    arguments = argparse.Namespace(arch="vit_tiny", patch_size=patch)
    payload = {"student": student, "teacher": weights, "epoch": 1, "args": arguments}
    torch.save(payload, tmp_path / "checkpoint0001.pth")
    encoder = encoder_for(tmp_path / "checkpoint0001.pth", images)
    used = encoder.preprocessing
    assert (used.input_size, used.mean, used.std) == ((3, 32, 32), *IMAGENET)
    same_features(encoder, module)


def test_mae_is_known_by_its_own_name_and_normalised_as_trained() -> None:
    weights = {"patch_embed.proj.weight": torch.zeros(768, 3, 16, 16), "mask_token": torch.zeros(1)}
    records = recorded({"args": {"input_size": 224}}, {}, "MAE")
    assert Inputs.of_records(records["inputs"]) == Inputs(
        image_size=224, mean=IMAGENET[0], std=IMAGENET[1], interpolation="bicubic", crop_pct=0.875
    )
    encoder = build_image_encoder("mae_vit_base_patch16", recorded=Recorded(read=lambda: weights))
    assert encoder.name == "vit_base_patch16_224"


@pytest.mark.parametrize(
    ("name", "prefix", "said"),
    [
        (TINY_MODEL, "module.backbone.", f" Their tensors fit {TINY_MODEL}."),
        ("resnet50", "", " Their tensors fit resnet50."),
        ("vit_tiny_patch16_224", "model.", " Their tensors fit vit_tiny_patch16_224."),
        ("resnet26", "", ""),
    ],
)
def test_tensors_tell_what_common_network_they_are_of(name: str, prefix: str, said: str) -> None:
    state = skeleton(lambda: timm.create_model(name, num_classes=5)).state_dict()
    assert told_by_tensors({prefix + n: tensor for n, tensor in state.items()}) == said


def test_a_network_of_text_is_told() -> None:
    assert "a network of text" in told_by_tensors({"model.embed_tokens.weight": torch.ones(2, 2)})
    assert told_by_tensors({}) == ""


def test_a_network_that_files_do_not_name_is_suggested(run, images: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model(TINY_MODEL).state_dict(), tmp_path / "epoch_1.pth")
    code, _, err = run("rank", tmp_path / "epoch_1.pth", "-d", images)
    assert code == 3
    assert "Name it with --model: a timm name such as resnet50" in err
    assert f"Their tensors fit {TINY_MODEL}." in err


def test_a_network_of_ones_own_is_told_by_its_first_tensors(
    run, images: Path, tmp_path: Path
) -> None:
    torch.save({"conv.weight": torch.ones(6, 1, 5, 5), "b": torch.ones(6)}, tmp_path / "a.pth")
    code, _, err = run("rank", tmp_path / "a.pth", "-d", images, "-q")
    assert code == 3
    assert "a file module.py of yours that lies here, returns the network (docs/own-mod" in err
    assert err.endswith("Its tensors begin with conv.weight (6x1x5x5), b (6).\n")


def test_suggestions_are_networks_that_the_tensors_fit() -> None:
    tensors = timm.create_model("test_vit2").state_dict()
    told = Recorded(read=lambda: tensors)
    with pytest.raises(ModelError, match=r"unknown model 'test_vitt'.*Did you mean test_vit2\?$"):
        build_image_encoder("test_vitt", typed=True, recorded=told)
    with pytest.raises(ModelError, match=r"function\.$"):
        build_image_encoder("resnet5O", typed=True, recorded=told)


def test_grey_networks_are_told_from_the_first_layers_weights(images: Path, tmp_path: Path) -> None:
    module = timm.create_model(TINY_MODEL, in_chans=1, num_classes=5).eval()
    save_timm(tmp_path / "run", TINY_MODEL, module)
    encoder = encoder_for(tmp_path / "run", images)
    assert encoder.preprocessing.input_size == (1, 32, 32)
    assert encoder.preprocessing.mean == pytest.approx((np.mean((0.4914, 0.4822, 0.4465)),))
    assert "grey" in encoder.notes[0]
    same_features(
        encoder, lambda x: module.forward_head(module.forward_features(x), pre_logits=True)
    )
    grey = torchvision.models.resnet18(num_classes=5)
    grey.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    told = Recorded(read=grey.state_dict)
    built = build_image_encoder("torchvision:resnet18", typed=True, recorded=told)
    assert built.preprocessing.input_size[0] == 1
    assert built.load(grey.state_dict()) == ""


OWN = """
import sys
import timm
import torch
from torch import nn

class Flat(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.body, self.last = nn.Linear(4 * 16 * 16, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.conv(x)
        return self.last(self.body(x.view(x.size(0), -1)).relu())

class Digits(nn.Module):
    def __init__(self, n_values=784):
        super().__init__()
        self.body, self.last = nn.Linear(n_values, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.body(x.flatten(1)).relu())

class Of(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.last = first, nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x).flatten(2).mean(2))

class Shy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        if len(x) > 2:
            raise KeyError("more than two")
        return self.last(self.first(x).mean((2, 3)))

class Cut(Flat):
    def forward(self, x):
        return self.last(self.body(self.conv(x).view(-1, 4 * 16 * 16)).relu())

class Pair(Flat):
    def forward_features(self, x):
        return x
    def forward_head(self, x, pre_logits):
        return x, x

flat = Flat
pair = Pair
cut = lambda: Cut(1)
grey = lambda: Flat(1)
two = lambda: Flat(2)
far = lambda: Of(nn.Conv2d(3, 4, 300))
any_size = lambda: Of(nn.Conv2d(3, 4, 3))
digits = Digits
video = lambda: Of(nn.Conv3d(3, 4, 3))
audio = lambda: Of(nn.Conv1d(1, 4, 3))
shy = Shy
network = Flat()
small_vit = lambda: timm.create_model("test_vit", img_size=32)
def raises():
    raise ValueError("no {config}\\nfound")
def wants(config):
    return Flat()
def leaves():
    sys.exit("bye")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_nets.py").write_text(OWN)
    (tmp_path / "own_bad.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own_nets", "own_bad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def built(name: str, **options: Any) -> ImageEncoder:
    return build_image_encoder(f"own_nets:{name}", typed=True, **options)


def test_a_module_of_ones_own_may_view_its_maps(own: Path) -> None:
    """`view` after a convolution asks for maps that lie in the order of their dimensions."""
    encoder = built("flat", image_size=32)
    encoder.to("cpu")
    pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    assert encoder.features(pixels, ["last"])["last"].shape == (4, 6)
    assert encoder.normalise(pixels).is_contiguous()
    timms = build_image_encoder(TINY_MODEL)
    assert timms.normalise(pixels).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("grey", {"image_size": 32}, (1, 32, 32)),
        ("digits", {}, (1, 28, 28)),
        ("digits", {"channels": 1}, (1, 28, 28)),
        ("flat", {"image_size": 32, "channels": 3}, (3, 32, 32)),
        ("small_vit", {}, (3, 32, 32)),
    ],
)
def test_inputs_are_told_from_the_first_layers_weights(
    own: Path, name: str, options: dict, size: tuple[int, ...]
) -> None:
    encoder = built(name, **options)
    assert encoder.preprocessing.input_size == size
    assert encoder.penultimate(torch.zeros(1, *size)).ndim == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"image_size": 32}, r"own_nets\.py:\d+: return .*2x3x32x32"),
        ("two", {"image_size": 32}, "takes 2 channels, and images are read as grey .* or colour"),
        ("flat", {"image_size": 32, "channels": 4}, r"shape 2x4x32x32, torch\.float32"),
        ("video", {}, r"its first layer, first, is of type Conv3d, which takes 5 dimensions"),
        ("audio", {}, r"is of type Conv1d, which takes 3 dimensions"),
        ("flat", {}, r"own_nets\.py:\d+: return .*2x3x224x224.*With .* runs: --image-size 32\."),
        ("cut", {}, r"gave 98 vectors for 2 images of shape 2x1x224x224.* --image-size 32\."),
        ("far", {}, r"own_nets\.py:\d+: return .*2x3x224x224.*say so with --image-size"),
        ("grey", {"image_size": 64}, r"2x1x64x64, torch\.float32\. With .* --image-size 32\."),
        ("pair", {}, "TypeError: its features are a tuple, not a tensor"),
        ("raises", {}, r"ValueError: no \{config\} found \(.*own_nets\.py:\d+: raise ValueError"),
        ("wants", {}, "wants the arguments config, and is called without any"),
        ("leaves", {}, r"SystemExit: bye \(.*own_nets\.py:\d+: sys\.exit"),
        ("network", {}, "is a network, not a function"),
        ("flat", {"image_size": 32, "pool": "avg"}, "--pool chooses how a network of timm pools"),
    ],
)
def test_what_cannot_be_run_is_said(own: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        built(name, **options)
    assert len(caught.value.lines) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "is_noted"),
    [("any_size", {}, True), ("any_size", {"image_size": 64}, False), ("small_vit", {}, False)],
)
def test_a_size_that_nothing_says_is_noted(
    own: Path, name: str, options: dict, is_noted: bool
) -> None:
    notes = " ".join(built(name, **options).notes)
    assert ("images are of 224x224 pixels, since neither the files nor" in notes) is is_noted


def test_features_are_one_vector_an_image(own: Path) -> None:
    """`view(-1, n)` makes several of an image that is too large, and these would be others' labels."""
    with pytest.raises(FeatureError, match="input of last of own_nets:cut gave 8 vectors for 2 im"):
        built("cut", image_size=32).penultimate(torch.zeros(2, 1, 64, 64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":x", "':x' names no function"),
        ("x:", "'x:' names no function"),
        ("own_bad:f", r"ModuleNotFoundError: .*nowhere_at_all.*own_bad\.py:1: import nowhere"),
        ("own_nets:nix", "has no function 'nix'"),
        ("torchvision:resnet81", r"torchvision has no network.*Did you mean .*resnet18"),
        ("hf:nowhere", "nowhere has no config.json"),
    ],
)
def test_names_that_stand_for_nothing(
    run, own: Path, images: Path, trajectory: Path, name: str, message: str
) -> None:
    code, out, err = run("rank", trajectory, "-d", images, "-q", "--model", name)
    assert (code, out) == (3, "")
    assert "Traceback" not in err
    assert re.search(message, err), err


def test_an_error_in_the_middle_of_a_run_names_its_line(
    own: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    torch.save(built("shy", image_size=32).module.state_dict(), tmp_path / "run/epoch1.pt")
    with pytest.raises(
        ckptsel.errors.InputError, match=r"KeyError: 'more than two' .*own_nets\.py"
    ):
        ckptsel.rank(tmp_path / "run", images, model="own_nets:shy", image_size=32, cache=False)


def test_a_device_that_is_not_there(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch finds no CUDA device here"):
        ckptsel.rank(trajectory, images, device="cuda")


CONFIG = {"model_type": "vit", "architectures": ["ViTModel"], "image_size": 32, "num_channels": 3}


def test_transformers_is_asked_for_by_name_where_it_is_missing(
    run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run/checkpoint-10"
    folder.mkdir(parents=True)
    save_file({"embeddings.cls_token": torch.zeros(1, 1, 8)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = run("rank", tmp_path / "run", "-d", images, "-q")
    assert code == 3
    assert "of transformers, which is not installed: pip install 'ckptsel[hf]'" in err
    assert scan_checkpoints(tmp_path / "run")[0].arch == "ViTModel"


@pytest.mark.parametrize(
    ("processor", "inputs"),
    [
        (
            {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5] * 3},
            {
                "image_size": 32,
                "interpolation": "bilinear",
                "mean": [0.5] * 3,
                "crop_pct": 1.0,
                "crop_mode": "squash",
            },
        ),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                "resample": 3,
            },
            {"image_size": 224, "interpolation": "bicubic", "crop_pct": 0.875},
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.9, "do_normalize": False},
            {"image_size": 224, "crop_pct": 0.9, "mean": [0.0], "std": [1.0]},
        ),
    ],
)
def test_preprocessor_configs(processor: dict, inputs: dict) -> None:
    found = recorded({}, {"config": {}, "preprocessor_config": processor}, "Hugging Face")
    assert found["inputs"] == inputs


@pytest.mark.parametrize(
    "value",
    [-1, 10**9, "64", [3, 64], {"height": 1}, {"a": 1}, float("nan"), True, [], [[64]], None],
)
@pytest.mark.parametrize("name", ["img_size", "mean", "std", "crop_pct", "interpolation", "gp"])
def test_odd_records_are_left_out(name: str, value: object) -> None:
    found = recorded({"args": {name: value, "model_kwargs": value}}, {}, "timm")
    assert json.dumps(found, allow_nan=False)
    inputs = Inputs.of_records(found.get("inputs", {}))
    assert inputs.image_size is None and inputs.pool is None and inputs.interpolation is None


def test_a_file_gives_a_network_numbers_alone(images: Path, tmp_path: Path) -> None:
    """timm's create_model also takes paths, which it opens."""
    opened = {"checkpoint_path": str(tmp_path / "evil.pth"), "pretrained": True, "num_classes": 3}
    save_timm(tmp_path / "run", "test_vit", timm.create_model("test_vit"), model_kwargs=opened)
    (checkpoint,) = scan_checkpoints(tmp_path / "run")
    assert checkpoint.records["arguments"] == {"pretrained": True, "num_classes": 3}
    told = recorded_in(checkpoint, "auto", DEFAULT)
    assert (
        build_image_encoder("test_vit", recorded=told).load(
            timm.create_model("test_vit").state_dict()
        )
        == ""
    )


def test_of_a_configuration_only_plain_keys_are_kept() -> None:
    hostile = {
        **CONFIG,
        "auto_map": {"AutoModel": "evil--x.y"},
        "_attn_implementation": "evil/kernels",
        "backbone_config": {"a": 1},
        "nested": {"_x": 1, "use_timm_backbone": True, "kept": 2},
    }
    kept = hugging_face._plain(hostile)
    assert kept == {"image_size": 32, "num_channels": 3, "nested": {"kept": 2}}


def test_the_kinds_that_messages_know_are_those_that_are_built() -> None:
    from ckptsel.features.names import BUILDERS

    assert set(KINDS) == set(BUILDERS)
    assert all(Path(folder).is_dir() for folder in LIBRARIES)
