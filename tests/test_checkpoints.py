"""Checkpoints of every layout: what is found, in which order, and what is refused."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckptsel.checkpoints import (
    Checkpoint,
    find_checkpoint_files,
    natural_key,
    read_weights,
    scan_checkpoints,
    trajectory_notes,
)
from ckptsel.errors import InputError


def weights(seed: int = 0, prefix: str = "") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("conv1.weight", "fc.weight", "fc.bias")
    return {prefix + name: torch.randn(3, 2, generator=generator) for name in names}


ARGS = argparse.Namespace(model="resnet18", lr=0.1, output=pathlib.Path("/runs/1"))

LAYOUTS = {
    "timm": (
        "checkpoint-3.pth.tar",
        {
            "epoch": 3,
            "arch": "resnet18",
            "state_dict": weights(0),
            "state_dict_ema": weights(1),
            "optimizer": {},
            "version": 2,
            "args": argparse.Namespace(eval_metric="top1"),
            "metric": 71.5,
        },
        ("state_dict_ema", 3, None, 0.715, "resnet18"),
    ),
    "PyTorch ImageNet example": (
        "checkpoint.pth.tar",
        {
            "epoch": 9,
            "arch": "resnet18",
            "state_dict": weights(0, "module."),
            "best_acc1": torch.tensor(69.5),
            "optimizer": {},
        },
        ("state_dict", 9, None, 0.695, "resnet18"),
    ),
    "torchvision references": (
        "model_4.pth",
        {
            "model": weights(0),
            "model_ema": {**weights(1, "module."), "n_averaged": torch.tensor(7)},
            "optimizer": {},
            "lr_scheduler": {},
            "epoch": 4,
            "args": ARGS,
        },
        ("model_ema", 4, None, None, "resnet18"),
    ),
    "Lightning": (
        "epoch=3-step=99-val_acc=0.83.ckpt",
        {
            "epoch": 3,
            "global_step": 99,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": weights(0, "model."),
        },
        ("state_dict", 3, 99, 0.83, None),
    ),
    "DINO": (
        "checkpoint0020.pth",
        {
            "student": weights(0, "module.backbone."),
            "teacher": weights(1, "backbone."),
            "epoch": 21,
            "args": argparse.Namespace(arch="vit_small"),
        },
        ("teacher", 21, None, None, "vit_small"),
    ),
    "MAE": (
        "checkpoint-40.pth",
        {"model": weights(0), "optimizer": {}, "epoch": 40, "scaler": {}, "args": ARGS},
        ("model", 40, None, None, "resnet18"),
    ),
    "DINOv2": (
        "training_500/teacher_checkpoint.pth",
        {"teacher": weights(0, "backbone.")},
        ("teacher", None, 500, None, None),
    ),
    "state dict": ("weights_12.pth", weights(0), ("", 12, None, None, None)),
}


def save(folder: Path, name: str, payload: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(payload, path)
    return path


def only(root: Path, weights: str = "auto") -> Checkpoint:
    (checkpoint,) = scan_checkpoints(root, weights)
    return checkpoint


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(tmp_path: Path, layout: str) -> None:
    name, payload, expected = LAYOUTS[layout]
    save(tmp_path, name, payload)
    found = only(tmp_path)
    assert found.problem is None
    assert found.format == layout
    facts = (found.weights_key, found.epoch, found.step, found.source_accuracy, found.arch)
    assert facts == expected


@pytest.mark.parametrize("files", ["single", "sharded", "bin"])
def test_hugging_face_folders(tmp_path: Path, files: str) -> None:
    folder = tmp_path / "checkpoint-500"
    folder.mkdir()
    tensors = weights()
    if files == "single":
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif files == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        index = {}
        for i, (name, tensor) in enumerate(tensors.items()):
            shard = f"model-0000{i + 1}-of-00003.safetensors"
            save_file({name: tensor}, folder / shard)
            index[name] = shard
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    state = {"epoch": 2.5, "global_step": 500, "log_history": [{"eval_accuracy": 0.7, "step": 500}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    (folder / "training_args.bin").write_bytes(b"never opened")
    torch.save({}, folder / "optimizer.pt")
    found = only(tmp_path)
    assert (found.name, found.format, found.problem) == ("checkpoint-500", "Hugging Face", None)
    assert (found.epoch, found.step, found.source_accuracy) == (2.5, 500, 0.7)
    assert found.arch == "resnet18"
    assert set(read_weights(found)) == set(tensors)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors, which is not in" in (only(tmp_path).problem or "")


@pytest.mark.parametrize(
    ("choice", "key"),
    [("auto", "state_dict_ema"), ("raw", "state_dict"), ("ema", "state_dict_ema")],
)
def test_weights_are_chosen_openly(tmp_path: Path, choice: str, key: str) -> None:
    name, payload, _ = LAYOUTS["timm"]
    save(tmp_path, name, payload)
    found = only(tmp_path, choice)
    assert found.weights_key == key
    assert torch.equal(read_weights(found, choice)["fc.bias"], payload[key]["fc.bias"])


def test_weights_that_are_not_there_say_what_is(tmp_path: Path) -> None:
    save(tmp_path, *LAYOUTS["timm"][:2])
    problem = only(tmp_path, "teacher").problem
    assert problem == "it has no weights for --weights teacher; it has state_dict, state_dict_ema."


def test_order_copies_and_skipped_files(tmp_path: Path) -> None:
    for epoch in (10, 9, 1):
        save(tmp_path, f"model_{epoch}.pth", weights(epoch))
    save(tmp_path, "last.pth", weights(10, "module."))
    save(tmp_path, "recovery-2-100.pth.tar", weights(3))
    save(tmp_path, "tmp.pth", weights(3))
    save(tmp_path, "optimizer.pt", {})
    found = scan_checkpoints(tmp_path)
    assert [c.name for c in found] == ["last", "model_1", "model_9", "model_10"]
    assert found[0].copy_of == "model_10"
    assert [c.epoch_from for c in found[1:]] == ["name"] * 3


def test_epochs_of_the_files_decide_the_order(tmp_path: Path) -> None:
    for name, epoch in (("a", 5), ("b", 1), ("c", 3)):
        save(tmp_path, f"{name}.pth", {"epoch": epoch, "state_dict": weights(epoch)})
    assert [c.name for c in scan_checkpoints(tmp_path)] == ["b", "c", "a"]


def test_natural_order() -> None:
    assert sorted(["e10", "e9", "E1"], key=natural_key) == ["E1", "e9", "e10"]


def test_files_that_differ_in_their_suffix_alone_keep_it(tmp_path: Path) -> None:
    save(tmp_path, "a_1.pth", weights(1))
    save_file(weights(2), tmp_path / "a_1.safetensors")
    names = sorted(c.name for c in scan_checkpoints(tmp_path))
    assert names == ["a_1.pth", "a_1.safetensors"]


HARMLESS = {
    "namespace": argparse.Namespace(path=pathlib.Path("/x"), nested=argparse.Namespace(a=1)),
    "scalar": np.float64(0.5),
    "float32": np.float32(0.5),
    "int": np.int64(3),
    "bool": np.bool_(True),
    "array": np.arange(3.0),
    "strings": np.array(["a", "b"]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "datetime": datetime.datetime(2026, 1, 1),
    "timedelta": datetime.timedelta(seconds=5),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_types_are_read(tmp_path: Path, kind: str) -> None:
    save(tmp_path, "a_1.pth", {"state_dict": weights(), "extra": HARMLESS[kind]})
    assert only(tmp_path).problem is None


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw pickle"])
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "ran"
    payload = {"state_dict": weights(), "extra": Hostile(marker)}
    path = tmp_path / "ckpts" / "model_1.pth"
    path.parent.mkdir()
    if kind == "raw pickle":
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=kind == "zip")
    problem = only(path.parent).problem or ""
    assert "refused: it holds posix.system" in problem
    assert "Nothing was run" in problem
    assert not marker.exists()


def broken(kind: str, path: Path) -> None:
    whole = path.with_name("whole")
    torch.save(weights(), whole)
    data = whole.read_bytes()
    whole.unlink()
    contents = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "text": b"epoch,loss\n1,0.5\n",
        "html": b"<html>not found</html>",
        "png": b"\x89PNG\r\n\x1a\n0000",
    }
    path.write_bytes(contents[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "the file is empty"),
        ("truncated", "not a whole file of torch.save"),
        ("text", "file of torch.save"),
        ("html", "file of torch.save"),
        ("png", "file of torch.save"),
    ],
)
def test_broken_files_have_a_problem(tmp_path: Path, kind: str, message: str) -> None:
    broken(kind, tmp_path / "model_1.pth")
    assert message in (only(tmp_path).problem or "")


def test_a_truncated_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "model_1.safetensors"
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-8])
    assert "not a whole safetensors file" in (only(tmp_path).problem or "")


def test_nan_weights_are_named(tmp_path: Path) -> None:
    bad = weights()
    bad["fc.bias"][0, 0] = float("nan")
    save(tmp_path, "model_1.pth", bad)
    assert (only(tmp_path).problem or "").startswith("1 of 6 values of fc.bias are NaN")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (torch.zeros(3), "it holds a Tensor, not a dict"),
        ({"epoch": 3, "loss": 0.5}, "it holds no state dict: its keys are epoch, loss"),
    ],
)
def test_files_without_weights(tmp_path: Path, payload: object, message: str) -> None:
    save(tmp_path, "model_1.pth", payload)
    assert message in (only(tmp_path).problem or "")


def test_formats_that_are_not_read_say_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_1.npz", x=np.zeros(2))
    save(tmp_path, "model_2.rank_0.pth", weights())
    problems = " ".join(c.problem or "" for c in scan_checkpoints(tmp_path))
    assert "NumPy archives" in problems and "Gather the shards" in problems


def test_no_folder_and_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        scan_checkpoints(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="no checkpoints below"):
        find_checkpoint_files(tmp_path)


def made(epoch: int, key: str = "model") -> Checkpoint:
    return Checkpoint(f"e{epoch}", Path(f"e{epoch}"), epoch=epoch, weights_key=key)


def test_notes_on_late_starts_gaps_and_mixed_weights() -> None:
    assert trajectory_notes([made(e) for e in (1, 2, 5, 20, 40, 60, 80)]) == []
    (late,) = trajectory_notes([made(e) for e in (81, 85, 90)])
    assert "starts at epoch 81 of 90" in late
    (gap,) = trajectory_notes([made(e) for e in (1, 5, 60, 80, 90)])
    assert "no checkpoint from 5 to 60" in gap
    (mixed,) = trajectory_notes([made(1), made(2, "model_ema")])
    assert "different keys (model, model_ema)" in mixed
