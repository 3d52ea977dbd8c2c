"""Checkpoints of every layout: what is found, in which order, and what is refused."""

import argparse
import collections
import datetime
import hashlib
import io
import json
import os
import pathlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.tensors import n_not_finite, numpy_type
from ckptsel.checkpoints.trajectory import trajectory_notes
from ckptsel.checkpoints.walk import find_checkpoint_files, natural_key
from ckptsel.checkpoints.weights import read_weights
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


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, ("safetensors", 7, "name", None, None)),
        ({"format": "pt", "config": "{}", "trainer_state": "x"}, ("safetensors", 7, "name")),
        (
            {"format": "ckptsel", "epoch": "5", "source_accuracy": "0.625", "arch": "resnet18"},
            ("ckptsel", 5, "file", 0.625, "resnet18"),
        ),
    ],
)
def test_safetensors_with_and_without_metadata(tmp_path: Path, metadata, expected) -> None:
    save_file(weights(), tmp_path / "checkpoint-007.safetensors", metadata)
    c = only(tmp_path)
    facts = (c.format, c.epoch, c.epoch_from, c.source_accuracy, c.arch)
    assert (c.problem, c.weights_key, c.n_parameters) == (None, "", 18)
    assert facts[: len(expected)] == expected


@pytest.mark.parametrize(
    ("name", "epoch", "step"),
    [
        ("epoch=3-step=99.ckpt", 3, 99),
        ("version_2/checkpoints/epoch=14-val_loss=0.33.ckpt", 14, None),
        ("checkpoint0020.pth", 20, None),
        ("run_epoch300/checkpoint-12.pth", 12, None),
        ("version_0/last.ckpt", None, None),
        ("training_500/teacher_checkpoint.pth", None, 500),
        ("vit_step_1000.pt", None, 1000),
    ],
)
def test_numbers_in_names(tmp_path: Path, name: str, epoch: int, step: int) -> None:
    save(tmp_path, name, weights())
    found = only(tmp_path)
    assert (found.problem, found.epoch, found.step) == (None, epoch, step)


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


