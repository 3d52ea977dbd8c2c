"""Checkpoints as transformers and open_clip really write them. `make test-trainers` installs these.

Nothing is downloaded: networks are tiny, with random weights.
"""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import ModelError
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.extraction import extract_features
from ckptsel.ranking.workspace import audit, open_workspace
from ckptsel.settings.rank import RankSettings

# Their own deprecations are none of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("transformers")


def config_of(library: Any, kind: str) -> Any:
    vit = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}
    if kind == "vit":
        return library.ViTConfig(**vit, intermediate_size=64, image_size=32, patch_size=8)
    if kind == "dinov2":
        return library.Dinov2Config(**vit, image_size=28, patch_size=7)
    if kind == "resnet":
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        return library.ResNetConfig(**sizes, layer_type="basic", num_labels=5)
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1]}
    return library.SwinConfig(**sizes, num_heads=[1, 2], window_size=4, num_labels=5)


def features_of(run: Path, images: Path, **options: Any) -> tuple[ImageEncoder, np.ndarray, Any]:
    """(encoder, features of the training images by the first checkpoint, the pixels it was given)."""
    found = scan_checkpoints(run)
    settings = RankSettings(cache=False, **options)
    workspace = open_workspace(settings, found, str(images), quiet=True)
    audited = audit(found, workspace)
    assert [c.problem for c in audited] == [None] * len(audited)
    workspace.load(audited[0])
    encoder = workspace.encoder
    assert isinstance(encoder, ImageEncoder)
    pixels = workspace.prepared()[0]
    features = extract_features(encoder, pixels)["last"]
    return encoder, features, encoder.normalise(torch.from_numpy(np.array(pixels)))


@torch.no_grad()
def by_the_library(library: Any, folder: Path, images: torch.Tensor) -> np.ndarray:
    """The pooled output of the class itself; the first token where its pooler was never trained."""
    found = library.AutoModel.from_pretrained(folder).eval()(images)
    wrote = json.loads((folder / "config.json").read_text())["architectures"][0]
    if wrote == "ViTForImageClassification":
        return found.last_hidden_state[:, 0].numpy()
    return found.pooler_output.flatten(1).numpy()


@pytest.mark.parametrize("model", [None, "hf:", "folder"])
@pytest.mark.parametrize("kind", ["vit", "resnet", "dinov2", "swin"])
@pytest.mark.parametrize("has_classifier", [True, False])
def test_saved_models(
    library: Any, images: Path, tmp_path: Path, kind: str, has_classifier: bool, model: str | None
) -> None:
    auto = library.AutoModelForImageClassification if has_classifier else library.AutoModel
    torch.manual_seed(0)
    folder = tmp_path / "run/checkpoint-10"
    auto.from_config(config_of(library, kind)).save_pretrained(folder)
    typed = str(folder) if model == "folder" else model
    _, features, given = features_of(tmp_path / "run", images, model=typed)
    assert np.abs(features - by_the_library(library, folder, given)).max() < 1e-5


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": index % 5}


def test_a_trainers_output_is_ranked_with_one_command(
    library: Any, run, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    out = tmp_path / "run"
    arguments = {"max_steps": 4, "save_steps": 2, "use_cpu": True, "report_to": []}
    processor = library.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3)
    model = library.AutoModelForImageClassification.from_config(config_of(library, "vit"))
    library.Trainer(
        model,
        library.TrainingArguments(str(out), disable_tqdm=True, **arguments),
        train_dataset=Noise(),
        processing_class=processor,
    ).train()
    code, text, err = run("rank", out, "-d", images, "--scores", "linear_probe")
    assert code == 0, err
    assert "checkpoint-2" in text and "checkpoint-4" in text
    assert "records them (preprocessor_config.json, config.json): image_size 32" in err
    encoder, features, given = features_of(out, images)
    assert encoder.preprocessing.crop_mode == "squash"
    assert encoder.preprocessing.interpolation == "bicubic"
    expected = by_the_library(library, out / "checkpoint-2", given)
    assert np.abs(features - expected).max() < 1e-5
    ranked = tmp_path / "ranking"
    assert run("rank", out, "-d", images, "-q", "-o", ranked, "--scores", "linear_probe")[0] == 0
    short = ("--steps", 5, "--seeds", 1, "--lr", "0.1", "-q")
    assert run("confirm", ranked, *short, "--goal", "both")[0] == 0
    assert run("pick", ranked, "--to", tmp_path / "best.safetensors")[0] == 0
    names = set(load_file(tmp_path / "best.safetensors"))
    assert names <= set(encoder.module.state_dict())


