"""What each trainer writes, imitated: three tiny checkpoints a layout, from the folder to the features.

Files that the libraries themselves write: tests/test_trainers.py.
"""

import functools
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import read_weights
from ckptsel.ranking.audit import audit
from ckptsel.ranking.workspace import open_workspace
from ckptsel.settings.rank import RankSettings
from tests.conftest import TINY_MODEL
from tests.test_networks import encoder_for, same_features
from tests.test_strangers import problem_of, save, weights

State = dict[str, torch.Tensor]

# torch.distributed's own, of names that move.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@functools.cache
def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(TINY_MODEL, num_classes=0).eval()


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def tensors(*names: str) -> State:
    """Of a head, a projector, a queue: what they hold does not matter."""
    return {name: torch.ones(2, 3) for name in names}


def momentum() -> dict[str, Any]:
    """The state of an optimiser, which holds tensors too."""
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"params": [0]}]}


# Each gives (name of the file, what is in it) of an epoch, with a network and its average.


def mmengine(e: int, own: State, average: State) -> tuple[str, Any]:
    hook = {"steps": torch.tensor(e)} | below("module.backbone.", own)
    state = below("backbone.", average) | tensors("head.fc.weight")
    meta = {"epoch": e, "iter": 10 * e, "mmengine_version": "0.10.7", "cfg": "model = dict()"}
    rest = {"message_hub": {}, "optimizer": momentum(), "param_schedulers": []}
    return f"epoch_{e}.pth", {"meta": meta, "state_dict": state, "ema_state_dict": hook, **rest}