def test_a_final_model_does_not_hide_the_checkpoints_below_it(tmp_path: Path) -> None:
    for i, folder in enumerate(("checkpoint-500", "checkpoint-1000", ".")):
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file(weights(min(i, 1)), tmp_path / folder / "model.safetensors")
    save(tmp_path, "training_args.bin", {})
    found = {c.name: (c.problem, c.copy_of) for c in scan_checkpoints(tmp_path)}
    assert found == {
        "checkpoint-500": (None, None),
        "checkpoint-1000": (None, None),
        tmp_path.name: (None, "checkpoint-1000"),
    }


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": 3}'])
def test_a_broken_index_of_shards_has_a_problem(tmp_path: Path, index: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    assert "pytorch_model.bin.index.json" in (only(tmp_path).problem or "")


@pytest.mark.parametrize("log", [[3, None], "x", {"a": 1}, [{"eval_accuracy": None, "step": 5}]])
def test_an_odd_trainer_state_is_no_obstacle(tmp_path: Path, log: object) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    state = {"log_history": log, "global_step": 5, "epoch": float("nan")}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    found = only(tmp_path)
    assert (found.problem, found.epoch, found.step) == (None, None, 5)
    assert found.source_accuracy is None


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors, which is not in" in (only(tmp_path).problem or "")


@pytest.mark.parametrize(
    ("layout", "choice", "key"),
    [
        ("timm", "auto", "state_dict_ema"),
        ("timm", "raw", "state_dict"),
        ("timm", "ema", "state_dict_ema"),
        ("timm", "state_dict", "state_dict"),
        ("torchvision references", "ema", "model_ema"),
        ("torchvision references", "raw", "model"),
        ("DINO", "auto", "teacher"),
        ("DINO", "teacher", "teacher"),
        ("DINO", "student", "student"),
        ("DINO", "raw", "student"),
    ],
)
def test_weights_are_chosen_openly(tmp_path: Path, layout: str, choice: str, key: str) -> None:
    name, payload, _ = LAYOUTS[layout]
    save(tmp_path, name, payload)
    found = only(tmp_path, choice)
    assert found.weights_key == key
    expected = {name.removeprefix("module."): t for name, t in payload[key].items()}
    expected.pop("n_averaged", None)  # a counter, no weight
    chosen = read_weights(found, choice)
    assert chosen.keys() == expected.keys()
    assert all(torch.equal(chosen[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("payload", "choice", "has"),
    [
        (LAYOUTS["timm"][1], "teacher", "state_dict, state_dict_ema"),
        (LAYOUTS["timm"][1], "no_such_key", "state_dict, state_dict_ema"),
        (weights(), "ema", "only one plain state dict (--weights raw)"),
        ({"generator": weights(), "loss": torch.tensor(0.1)}, "ema", "generator"),
    ],
)
def test_weights_that_are_not_there_say_what_is(tmp_path: Path, payload, choice, has) -> None:
    save(tmp_path, "model_1.pth", payload)
    problem = only(tmp_path, choice).problem
    assert problem == f"it has no weights for --weights {choice}; it has {has}."


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_do_not_change_the_digest(tmp_path: Path, prefix: str) -> None:
    save(tmp_path, "a_1.pth", weights())
    save(tmp_path, "b_1.pth", weights(0, prefix))
    save(tmp_path, "c_1.pth", {k: t.half() for k, t in weights().items()})
    bare, wrapped, other = scan_checkpoints(tmp_path)
    assert bare.digest == wrapped.digest != other.digest
    assert set(read_weights(wrapped)) == set(weights())


def test_a_run_of_timm(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-resnet18-32"
    for epoch in (9, 10):
        save(folder, f"checkpoint-{epoch}.pth.tar", LAYOUTS["timm"][1] | {"epoch": epoch})
    best = {"epoch": 3, "arch": "resnet18", "state_dict": weights(5)}
    save(folder, "checkpoint-3.pth.tar", best)
    for name in ("best", "model_best"):
        save(folder, f"{name}.pth.tar", best)
    for name in ("recovery-3-100", "tmp", "tmp-1"):
        save(folder, f"{name}.pth.tar", {"state_dict": weights(6)})
    (folder / "args.yaml").write_text("model: resnet18")
    found = {c.name.split("/")[-1]: c for c in scan_checkpoints(tmp_path)}
    order = ["best", "checkpoint-3", "model_best", "checkpoint-9", "checkpoint-10"]
    assert list(found) == order
    copies = {name: c.copy_of.split("/")[-1] for name, c in found.items() if c.copy_of}
    assert copies == {
        "best": "checkpoint-3",
        "model_best": "checkpoint-3",
        "checkpoint-10": "checkpoint-9",
    }


@pytest.mark.parametrize(
    "odd",
    [
        {"global_step": float("inf")},
        {"epoch": float("nan"), "global_step": float("nan")},
        {"best_acc1": torch.tensor([1.0, 2.0])},
        {"metric": 3.0, "args": argparse.Namespace(eval_metric=1)},
        {"args": {"model": 3}, "arch": None},
    ],
)
def test_odd_records_are_no_obstacle(tmp_path: Path, odd: dict) -> None:
    save(tmp_path, "model.pth", {"state_dict": weights(), **odd})
    found = only(tmp_path)
    facts = (found.problem, found.epoch, found.step, found.source_accuracy, found.arch)
    assert facts == (None,) * 5


def test_order_copies_and_skipped_files(tmp_path: Path) -> None:
    for epoch in (10, 9, 1):
        save(tmp_path, f"model_{epoch}.pth", weights(epoch))
    save(tmp_path, "last.pth", weights(10, "module."))
    save(tmp_path, "recovery-2-100.pth.tar", weights(3))
    save(tmp_path, "tmp.pth", weights(3))
    save(tmp_path, "optimizer.pt", {})
    found = scan_checkpoints(tmp_path)
    assert [c.name for c in found] == ["model_1", "model_9", "last", "model_10"]
    assert found[2].copy_of == "model_10"
    assert [c.epoch_from for c in found] == ["name", "name", None, "name"]


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


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw pickle", "Hugging Face"])
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    payload = {"state_dict": weights(), "extra": Hostile(marker)}
    path = tmp_path / "ckpts" / ("pytorch_model.bin" if kind == "Hugging Face" else "model_1.pth")
    path.parent.mkdir()
    if kind == "raw pickle":
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=kind != "legacy")
    problem = only(path.parent).problem or ""
    assert "refused: it holds posix.system" in problem
    assert "Nothing was run" in problem
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_pickles_of_every_protocol_are_read_and_none_runs(
    tmp_path: Path, protocol: int, is_zip: bool
) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "model_1.pth"
    how = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": is_zip}
    torch.save({"state_dict": weights(), "args": ARGS, "loss": np.float32(2)}, path, **how)
    assert (only(path).problem, only(path).arch) == (None, "resnet18")
    torch.save({"state_dict": weights(), "extra": Hostile(marker)}, path, **how)
    assert "refused: it holds posix.system" in (only(path).problem or "")
    assert not marker.exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_pickles_never_stop_a_scan(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "model_1.pth"
    payload = {"state_dict": weights(), "args": ARGS, "loss": np.float64(1)}
    torch.save(payload, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for i in range(150):
        data = bytearray(whole[: random.integers(1, len(whole))] if i % 2 else whole)
        data[random.integers(min(len(data), 900))] = random.integers(256)
        path.write_bytes(data)
        only(tmp_path)


def test_a_dangling_link_has_a_problem(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to("epoch=3.ckpt")
    assert only(tmp_path).problem == "a link to epoch=3.ckpt, where no file is."


def test_tensors_that_are_not_dense_are_named(tmp_path: Path) -> None:
    save(tmp_path, "model_1.pth", {"a": torch.eye(3).to_sparse()})
    assert "a is sparse" in (only(tmp_path).problem or "")


TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.uint16, torch.uint32, torch.uint64),
)


def odd_tensors() -> dict[str, torch.Tensor]:
    """Tensors of every type, and laid out in every way."""
    base = torch.arange(24.0).view(4, 6)
    tensors = {str(t): torch.tensor([[0, 1, 2], [3, 1, 0]]).to(t) for t in TYPES}
    complex_ = torch.tensor([1 + 2j, 3 - 1j])
    tensors |= {"conj": complex_.conj(), "imaginary": complex_.clone().conj().imag}
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "part": base[1:3, 2:]}
    tensors |= {"transposed": base.T, "step": base[:, ::2], "parameter": torch.nn.Parameter(base)}
    return tensors


def digest_by_torch(state: dict[str, torch.Tensor]) -> str:
    """The digest as torch's own bytes give it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{name} {dense.dtype} {tuple(dense.shape)}\n".encode())
        digest.update(bytes(dense.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_every_type_and_layout_are_read_as_torch_does(
    tmp_path: Path, is_zip: bool
) -> None:
    tensors = odd_tensors()
    if not is_zip:  # which knows no types that came later
        tensors = {k: t for k, t in tensors.items() if "uint" not in k and "float8" not in k}
    torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    found = only(tmp_path)
    assert (found.problem, found.digest) == (None, digest_by_torch(tensors))
    read = read_weights(found)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        bits = [t.detach().resolve_conj().resolve_neg().contiguous() for t in (read[name], tensor)]
        assert torch.equal(bits[0].view(-1).view(torch.uint8), bits[1].view(-1).view(torch.uint8))


def test_safetensors_are_read_as_their_own_library_does(tmp_path: Path) -> None:
    tensors = {k: t.detach().contiguous() for k, t in odd_tensors().items() if "uz" not in k}
    tensors = {k: t.clone() for k, t in tensors.items() if not t.is_complex() and k != "imaginary"}
    save_file(tensors, tmp_path / "a.safetensors")
    found = only(tmp_path)
    assert (found.problem, found.digest) == (None, digest_by_torch(tensors))


@pytest.mark.parametrize("kind", [t for t in TYPES if t.is_floating_point])
def test_what_is_not_finite_is_found_in_every_type(tmp_path: Path, kind: torch.dtype) -> None:
    values = torch.tensor([1.0, float("nan"), 2.0]).to(kind)
    n_bad = int((~torch.isfinite(values.float())).sum())
    assert n_bad == 1
    save(tmp_path, "a.pth", {"w": values, "b": torch.ones(3)})
    assert (only(tmp_path).problem or "").startswith("1 of 3 values of w are NaN")


def test_every_bit_pattern_of_the_small_types_is_judged_as_torch_does() -> None:
    for kind in (t for t in TYPES if t.is_floating_point and t.itemsize <= 2):
        bits = torch.arange(2 ** (8 * kind.itemsize)).to(
            torch.uint8 if kind.itemsize == 1 else torch.uint16
        )
        name = str(kind).removeprefix("torch.")
        stored = bits.numpy().view(numpy_type(name))
        assert n_not_finite(name, stored) == int((~torch.isfinite(bits.view(kind).float())).sum())


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def broken(kind: str, path: Path) -> None:
    whole = path.with_name("whole")
    torch.save(weights(), whole)
    data = whole.read_bytes()
    whole.unlink()
    contents = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "zip": zipped({"model/readme.txt": b"hello"}),
        "pickle": pickle.dumps({"a": 1}),
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
        ("zip", "a zip archive that torch.save did not write"),
        ("pickle", "a plain pickle, not a file of torch.save"),
        ("text", "text, not weights: it begins 'epoch,loss 1,0.5'"),
        ("html", "a web page, not the weights"),
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
        (torch.zeros(3), "it holds a tensor, not a dict"),
        ({"epoch": 3, "loss": 0.5}, "it holds no state dict: its keys are epoch, loss"),
    ],
)
def test_files_without_weights(tmp_path: Path, payload: object, message: str) -> None:
    save(tmp_path, "model_1.pth", payload)
    assert message in (only(tmp_path).problem or "")


def test_formats_that_are_not_read_say_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_1.npz", **{"params/conv/kernel": np.zeros(2)})
    save(tmp_path, "model_2.rank_0.pth", weights())
    problems = " ".join(c.problem or "" for c in scan_checkpoints(tmp_path))
    assert "weights of JAX" in problems and "process's share of a distributed" in problems


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
    broken = made(1).failed("cut short")
    assert trajectory_notes([broken, *(made(e) for e in (9, 20, 40, 60, 80))]) == []
    (mixed,) = trajectory_notes([made(1), made(2, "model_ema")])
    assert "different keys (model, model_ema)" in mixed
