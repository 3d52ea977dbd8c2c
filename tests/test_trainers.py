"""Checkpoints as trainers really write them. `make test-trainers` installs these; a test of one that is
not there is skipped.

Nothing is downloaded: networks are tiny, with random weights.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.errors import ModelError
from ckptsel.features.candidate import Candidate
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.extraction import extract_features
from ckptsel.ranking.audit import audit
from ckptsel.ranking.workspace import open_workspace
from ckptsel.settings.rank import RankSettings
from tests.conftest import TINY_MODEL

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


# Short runs of three epochs. Each fills a folder, and gives the network as it was after the first.


class Pictures(torch.utils.data.Dataset):
    """Twelve images of 32 pixels, of three classes."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 32, 32, generator=generator), index % 3


def loader() -> Any:
    return torch.utils.data.DataLoader(Pictures(), batch_size=4)


def tiny(n_classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(TINY_MODEL, num_classes=n_classes)


def trained_by_lightning(folder: Path) -> torch.nn.Module:
    """With averaged weights, settings that are objects, and its own names of files."""
    library = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.callbacks import EMAWeightAveraging

    class Module(library.LightningModule):
        def __init__(self, network: torch.nn.Module, width: int, act: Any) -> None:
            super().__init__()
            self.save_hyperparameters(ignore=["network"])
            self.net = network

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("val_acc", 0.5)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    kept: list[dict[str, torch.Tensor]] = []

    class Keep(library.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            average = next(c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging))
            inner = average._average_model.module.net.state_dict()
            kept.append({name: tensor.clone() for name, tensor in inner.items()})

    saver = library.callbacks.ModelCheckpoint(
        folder, filename="{epoch}-{step}-{val_acc:.2f}", save_top_k=-1
    )
    trainer = library.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[EMAWeightAveraging(decay=0.5), Keep(), saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(tiny(), width=3, act=torch.nn.functional.relu), loader())
    return loaded(kept[0])


def loaded(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    network = tiny()
    network.load_state_dict(state)
    return network


def one_epoch(network: torch.nn.Module, optimizer: Any, backward: Any = None) -> None:
    for images, labels in loader():
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        backward(loss) if backward else loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def epochs(folder: Path, save: Any, wrap: Any = lambda network: network) -> torch.nn.Module:
    """Three epochs of a loop of one's own. save: of (folder, epoch, network, optimiser)."""
    network = wrap(tiny())
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    first: dict[str, torch.Tensor] = {}
    for epoch in range(3):
        one_epoch(network, optimizer)
        save(folder, epoch, network, optimizer)
        if epoch == 0:
            state = getattr(network, "module", network).state_dict()
            first = {name: tensor.clone() for name, tensor in state.items()}
    return loaded(first)


def trained_by_accelerate(folder: Path) -> torch.nn.Module:
    library = pytest.importorskip("accelerate")
    accelerator = library.Accelerator(cpu=True)
    network = tiny()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    network, optimizer = accelerator.prepare(network, optimizer)
    first: dict[str, torch.Tensor] = {}
    for epoch in range(3):
        one_epoch(network, optimizer, accelerator.backward)
        accelerator.save_state(str(folder / f"epoch_{epoch}"))
        first = first or {n: t.clone() for n, t in network.state_dict().items()}
    return loaded(first)


def saved_by_dcp(folder: Path) -> torch.nn.Module:
    """In a group of one process, of the data-parallel network."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    def save(folder: Path, epoch: int, network: Any, optimizer: Any) -> None:
        model, state = get_state_dict(network, optimizer)
        payload = {"model": model, "optim": state, "epoch": epoch}
        dcp.save(payload, checkpoint_id=folder / f"step_{3 * epoch}")

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        return epochs(folder, save, torch.nn.parallel.DistributedDataParallel)
    finally:
        dist.destroy_process_group()


def saved_by_timm(folder: Path) -> torch.nn.Module:
    from timm.utils import CheckpointSaver

    folder.mkdir()
    savers: list[Any] = []

    def save(folder: Path, epoch: int, network: Any, optimizer: Any) -> None:
        if not savers:
            arguments = argparse.Namespace(model=TINY_MODEL, img_size=None, input_size=None)
            network.default_cfg["architecture"] = TINY_MODEL
            made = CheckpointSaver(
                network, optimizer, args=arguments, checkpoint_dir=str(folder), max_history=9
            )
            savers.append(made)
        savers[0].save_checkpoint(epoch, metric=10.0 * (epoch + 1))

    return epochs(folder, save)


def saved_as_torchvisions_references(folder: Path) -> torch.nn.Module:
    """As references/classification/train.py does, with its averaged model."""
    folder.mkdir()
    averages: list[Any] = []

    def save(folder: Path, epoch: int, network: Any, optimizer: Any) -> None:
        if not averages:
            averages.append(torch.optim.swa_utils.AveragedModel(network, use_buffers=True))
        averages[0].update_parameters(network)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 30)
        payload = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
        payload |= {"lr_scheduler": schedule.state_dict(), "epoch": epoch}
        payload |= {"args": argparse.Namespace(model="resnet18", val_crop_size=32)}
        payload |= {"model_ema": averages[0].state_dict()}
        torch.save(payload, folder / f"model_{epoch}.pth")
        torch.save(payload, folder / "checkpoint.pth")

    return epochs(folder, save)


def trained_with_lightly(folder: Path) -> torch.nn.Module:
    """Its MoCo: a backbone and a projection head, and both once more as averages."""
    pytest.importorskip("lightly")
    trainers = pytest.importorskip("lightning.pytorch")
    import copy

    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    class MoCo(trainers.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = tiny(0)
            self.projection_head = MoCoProjectionHead(128, 32, 16)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)
            self.criterion = NTXentLoss(memory_bank_size=(8, 16))

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            update_momentum(self.backbone, self.backbone_momentum, m=0.5)
            images = batch[0]
            queries = self.projection_head(self.backbone(images).flatten(1))
            keys = self.projection_head_momentum(self.backbone_momentum(images).flatten(1))
            return self.criterion(queries, keys.detach())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.06)

    kept: list[torch.nn.Module] = []

    class Keep(trainers.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            kept.append(copy.deepcopy(module.backbone))

    saver = trainers.callbacks.ModelCheckpoint(folder, save_top_k=-1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = trainers.Trainer(max_epochs=3, accelerator="cpu", callbacks=[Keep(), saver], **quiet)
    trainer.fit(MoCo(), loader())
    return kept[0]


def trained_by_mmengine(folder: Path) -> torch.nn.Module:
    """With its EMAHook, which keeps the average where others keep the raw weights."""
    pytest.importorskip("mmengine")
    from mmengine.hooks import EMAHook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = tiny()

        def forward(self, images: Any, labels: Any, mode: str = "tensor") -> Any:
            out = self.backbone(images)
            return (
                {"loss": torch.nn.functional.cross_entropy(out, labels)} if mode == "loss" else out
            )

    kept: list[dict[str, torch.Tensor]] = []

    class Keep(EMAHook):
        def after_train_epoch(self, runner: Any) -> None:
            super().after_train_epoch(runner)
            inner = self.ema_model.module.backbone.state_dict()
            kept.append({name: tensor.clone() for name, tensor in inner.items()})

    sampler = {"type": "DefaultSampler", "shuffle": False}
    data = {"dataset": Pictures(), "batch_size": 4, "num_workers": 0, "sampler": sampler}
    Runner(
        Model(),
        str(folder),
        train_dataloader={**data, "collate_fn": {"type": "default_collate"}},
        train_cfg={"by_epoch": True, "max_epochs": 3},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        custom_hooks=[Keep(momentum=0.3)],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        log_level="ERROR",
    ).train()
    return loaded(kept[0])


def run_script(folder: Path, text: str, *arguments: str) -> None:
    """In a process of its own: a process joins one group of processes in its life."""
    (folder / "train.py").write_text(text)
    root = str(Path(ckptsel.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", *arguments]
    subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)


SHARING = """
import os, sys, torch, timm, torch.distributed as dist, torch.multiprocessing as mp
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from ckptsel.features import cifar_resnet

def work(rank, folder, name):
    file = f"file://{folder}/group"
    dist.init_process_group("gloo", init_method=file, rank=rank, world_size=2)
    for epoch in range(3):
        torch.manual_seed(epoch)
        network = timm.create_model(name, num_classes=3)
        fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
        model, optim = get_state_dict(network, torch.optim.AdamW(network.parameters()))
        payload = {"model": model, "optim": optim, "epoch": epoch}
        dcp.save(payload, checkpoint_id=f"{folder}/run/step_{3 * epoch}")
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, sys.argv[1:], nprocs=2)
"""


def saved_by_two_processes(folder: Path) -> torch.nn.Module:
    """FSDP on a CPU: each tensor is shared between them. Slow, so it is run with the others alone."""
    pytest.importorskip("accelerate")
    run_script(folder.parent, SHARING, str(folder.parent), TINY_MODEL)
    assert len(list((folder / "step_0").glob("*.distcp"))) == 2
    return tiny()


DEEPSPEED = """
import os, sys, torch, timm
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[4]}
import deepspeed
from ckptsel.features import cifar_resnet