def saved(library: Any, folder: Path, **changes: Any) -> Path:
    library.AutoModel.from_config(config_of(library, "vit")).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "evil--canary.Model", "AutoConfig": "evil--canary.Config"}},
        {"_attn_implementation": "evil/kernels", "attn_implementation": "evil/kernels"},
        {"quantization_config": {"quant_method": "bitsandbytes"}, "dtype": "int8"},
        {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": True},
    ],
)
def test_a_configuration_runs_and_fetches_nothing(
    library: Any, images: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'sung')!r}, 'w').close()\n")
    folder = saved(library, tmp_path / "run/checkpoint-1", **changes)
    (folder / "canary.py").write_text((tmp_path / "canary.py").read_text())
    _, features, given = features_of(tmp_path / "run", images)
    assert len(features) == len(given)
    assert not (tmp_path / "sung").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "is of 'bert', which is no network of images"),
        ({"model_type": "timm_wrapper"}, "no network of images"),
        ({"num_hidden_layers": 10**9}, "asks for more layers than are believed"),
        ({"hidden_size": 10**5, "intermediate_size": 10**5}, "values, and the file holds"),
        ({"hidden_size": -3}, "cannot be told before it is built"),
        ({"patch_size": "x"}, "transformers"),
        ({"hidden_act": "no_such"}, "transformers cannot build this network"),
    ],
)
def test_odd_configurations_end_in_a_sentence(
    library: Any, images: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved(library, tmp_path / "run/checkpoint-1", **changes)
    with pytest.raises(ModelError, match=message):
        ckptsel.rank(tmp_path / "run", images)


def test_tensors_that_do_not_fit_are_named(library: Any, images: Path, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        saved(library, tmp_path / f"run/checkpoint-{step}")
    path = tmp_path / "run/checkpoint-1/model.safetensors"
    tensors = load_file(path)
    del tensors["layernorm.weight"]
    save_file({**tensors, "layernorm.other": torch.zeros(2)}, path, {"format": "pt"})
    ranking = ckptsel.rank(tmp_path / "run", images, scores=("linear_probe",), cache=False)
    reason = ranking["checkpoint-1"].reason
    assert "missing: layernorm.weight; no place for: layernorm.other" in reason


def test_positions_are_interpolated_where_another_size_is_asked_for(
    library: Any, images: Path, tmp_path: Path
) -> None:
    folder = saved(library, tmp_path / "run/checkpoint-1")
    encoder, features, given = features_of(tmp_path / "run", images, image_size=48)
    assert "32x32 pixels and is interpolated to 48x48" in encoder.notes[0]
    model = library.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(given, interpolate_pos_encoding=True).pooler_output.numpy()
    assert np.abs(features - expected).max() < 1e-5


def test_an_image_tower_of_open_clip(images: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = library.create_model("ViT-S-32-alt", load_weights=False).eval()
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    payload = {"epoch": 1, "name": "a run", "state_dict": weights, "optimizer": {}}
    torch.save(payload, tmp_path / "epoch_1.pt")
    typed = "open_clip:ViT-S-32-alt"
    _, features, given = features_of(tmp_path / "epoch_1.pt", images, model=typed)
    with torch.no_grad():
        assert np.abs(features - model.encode_image(given).numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", ["vit", "resnet", "dinov2", "swin"])
def test_an_exported_model_gives_the_ranked_features(
    library: Any, run, images: Path, tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "run/checkpoint-10"
    library.AutoModelForImageClassification.from_config(config_of(library, kind)).save_pretrained(
        folder
    )
    ranked, file = tmp_path / "ranking", tmp_path / "best.safetensors"
    options = ("-d", images, "--scores", "linear_probe", "--layers", "last,all", "-q", "-o", ranked)
    assert run("rank", tmp_path / "run", *options)[0] == 0
    found = scan_checkpoints(tmp_path / "run")
    settings = RankSettings(layers=("last", "all"))
    workspace = open_workspace(settings, found, str(images), quiet=True)
    pixels = torch.from_numpy(np.array(workspace.prepared()[0]))
    for layer in ("last", "all"):
        candidate = Candidate(found[0], layer)
        assert run("pick", ranked, "--checkpoint", candidate.name, "--to", file)[0] == 0
        extractor = ckptsel.load_extractor(file)
        with torch.inference_mode():
            features = extractor.read(pixels)[layer].numpy()
        expected = workspace.features(candidate)[: len(pixels)]
        new = ("--data", images, "--to", tmp_path / "new.npz", "--predictions", "-q")
        code, _, err = run("extract", ranked, "--candidate", candidate.name, *new)
        assert code == 0, err
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