def mmpretrain(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("backbone.", own) | below("encoder_k.module.0.", average)
    state |= tensors("neck.mlp.0.weight", "queue", "encoder_k.module.1.mlp.0.weight")
    return f"epoch_{e}.pth", {"meta": {"epoch": e, "iter": 10 * e}, "state_dict": state}


def vissl(e: int, own: State, average: State) -> tuple[str, Any]:
    model = {"trunk": below("_feature_blocks.", own), "heads": tensors("0.clf.0.weight")}
    progress = {"phase_idx": 2 * e, "train_phase_idx": e, "iteration": 10 * e}
    classy = {"base_model": {"model": model, "meters": {}}}
    return f"model_phase{2 * e}.torch", {**progress, "loss": {}, "classy_state_dict": classy}


def detectron2(e: int, own: State, average: State) -> tuple[str, Any]:
    rest = {"optimizer": momentum(), "scheduler": {"last_epoch": 5}, "iteration": 10 * e}
    return f"model_{10 * e:07d}.pth", {"model": below("backbone.bottom_up.", own), **rest}


def solo_learn(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("backbone.", own) | below("momentum_backbone.", average)
    state |= tensors("classifier.weight", "projector.0.weight", "momentum_projector.0.weight")
    rest = {"pytorch-lightning_version": "2.0.0", "hyper_parameters": {"lr": 0.1}, "callbacks": {}}
    payload = {"epoch": e, "global_step": 10 * e, "state_dict": state, **rest}
    return f"mocov2plus-cifar-1a2b-ep={e}.ckpt", payload


def moco_v2(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("module.encoder_q.", own) | below("module.encoder_k.", average)
    state |= tensors("module.encoder_q.fc.0.weight", "module.encoder_k.fc.0.weight", "module.queue")
    payload = {"epoch": e, "arch": TINY_MODEL, "state_dict": state, "optimizer": momentum()}
    return f"checkpoint_{e:04d}.pth.tar", payload


def moco_v3(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("module.base_encoder.", own) | below("module.momentum_encoder.", average)
    state |= tensors("module.base_encoder.fc.0.weight", "module.momentum_encoder.fc.0.weight")
    state |= tensors("module.predictor.0.weight")
    payload = {"epoch": e, "arch": TINY_MODEL, "state_dict": state, "scaler": {}}
    return f"checkpoint_{e:04d}.pth.tar", payload


def simclr(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("backbone.", own) | tensors("backbone.fc.0.weight", "backbone.fc.2.weight")
    payload = {"epoch": e, "arch": TINY_MODEL, "state_dict": state, "optimizer": momentum()}
    return f"checkpoint_{e:04d}.pth.tar", payload


def byol(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("net.", own) | below("online_encoder.net.", own)
    state |= below("target_encoder.net.", average)
    state |= tensors("online_encoder.projector.0.weight", "target_encoder.projector.0.weight")
    return f"byol_epoch{e}.pt", state


def barlow(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("module.backbone.", own) | tensors("module.projector.0.weight")
    return f"checkpoint{e}.pth", {"epoch": e, "model": state, "optimizer": momentum()}


def swav(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("module.", own) | tensors("module.prototypes.weight")
    state |= tensors("module.projection_head.0.weight")
    return f"ckp-{e}.pth", {"epoch": e, "state_dict": state, "optimizer": momentum(), "amp": {}}


def deepspeed(e: int, own: State, average: State) -> tuple[str, Any]:
    progress = {"ds_version": "0.14", "global_steps": 10 * e, "epoch": e}
    rest = {"buffer_names": [], "shared_params": {}, "sparse_tensor_module_names": set()}
    name = f"global_step{10 * e}/mp_rank_00_model_states.pt"
    return name, {"module": own, **progress, **rest}


def megatron(e: int, own: State, average: State) -> tuple[str, Any]:
    rest = {"checkpoint_version": 3.0, "args": None, "optimizer": momentum()}
    name = f"iter_{10 * e:07d}/mp_rank_00/model_optim_rng.pt"
    return name, {"iteration": 10 * e, "model": own, **rest}


def composer(e: int, own: State, average: State) -> tuple[str, Any]:
    timestamp = {"Timestamp": {"epoch": e, "batch": 10 * e}}
    state = {"model": below("module.", own), "optimizers": {"SGD": momentum()}}
    return f"ep{e}-ba{10 * e}-rank0.pt", {"state": {**state, "timestamp": timestamp}, "rng": []}


def ignite(e: int, own: State, average: State) -> tuple[str, Any]:
    trainer = {"epoch_length": 10, "iteration": 10 * e, "max_epochs": 3}
    return f"checkpoint_{10 * e}.pt", {"model": own, "optimizer": momentum(), "trainer": trainer}


def fairseq(e: int, own: State, average: State) -> tuple[str, Any]:
    rest = {"args": None, "cfg": {}, "optimizer_history": [], "last_optimizer_state": momentum()}
    extra = {"epoch": e, "train_iterator": {"epoch": e}}
    return f"checkpoint{e}.pt", {"model": below("encoder.", own), "extra_state": extra, **rest}


def lightly(e: int, own: State, average: State) -> tuple[str, Any]:
    state = below("backbone.", own) | below("backbone_momentum.", average)
    state |= tensors("projection_head.layers.0.weight", "projection_head_momentum.layers.0.weight")
    payload = {"epoch": e, "global_step": 10 * e, "state_dict": state, "callbacks": {}}
    return f"epoch={e}-step={10 * e}.ckpt", payload


def wrapped(e: int, own: State, average: State) -> tuple[str, Any]:
    inner = {name.replace("layer1.", "layer1._fsdp_wrapped_module."): t for name, t in own.items()}
    state = below("module._orig_mod.module.", inner) | {"n_averaged": torch.tensor(3)}
    return f"swa_epoch{e}.pt", {"epoch": e, "model": own, "swa_model": state}


@dataclass(frozen=True)
class Layout:
    """format, epoch and step of the second file; which network each choice of weights takes (`own`,
    `average`)."""

    write: Callable[[int, State, State], tuple[str, Any]]
    format: str
    epoch: int | None = 2
    step: int | None = None
    choices: dict[str, str] = field(default_factory=lambda: {"auto": "own", "raw": "own"})
    is_arch_recorded: bool = False


BOTH = {"auto": "own", "raw": "own", "momentum": "average"}

LAYOUTS = [
    Layout(
        mmengine, "MMEngine", step=20, choices={"auto": "average", "ema": "average", "raw": "own"}
    ),
    Layout(mmpretrain, "MMEngine", step=20, choices=BOTH),
    Layout(vissl, "VISSL", step=20),
    Layout(detectron2, "Detectron2", None, 20),
    Layout(solo_learn, "Lightning", step=20, choices=BOTH),
    Layout(moco_v2, "timm", choices=BOTH, is_arch_recorded=True),
    Layout(moco_v3, "timm", choices=BOTH, is_arch_recorded=True),
    Layout(simclr, "timm", is_arch_recorded=True),
    Layout(byol, "state dict", choices={"auto": "own", "online": "own", "target": "average"}),
    Layout(barlow, "torch"),
    Layout(swav, "torch"),
    Layout(deepspeed, "DeepSpeed", step=20),
    Layout(megatron, "Megatron", None, 20),
    Layout(composer, "torch", step=20),
    Layout(ignite, "torch", None, 20),
    Layout(fairseq, "torch"),
    Layout(lightly, "Lightning", step=20, choices=BOTH),
    Layout(wrapped, "torch"),
]


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.write.__name__)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


@pytest.fixture
def folder(layout: Layout, tmp_path: Path) -> Path:
    for e in (1, 2, 3):
        state, average = network(e).state_dict(), network(10 * e).state_dict()
        name, payload = layout.write(e, state, average)
        save(tmp_path / "run", name, payload)
    return tmp_path / "run"


def test_what_inspect_says(layout: Layout, folder: Path) -> None:
    found = scan_checkpoints(folder)
    assert [c.problem for c in found] == [None] * 3
    second = found[1]
    assert (second.format, second.epoch, second.step) == (layout.format, layout.epoch, layout.step)


def test_the_features_are_those_of_the_network(layout: Layout, folder: Path, images: Path) -> None:
    for choice, which in layout.choices.items():
        found = scan_checkpoints(folder, choice)
        settings = RankSettings(cache=False, model=TINY_MODEL, weights=choice)
        workspace = open_workspace(settings, found, str(images), quiet=True)
        workspace.load(audit(found, workspace)[0])
        encoder = workspace.encoder
        same_features(encoder, network(1 if which == "own" else 10))


def test_it_is_ranked(run, layout: Layout, folder: Path, images: Path) -> None:
    options = ("-d", images, "--by", "logme", "--scores", "logme", "-q", "-f", "json")
    code, out, err = run("rank", folder, *options, "--model", TINY_MODEL)
    assert code == 0, err
    assert [row["status"] for row in json.loads(out)["checkpoints"]] == ["ok"] * 3
    code, out, err = run("rank", folder, *options)
    if layout.is_arch_recorded:
        assert code == 0, err
    else:
        assert code != 0
        assert "do not record their architecture. Name it with --model" in err


# Folders of torch.distributed.checkpoint.


def dcp_folder(folder: Path, payload: dict[str, Any]) -> Path:
    import torch.distributed.checkpoint as dcp

    dcp.save(payload, checkpoint_id=folder)
    return folder


def shared(folder: Path, whole: torch.Tensor, **changes: Any) -> Path:
    """As two processes write a tensor, a half of its rows each; changes: to the second entry."""
    from torch.distributed.checkpoint import metadata as kinds
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    folder.mkdir(parents=True)
    half = len(whole) // 2
    chunks, places = [], {}
    for rank, first in enumerate((0, half)):
        part = whole[first:][: half if rank == 0 else None].clone()
        name, offset = f"__{rank}_0.distcp", torch.Size([first, 0])
        buffer = io.BytesIO()
        torch.save(part, buffer)
        (folder / name).write_bytes(b"before" + buffer.getvalue() + b"behind")
        chunks.append(kinds.ChunkStorageMetadata(offset, part.shape))
        about = {"relative_path": name, "offset": 6, "length": len(buffer.getvalue())}
        place = _StorageInfo(**about)
        vars(place).update(changes if rank == 1 else {})  # torch 2.6 has no transforms
        places[kinds.MetadataIndex("model.fc.weight", offset)] = place
    kept = kinds.TensorProperties(dtype=whole.dtype)
    entry = kinds.TensorStorageMetadata(kept, whole.shape, chunks)
    metadata = kinds.Metadata(
        {"model.fc.weight": entry}, {"model.fc.weight": ("model", "fc.weight")}, places
    )
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


WHOLE = torch.arange(15.0).reshape(5, 3)


def test_folders_of_dcp_are_ranked(run, images: Path, tmp_path: Path) -> None:
    for e in (1, 2, 3):
        payload = {"model": network(e).state_dict(), "optim": momentum(), "epoch": e}
        dcp_folder(tmp_path / "run" / f"step_{10 * e}", payload)
    options = ("-d", images, "--scores", "linear_probe", "-q", "-f", "json")
    code, out, err = run("rank", tmp_path / "run", *options, "--model", TINY_MODEL)
    assert code == 0, err
    facts = [(r["name"], r["epoch"], r["weights_key"]) for r in json.loads(out)["checkpoints"]]
    assert sorted(facts) == [(f"step_{10 * e}", e, "model") for e in (1, 2, 3)]
    same_features(encoder_for(tmp_path / "run", images, model=TINY_MODEL), network(1))


def test_a_tensor_that_processes_shared_is_put_together(tmp_path: Path) -> None:
    shared(tmp_path / "step_10", WHOLE)
    (found,) = scan_checkpoints(tmp_path)
    assert (found.format, found.step, found.problem) == ("DCP", 10, None)
    assert torch.equal(read_weights(found)["fc.weight"], WHOLE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"relative_path": "../secret.pth"}, "names '../secret.pth', which is no file of its own"),
        ({"relative_path": "__7_0.distcp"}, "cannot open the file: "),
        ({"offset": 10**6}, "__1_0.distcp is cut off"),
        ({"length": -1}, "__1_0.distcp is cut off"),
        ({"offset": 0}, "not a file of torch.save"),
        ({"relative_path": None}, "does not say where a piece lies"),
        ({"transform_descriptors": ["zstd"]}, "its pieces are compressed"),
        ({"relative_path": "__0_0.distcp"}, "fc.weight has 12 of 15 values: files of some"),
    ],
    ids=str,
)
def test_a_damaged_folder_of_dcp_is_named(tmp_path: Path, changes: dict, said: str) -> None:
    save(tmp_path, "secret.pth", weights())
    shared(tmp_path / "run" / "step_10", WHOLE, **changes)
    assert said in problem_of(tmp_path / "run")


def test_a_link_out_of_a_folder_of_dcp_is_not_followed(tmp_path: Path) -> None:
    folder = shared(tmp_path / "run" / "step_10", WHOLE)
    (folder / "__1_0.distcp").rename(tmp_path / "moved")
    (folder / "__1_0.distcp").symlink_to(tmp_path / "moved")
    assert "a link that leads out of the folder" in problem_of(tmp_path / "run")


def test_metadata_that_would_do_harm_is_refused(tmp_path: Path) -> None:
    folder = shared(tmp_path / "step_10", WHOLE)
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    assert "refused: it holds os.system" in problem_of(tmp_path)
    (folder / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    assert "names no tensors" in problem_of(tmp_path)


def test_a_checkpoint_of_lightnings_fsdp_is_one(tmp_path: Path) -> None:
    folder = dcp_folder(tmp_path / "epoch=1-step=10.ckpt", {"model": weights()})
    save(folder, "meta.pt", {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.6"})
    (found,) = scan_checkpoints(tmp_path)
    assert (found.epoch, found.step, found.weights_key) == (1, 10, "model")
    assert found.epoch_from == "file"


def test_a_state_of_accelerates_fsdp_is_named_by_its_folder(tmp_path: Path) -> None:
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        dcp_folder(folder / "pytorch_model_fsdp_0", {"model": weights(step)})
        dcp_folder(folder / "optimizer_0", {"optimizer": momentum()})
    assert [c.step for c in scan_checkpoints(tmp_path)] == [10, 20]


# What is a part.


def test_parts_of_a_network_that_was_trained_in_parallel_parts_are_named(tmp_path: Path) -> None:
    for rank in (0, 1):
        name = f"iter_0000100/mp_rank_0{rank}/model_optim_rng.pt"
        save(tmp_path / "megatron", name, {"model": weights(rank), "iteration": 100})
        payload = {"module": weights(rank), "ds_version": "0.14"}
        save(tmp_path / "ds", f"global_step1/mp_rank_0{rank}_model_states.pt", payload)
    for run_folder in (tmp_path / "megatron", tmp_path / "ds"):
        said = {c.problem for c in scan_checkpoints(run_folder)}
        assert len(said) == 1
        assert "--target-tensor-parallel-size 1" in str(said)


def test_an_adapter_is_no_checkpoint(tmp_path: Path) -> None:
    names = [f"base_model.model.layer.{i}.query.lora_{x}.weight" for i in (0, 1) for x in "AB"]
    adapter = tensors(*names, "base_model.model.classifier.weight")
    save(tmp_path, "adapter_model.bin", adapter)
    assert "model.merge_and_unload().save_pretrained(FOLDER)" in problem_of(tmp_path)
    save(tmp_path, "adapter_model.bin", {"state_dict": adapter | weights() | weights(1, "b.")})
    assert problem_of(tmp_path) == ""


def test_a_share_of_a_tensor_is_named(tmp_path: Path) -> None:
    save(tmp_path, "model_5.rank_0.pth", weights())
    assert "torch.distributed.checkpoint.save, whose folders are read" in problem_of(tmp_path)


def test_moco_v3_has_a_vision_transformer_of_its_own(images: Path, tmp_path: Path) -> None:
    """Of DINO's shapes, with twice as many heads, which no tensor tells."""
    torch.manual_seed(0)
    name = "vit_small_patch16_224"
    own = timm.create_model(name, num_heads=12, num_classes=0, img_size=32).eval()
    state = below("module.base_encoder.", own.state_dict()) | tensors("module.predictor.0.weight")
    payload = {"epoch": 1, "arch": "vit_small", "state_dict": state}
    save(tmp_path / "run", "checkpoint_0000.pth.tar", payload)
    for model in (None, name):
        same_features(encoder_for(tmp_path / "run", images, model=model), own)