torch.manual_seed(0)
network = timm.create_model(sys.argv[2], num_classes=3)
deepspeed.init_distributed("gloo")
adam = {"type": "Adam", "params": {"lr": 0.01, "torch_adam": True}}
config = {"train_batch_size": 4, "optimizer": adam}
config["zero_optimization"] = {"stage": int(sys.argv[3])}
engine = deepspeed.initialize(model=network, model_parameters=network.parameters(), config=config)[0]
for epoch in range(3):
    engine.backward(engine(torch.randn(4, 3, 32, 32)).square().mean())
    engine.step()
    engine.save_checkpoint(sys.argv[1], client_state={"epoch": epoch})
    if epoch == 0 and sys.argv[3] != "3":
        torch.save(network.state_dict(), sys.argv[1] + "/../first")
"""


def by_deepspeed(folder: Path, stage: int) -> None:
    pytest.importorskip("deepspeed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_script(folder.parent, DEEPSPEED, str(folder), TINY_MODEL, str(stage), str(port))


def trained_by_deepspeed(folder: Path) -> torch.nn.Module:
    """Its second stage, whose model file is whole."""
    by_deepspeed(folder, 2)
    return loaded(torch.load(folder.parent / "first"))


def test_zero_3_is_joined_as_the_message_says(run, tmp_path: Path) -> None:
    by_deepspeed(tmp_path / "run", 3)
    _, out, _ = run("inspect", tmp_path / "run")
    said = re.search(r"run (for t in .*; done), and give the folder joined", out)
    assert said is not None
    python = f'python() {{ {sys.executable} "$@"; }}; '
    subprocess.run(python + said[1], check=True, shell=True, cwd=tmp_path / "run")
    found = scan_checkpoints(tmp_path / "run" / "joined")
    assert [(c.problem, c.step) for c in found] == [(None, 1), (None, 2), (None, 3)]


@pytest.mark.parametrize(
    ("train", "form", "first"),
    [
        (trained_by_lightning, "Lightning", 0),
        (trained_by_accelerate, "Hugging Face", 0),
        (saved_by_dcp, "DCP", 0),
        (saved_by_timm, "timm", 0),
        (saved_as_torchvisions_references, "torchvision references", 0),
        (trained_with_lightly, "Lightning", 0),
        (trained_by_mmengine, "MMEngine", 1),
        (saved_by_two_processes, "DCP", 0),
        (trained_by_deepspeed, "DeepSpeed", 0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_run_is_ranked(
    run, images: Path, tmp_path: Path, train: Any, form: str, first: int
) -> None:
    folder = tmp_path / "run"
    expected = train(folder).eval()
    options = ("-d", images, "--model", TINY_MODEL, "--scores", "linear_probe", "-q")
    code, _, err = run("rank", folder, *options, "-o", tmp_path / "ranking")
    assert code == 0, err
    found = json.loads((tmp_path / "ranking" / "ranking.json").read_text())["checkpoints"]
    rows = [row for row in found if row.get("copy_of") is None]
    assert sorted(row["epoch"] for row in rows) == [first, first + 1, first + 2]
    assert {c.format for c in scan_checkpoints(folder)} == {form}
    _, features, given = features_of(folder, images, model=TINY_MODEL)
    expected.reset_classifier(0)
    with torch.no_grad():
        assert np.abs(features - expected(given).numpy()).max() < 1e-5
