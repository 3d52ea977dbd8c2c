"""What strangers wrote: small twins of each kind of file that was found in public repositories.

Each is tried as a new user would: the folder as it lies there, one command, read the sentence, do what
it says, and it works.
"""

import functools
import io
import json
import pickle
import subprocess
import sys
import tarfile
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.kinds import kind_of_bytes
from ckptsel.checkpoints.records import Accuracy, fractions_of
from ckptsel.checkpoints.scan import scan, scan_checkpoints
from ckptsel.checkpoints.tensors import Storage, StoredTensor
from ckptsel.checkpoints.trajectory import trajectory_notes
from ckptsel.checkpoints.walk import find_checkpoint_files
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import InputError
from ckptsel.features import cifar_resnet  # noqa: F401  (registers the architectures)
from tests.conftest import TINY_MODEL

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


class Odd(nn.Module):
    """A module of somebody's own: nested, with buffers, of which one is not kept, and no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 2)})
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("scratch", torch.zeros(9), persistent=False)
        self.extra = nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks["b"](self.stem(x).mean((2, 3)) * self.scale)


def weights(seed: int = 0, prefix: str = "", width: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("conv1.weight", "fc.weight", "fc.bias")
    return {prefix + name: torch.randn(3, width, generator=generator) for name in names}


def save(folder: Path, name: str, payload: object, **options) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(payload, path, **options)
    return path


def only(root: Path, weights: str = "auto") -> Checkpoint:
    (checkpoint,) = scan_checkpoints(root, weights)
    return checkpoint


def problem_of(root: Path) -> str:
    return only(root).problem or ""


def check_same(found: Checkpoint, expected: dict[str, torch.Tensor], choice: str = "auto") -> None:
    assert found.problem is None
    read = read_weights(found, choice)
    assert list(read.keys() ^ expected.keys()) == []
    assert all(torch.equal(read[name], expected[name].detach()) for name in expected)


# Epochs that only names tell.


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """A trial of three data-set sizes, whose names end in numbers."""
    for n in (100, 20, 7):
        save(tmp_path / "runs", f"model_{n}.pth", weights(n))
    return tmp_path / "runs"


def test_an_epoch_from_a_name_is_marked_and_said(run, numbered: Path) -> None:
    code, out, err = run("inspect", numbered)
    assert code == 0
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["7?", "20?", "100?"]
    assert (
        "note: the epoch of 3 files (model_7, model_20, model_100) is the number at the end" in err
    )
    code, out, err = run("inspect", numbered, "--order", "name")
    assert (code, out.split().index("model_7") < out.split().index("model_20")) == (0, True)
    assert "?" not in out + err


def test_a_pattern_says_what_the_epoch_is(run, tmp_path: Path) -> None:
    for epoch, seed in ((3, 8), (1, 9)):
        save(tmp_path, f"e{epoch}_net_{seed}.pth", weights(epoch))
    code, out, err = run("inspect", tmp_path, "--epoch-regex", "e([0-9]+)_", "-f", "json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["epoch"], row["epoch_from"]) for row in rows] == [
        (1, "epoch-regex"),
        (3, "epoch-regex"),
    ]
    assert "marked ?" not in err
    assert "marked ?" in run("inspect", tmp_path)[2]


@pytest.mark.parametrize("pattern", ["e(", "epoch", ""])
def test_a_pattern_that_cannot_tell_an_epoch_is_refused(run, tmp_path: Path, pattern: str) -> None:
    code, _, err = run("inspect", tmp_path, f"--epoch-regex={pattern}")
    assert code == 2
    assert "--epoch-regex is" in err and "whose first group is the epoch, such as ep([0-9]+)" in err


@pytest.mark.parametrize(
    ("by", "names"),
    [("name", "abc"), ("epoch", "cba"), ("step", "bca"), ("mtime", "bac"), (None, "cba")],
)
def test_the_order_is_what_the_user_says(tmp_path: Path, by: str | None, names: str) -> None:
    import os

    from ckptsel.checkpoints.order import Order

    for name, epoch, step, time in (("a", 3, 30, 200), ("b", 2, 10, 100), ("c", 1, 20, 300)):
        payload = {"epoch": epoch, "global_step": step, "state_dict": weights(epoch)}
        os.utime(save(tmp_path, f"{name}.pth", payload), (time, time))
    found = scan_checkpoints(tmp_path, order=Order(by))
    assert "".join(c.name for c in found) == names


def test_files_of_other_shapes_are_no_trajectory(tmp_path: Path) -> None:
    for n, width in ((1, 2), (2, 2), (3, 5)):
        save(tmp_path, f"model_{n}.pth", weights(n, width=width))
    notes = " ".join(scan(tmp_path).notes())
    assert (
        "these are no trajectory: the tensors of 2 networks differ in name or shape: 2 files (model_1, "
        "model_2), model_3. Put the files of one run into a folder of their own, and give that"
        in notes
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ("a/epoch1", "a/epoch2", "b/epoch1", "b/epoch2"),
            "2 folders hold several checkpoints each",
        ),
        (("s0_epoch=3", "s1_epoch=3", "s1_epoch=4"), "2 files (s0_epoch=3, s1_epoch=3) are all of"),
    ],
)
def test_several_runs_are_said_to_be_no_trajectory(tmp_path: Path, names, said: str) -> None:
    for seed, name in enumerate(names):
        save(tmp_path, f"{name}.pth", weights(seed))
    assert said in " ".join(scan(tmp_path).notes())


@pytest.mark.parametrize("name", ["seed_{}", "trial-{}/model", "fold{}"])
def test_names_that_count_something_else_are_no_epochs(tmp_path: Path, name: str) -> None:
    for n in (1, 2):
        save(tmp_path, f"{name.format(n)}.pth", weights(n))
    found = scan(tmp_path)
    assert [c.epoch for c in found.checkpoints] == [None, None]
    (note,) = found.notes()
    assert note.startswith("these may be no trajectory: the names of 2 files (")
    assert note.endswith("s. Put the files of one run into a folder of their own, and give that")


def test_one_run_below_a_numbered_folder_is_a_trajectory(tmp_path: Path) -> None:
    for n in (1, 2):
        save(tmp_path, f"version_0/checkpoints/epoch_{n}.pth", weights(n))
    assert "no trajectory" not in " ".join(scan(tmp_path).notes())


def made(epoch: float | None = None, step: int | None = None, source: str = "file") -> Checkpoint:
    name = f"m{epoch}{step}"
    return Checkpoint(name, Path(name), epoch=epoch, step=step, epoch_from=source, weights_key="m")


@pytest.mark.parametrize("epochs", [(1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 2), (10, 20, 30)])
def test_a_whole_run_of_few_epochs_has_no_gap(epochs: tuple[int, ...]) -> None:
    assert "gap" not in " ".join(trajectory_notes([made(e) for e in epochs]))


@pytest.mark.parametrize(
    ("pattern", "is_said"), [("model_{}", False), ("{}_a", True), ("seed{}/epoch_{}", False)]
)
def test_gaps_are_told_where_numbers_are_epochs(
    tmp_path: Path, pattern: str, is_said: bool
) -> None:
    """Not of numbers that may count anything, nor between several runs."""
    for n in (20, 30, 100):
        payload = {"state_dict": weights(n), **({"epoch": n} if is_said else {})}
        save(tmp_path, f"{pattern.format(n, n)}.pth", payload)
    notes = " ".join(scan(tmp_path).notes())
    assert ("starts at epoch 20" in notes, "has a gap" in notes) == (is_said, is_said)


def test_a_step_from_a_name_is_called_a_step(tmp_path: Path) -> None:
    (note,) = trajectory_notes([made(step=n, source="name") for n in (10, 20)])
    assert note.startswith("the step of 2 files")
    save_file(weights(), save(tmp_path, "checkpoint-10/x", {}).parent / "model.safetensors")
    (tmp_path / "checkpoint-10/x").unlink()
    assert (
        "step 10?"
        in subprocess.run(
            [sys.executable, "-m", "ckptsel", "inspect", str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


def test_epochs_that_do_not_decide_the_order_are_said(tmp_path: Path) -> None:
    for name, epoch in (("a", 9), ("b", 2)):
        save(tmp_path, f"{name}.pth", {"epoch": epoch, "state_dict": weights(epoch)})
    save(tmp_path, "c.pth", weights())
    assert "the order is not that of the epochs: none is known of c" in scan(tmp_path).notes()


def test_a_copy_without_an_epoch_does_not_decide_the_order(tmp_path: Path) -> None:
    for name, epoch in (("a", 9), ("b", 2)):
        save(tmp_path, f"{name}.pth", {"epoch": epoch, "state_dict": weights(epoch)})
    for name in ("final", "c_1"):
        save(tmp_path, f"{name}.pth", weights(2))
    found = [(c.name, c.copy_of) for c in scan(tmp_path).checkpoints]
    assert found == [("c_1", "b"), ("b", None), ("final", "b"), ("a", None)]


# Several networks in a file.


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two checkpoints of an autoencoder, whose encoder is a network that timm knows."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        encoder = timm.create_model(TINY_MODEL).state_dict()
        payload = {"encoder": encoder, "decoder": weights(seed), "optimizer_enc": {"a": weights()}}
        save(tmp_path / "ckpts", f"epoch_{seed}.pth", payload)
    return tmp_path / "ckpts"


def test_several_networks_are_named_with_what_to_type(run, pairs: Path) -> None:
    code, out, _ = run("inspect", pairs)
    assert code == 0
    said = "it holds 2 networks, under the keys encoder, decoder: say which with --weights, as in "
    assert f"2 files (epoch_1, epoch_2): {said}--weights encoder." in out
    code, out, _ = run("inspect", pairs, "--weights", "encoder", "-f", "json")
    assert [(row["problem"], row["weights_key"]) for row in json.loads(out)] == [
        (None, "encoder"),
        (None, "encoder"),
    ]


def test_the_network_that_fits_the_model_is_taken(run, pairs: Path, images: Path) -> None:
    options = ("-d", images, "--model", TINY_MODEL, "--scores", "linear_probe", "-q")
    code, out, err = run("rank", pairs, *options, "-f", "json")
    assert code == 0, err
    ranking = json.loads(out)
    assert (ranking["settings"]["weights"], ranking["settings"]["order"]) == ("encoder", None)
    assert (
        f"--weights encoder: of encoder, decoder, the one that fits {TINY_MODEL}"
        in ranking["notes"]
    )
    _, out, _ = run("rank", pairs, *options)
    assert " 1? " in out and " 2? " in out
    assert "what is marked ? is the epoch that names of files carry" in out


def test_an_epoch_from_a_name_is_not_exported_as_recorded(
    run, pairs: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranking"
    options = ("-d", images, "--model", TINY_MODEL, "--scores", "linear_probe", "-q", "-o", out)
    assert run("rank", pairs, *options)[0] == 0
    assert run("pick", out, "--to", tmp_path / "picked" / "best.safetensors")[0] == 0
    found = only(tmp_path / "picked")
    assert (found.problem, found.epoch, found.weights_key) == (None, None, "")


def test_two_networks_that_both_fit_are_left_to_the_user(run, images: Path, tmp_path: Path) -> None:
    payload = {n: timm.create_model(TINY_MODEL).state_dict() for n in ("netA", "netB")}
    save(tmp_path / "ckpts", "epoch_1.pth", payload)
    options = ("-d", images, "--model", TINY_MODEL, "--scores", "linear_probe", "-q")
    code, _, err = run("rank", tmp_path / "ckpts", *options)
    assert code == 3
    assert "as in --weights netA." in err
    assert run("rank", tmp_path / "ckpts", *options, "--weights", "netB")[0] == 0


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"MODEL_STATE": weights(), "EPOCHS_RUN": 40}, "MODEL_STATE"),
        ({"my_net": weights(), "optimizer": {"x": weights(1)}}, "my_net"),
        ({"backbone": weights(), "projector": weights(1)}, "backbone"),
        ({"model": {"encoder": weights()}}, "model.encoder"),
        ({"ema": {"decay": 0.9, "shadow": weights()}, "model": weights(1)}, "ema.shadow"),
        ({"online": weights(), "target": weights(1)}, "online"),
        ((weights(), 3), "0"),
        (
            {
                "classy_state_dict": {
                    "base_model": {"model": {"trunk": weights(), "heads": weights(2)}}
                }
            },
            "classy_state_dict.base_model.model.trunk",
        ),
    ],
    ids=str,
)
def test_keys_in_capitals_and_below_others_are_found(tmp_path: Path, payload, key: str) -> None:
    save(tmp_path, "a.pth", payload)
    found = only(tmp_path)
    assert found.weights_key == key
    check_same(found, weights())


ONE = torch.ones(2, 2)
MOCO = {f"module.{name}.{part}": t for name, seed in (("encoder_q", 0), ("encoder_k", 1))
        for part, t in weights(seed).items()} | {"module.queue": torch.randn(4, 4)}  # fmt: skip
BYOL = weights(0, "online_network.") | weights(1, "target_network.")
SOLO = weights(0, "backbone.") | weights(1, "momentum_backbone.") | {"projector.0.weight": ONE}
DINO = weights(0, "student.backbone.") | weights(1, "teacher.backbone.")


@pytest.mark.parametrize("names", [MOCO, BYOL, SOLO, DINO], ids=["MoCo", "BYOL", "solo", "DINO"])
def test_of_a_network_and_its_average_one_is_chosen(tmp_path: Path, names) -> None:
    save(tmp_path, "checkpoint_0001.pth.tar", {"state_dict": names, "epoch": 1})
    for choices, seed in (
        (("raw", "student", "online"), 0),
        (("ema", "teacher", "momentum", "target"), 1),
    ):
        for choice in choices:
            read = read_weights(only(tmp_path, choice), choice)
            values = {n.rpartition("conv1")[2]: t for n, t in read.items() if "conv1" in n}
            assert len(values) == 1
            assert torch.equal(values[".weight"], weights(seed)["conv1.weight"])
    auto = only(tmp_path)
    assert len(read_weights(auto)) == len(names)
    assert "holds a network twice, once as an average" in auto.notes[0]


@pytest.mark.parametrize(("online", "average"), [("encoder_q", "encoder_k"), ("online", "target")])
@pytest.mark.parametrize(("choice", "is_online"), [("auto", True), ("momentum", False)])
def test_the_prefix_of_the_encoder_is_found(
    run, tmp_path: Path, images: Path, online: str, average: str, choice: str, is_online: bool
) -> None:
    """Whichever lies first in the file."""
    torch.manual_seed(1)
    made = {name: timm.create_model(TINY_MODEL).state_dict() for name in (average, online)}
    names = {f"module.{part}.{n}": t for part, state in made.items() for n, t in state.items()}
    names |= {"module.queue": torch.randn(4, 4)}
    save(tmp_path / "ckpts", "checkpoint_0001.pth.tar", {"state_dict": names, "epoch": 1})
    options = ("-d", images, "--model", TINY_MODEL, "--scores", "linear_probe", "-q")
    code, out, err = run("rank", tmp_path / "ckpts", *options, "--weights", choice, "-f", "json")
    assert code == 0, err
    (row,) = json.loads(out)["checkpoints"]
    assert row["weights_key"] == f"state_dict:{online if is_online else average}."


def test_a_network_that_only_sounds_like_an_average_is_kept_whole(tmp_path: Path) -> None:
    names = weights(0, "source_embed.") | weights(1, "target_embed.", width=4)
    save(tmp_path, "a.pth", names)
    assert len(read_weights(only(tmp_path, "raw"), "raw")) == len(names)


def test_the_first_part_of_names_can_be_asked_for(tmp_path: Path) -> None:
    save(tmp_path, "a.pth", {"state_dict": MOCO})
    found = only(tmp_path, "encoder_k")
    assert {n.partition(".")[0] for n in read_weights(found, "encoder_k")} == {"encoder_k"}
    assert "it has state_dict" in (only(tmp_path, "encoder_x").problem or "")


def test_lightning_keeps_the_average_where_others_keep_the_raw(tmp_path: Path) -> None:
    payload = {
        "state_dict": weights(1),
        "current_model_state": weights(0),
        "averaging_state": {"n_averaged": torch.tensor(3)},
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 9,
    }
    save(tmp_path, "last.ckpt", payload)
    for choice, seed in (("auto", 1), ("ema", 1), ("raw", 0)):
        check_same(only(tmp_path, choice), weights(seed), choice)


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.module.",
        "module._fsdp_wrapped_module._checkpoint_wrapped_module.",
        "_module.",
        "module.module._orig_mod._fsdp_wrapped_module.",
    ],
)
def test_wrappers_in_any_nesting_are_taken_off(tmp_path: Path, prefix: str) -> None:
    save(tmp_path, "a.pth", weights(0, prefix) | {"n_averaged": torch.tensor(3)})
    check_same(only(tmp_path), weights())


def test_wrappers_inside_names_are_taken_off(tmp_path: Path) -> None:
    inner = {n.replace(".", "._fsdp_wrapped_module._orig_mod."): t for n, t in weights().items()}
    save(tmp_path, "a.pth", inner)
    check_same(only(tmp_path), weights())


# What lies beside weights, or around them.


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 3}, nn.DataParallel])
def test_a_whole_pickled_module_gives_its_state_dict(tmp_path: Path, wrap, is_zip: bool) -> None:
    module = Odd()
    save(tmp_path, "model.pth", wrap(module), _use_new_zipfile_serialization=is_zip)
    found = only(tmp_path)
    check_same(found, module.state_dict())
    assert found.notes[0].startswith("a whole pickled module: its class (")
    assert found.notes[0].endswith("was not run, its tensors were taken")


def test_the_class_of_a_whole_module_is_what_to_type(run, images: Path, tmp_path: Path) -> None:
    save(tmp_path, "run/model.pth", Odd())
    code, _, err = run("rank", tmp_path / "run", "-d", images, "-q")
    assert code == 3
    assert err.endswith("try --model tests.test_strangers:Odd.\n")


def test_a_class_that_does_harm_when_it_is_made_is_not_run(tmp_path: Path) -> None:
    """Of a module that the reader's process could import."""
    marker = tmp_path / "ran"
    (tmp_path / "trap.py").write_text(
        f"import torch\nopen({str(marker)!r}, 'a').close()\n"
        "class Net(torch.nn.Linear):\n"
        f"    def __setstate__(self, state): open({str(marker)!r}, 'a').close()\n"
    )
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import trap\n"
        "torch.save(trap.Net(2, 2), sys.argv[1] + '/model.pth')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    marker.unlink()
    sys.path.insert(0, str(tmp_path))
    try:
        found = only(tmp_path / "model.pth")
    finally:
        sys.path.remove(str(tmp_path))
    assert found.problem is None
    assert found.notes == (
        "a whole pickled module: its class (trap.Net) was not run, its tensors were taken",
    )
    assert "trap" not in sys.modules
    assert not marker.exists()


def test_modules_in_a_circle_end(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module._modules["self"] = module
    save(tmp_path, "model.pth", module)
    assert "hold each other in a circle" in problem_of(tmp_path)


def test_a_weight_that_is_no_tensor_is_no_small_thing(tmp_path: Path) -> None:
    """It would be missing without a word."""
    state = weights() | {"layer.packed": torch.Generator()}
    save(tmp_path, "model.pth", {"state_dict": state | {"layer.packed": functools.partial(print)}})
    said = problem_of(tmp_path)
    assert said.startswith("refused: layer.packed, among its weights, is made by functools.partial")


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A library that is there when a file is written, and not when it is read."""
    module = types.ModuleType("omegaconf_twin")

    class DictConfig:
        def __init__(self) -> None:
            self.__dict__["_content"] = {"lr": 0.1, "none": None}

        def __setstate__(self, state: object) -> None:
            raise AssertionError("run")

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf_twin", "DictConfig"
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf_twin", module)
    return module


def test_settings_of_lightning_are_skipped_and_named(run, tmp_path: Path, foreign) -> None:
    for epoch in (1, 2):
        payload = {
            "state_dict": weights(epoch),
            "epoch": epoch,
            "global_step": 10 * epoch,
            "pytorch-lightning_version": "2.5.0",
            "hyper_parameters": {
                "criterion": nn.functional.cross_entropy,
                "optimizer": functools.partial(print, sep=""),
                "config": foreign.DictConfig(),
            },
        }
        save(tmp_path, f"epoch={epoch}.ckpt", payload)
    _, out, err = run("inspect", tmp_path, "-f", "json")
    rows = json.loads(out)
    assert [(r["problem"], r["epoch"], r["format"]) for r in rows] == [
        (None, 1, "Lightning"),
        (None, 2, "Lightning"),
    ]
    said = "2 files (epoch=1, epoch=2): left out, since it would have to be run to be read: "
    assert (
        f"note: {said}torch.nn.functional.cross_entropy, functools.partial, __builtin__.print and 1 more"
        in err
    )


def test_torchscript_gives_its_weights(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module).save(tmp_path / "scripted.pt")
    found = only(tmp_path)
    check_same(found, module.state_dict())
    assert found.notes == ("a TorchScript program: it was not run, its tensors were taken",)


def test_a_storage_that_ends_within_a_value() -> None:
    storage = Storage(None, memoryview(np.arange(3.0).tobytes() + b"xyz"))
    assert StoredTensor("float64", (3,), storage).values().tolist() == [0, 1, 2]


def test_pickles_of_arrays_are_weights_by_their_names(tmp_path: Path) -> None:
    """Detectron2's model zoo, and state dicts of NumPy."""
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    arrays["turned.weight"] = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    for protocol in (2, 4, 5):
        payload = {"model": arrays, "__author__": "Detectron2"}
        (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(payload, protocol=protocol))
        found = only(tmp_path)
        assert found.format == "Detectron2"
        check_same(found, {name: torch.from_numpy(array) for name, array in arrays.items()})


# Files that are something else.


def test_git_lfs_pointers_are_named_once_with_the_command(run, tmp_path: Path, images) -> None:
    folder = tmp_path / "ckpts"
    folder.mkdir()
    for n in range(14):
        (folder / f"model_{n}.pth").write_bytes(LFS)
    code, out, _ = run("inspect", folder)
    assert code == 0
    assert out.count("pointer of Git LFS") == 1
    assert "14 files (model_0, model_1, model_2 and 11 more): a pointer of Git LFS" in out
    assert "run: git lfs pull" in out
    code, _, err = run("rank", folder, "-d", images, "--model", TINY_MODEL)
    assert code == 3
    assert err.count("git lfs pull") == 1


def test_what_several_files_fail_by_is_said_once(run, trajectory: Path, images: Path) -> None:
    for n in (1, 2, 3, 4):
        (trajectory / f"other_{n}.pth").write_bytes(LFS)
    code, out, _ = run("rank", trajectory, "-d", images, "--scores", "linear_probe", "-q")
    assert code == 0
    assert out.count("pointer of Git LFS") == 1
    assert "failed: 4 files (other_1, other_2, other_3 and 1 more): a pointer of Git LFS" in out


@pytest.mark.parametrize(
    "name", ["a.th", "a.t7", "a.pkl", "a.pyth", "a.model", "a.weights", "a", "a.v2"]
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_are_found_whatever_the_suffix(tmp_path: Path, name: str, is_zip: bool) -> None:
    save(tmp_path, name, weights(), _use_new_zipfile_serialization=is_zip)
    check_same(only(tmp_path), weights())


def test_safetensors_are_found_whatever_the_suffix(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.pt")
    check_same(only(tmp_path), weights())


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    """One checkpoint among data, results, and an environment of Python."""
    folder = tmp_path / "littered"
    save(folder, "model_1.pth", weights())
    np.savez(folder / "layers.npz", x=np.zeros(2))
    (folder / "log.pkl").write_bytes(pickle.dumps({"loss": [1, 2], "x": np.zeros(3)}))
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": np.zeros((2, 3), np.uint8)}))
    (folder / "notes.txt").write_text("notes")
    installed = folder / "venv" / "lib" / "python3.7" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "easy-install.pth").write_text("./setuptools.egg\n")
    return folder


def test_what_is_no_checkpoint_is_counted(run, littered: Path) -> None:
    code, out, err = run("inspect", littered)
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "note: 5 other files: " in err
    for kind in ("1 .npz", "1 .txt", "1 .pkl", "1 without a suffix", "1 .pth"):
        assert kind in err
    (littered / "model_1.pth").unlink()
    code, _, err = run("inspect", littered)
    assert code == 3
    assert "no checkpoints below" in err and "5 other files: " in err


def test_a_single_file_that_is_no_checkpoint_says_what_it_is(littered: Path) -> None:
    assert "it holds no weights" in problem_of(littered / "log.pkl")
    assert "arrays of NumPy" in problem_of(littered / "layers.npz")


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is empty"):
        find_checkpoint_files(tmp_path)


def test_the_state_of_an_optimiser_is_no_checkpoint(tmp_path: Path) -> None:
    """Whatever it is called; asked for alone it says what it is."""
    save(tmp_path, "epoch1.pt", weights())
    path = save(tmp_path, "epoch1_opt.pt", torch.optim.SGD(Odd().parameters(), 0.1).state_dict())
    found = scan(tmp_path)
    assert ([c.name for c in found.checkpoints], found.others) == (["epoch1"], {".pt": 1})
    assert problem_of(path) == "it holds the state of an optimiser alone, and no network."


def test_arrays_of_something_else_are_no_weights(tmp_path: Path) -> None:
    """scikit-learn's models have an attribute class_weight."""
    holder = types.SimpleNamespace(class_weight=None, coef_=np.zeros(3), classes_=np.zeros(2))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(vars(holder)))
    assert "it holds no weights" in problem_of(tmp_path / "model.pkl")


def test_quantised_weights_are_named(tmp_path: Path) -> None:
    packed = {"0.scale": torch.tensor(1.0), "0._packed_params._packed_params": (1, None)}
    save(tmp_path, "model.pt", packed)
    assert "it is quantised: give the checkpoint of float numbers" in problem_of(tmp_path)


def test_a_web_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    (tmp_path / "page").write_bytes(b"<html></html>")
    found = scan(tmp_path)
    assert [c.problem[:12] for c in found.checkpoints] == ["a web page, "]
    assert found.others == {"without a suffix": 1}


def test_a_folder_of_optimisers_is_said_to_be_skipped(tmp_path: Path) -> None:
    save(tmp_path, "optimizer_1.pt", {"state": {}})
    with pytest.raises(InputError, match="what is there is skipped \\(optimisers, random states"):
        find_checkpoint_files(tmp_path)


def test_archives_of_checkpoints_are_to_be_unpacked(run, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "ckpts.tar", "w") as archive:
        archive.add(save(tmp_path / "packed", "model_1.pth", weights()), "run/model_1.pth")
    assert "Unpack it: tar -xf FILE" in problem_of(tmp_path / "ckpts.tar")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ckpts.tar.gz").write_bytes(b"x")
    _, _, err = run("inspect", tmp_path / "data")
    assert "Where checkpoints are packed in an archive, unpack it." in err


def test_a_tar_of_images_is_no_checkpoint(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"x")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(picture, "a.png")
    save(tmp_path, "model_1.pth", weights())
    assert [c.name for c in scan_checkpoints(tmp_path)] == ["model_1"]


def test_nothing_outside_of_the_folder_is_looked_at(tmp_path: Path) -> None:
    secret = save(tmp_path / "elsewhere", "secret", weights())
    folder = tmp_path / "ckpts"
    save(folder, "model_1.pth", weights(1))
    (folder / "link").symlink_to(secret)
    found = scan(folder)
    assert [c.name for c in found.checkpoints] == ["model_1"]
    assert found.others == {"without a suffix": 1}


def h5() -> bytes:
    return b"\x89HDF\r\n\x1a\n" + bytes(100) + b"layer_names" + bytes(100)


FOREIGN = {
    "mnist.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x041.10:\xc8", "an ONNX graph"),
    "w.ckpt": (bytes(90) + bytes.fromhex("57fb808b247547db"), "weights of TensorFlow"),
    "m.ckpt-9.index": (bytes(90) + bytes.fromhex("57fb808b247547db"), "weights of TensorFlow"),
    "model.h5": (h5(), "weights of Keras"),
    "net.ckpt": (b"\n\x20\n\x0cconv1.weight\x12\x10\x08", "a checkpoint of MindSpore"),
    "flax_model.msgpack": (b"\x82\xa4step\x01\xa6params\x80", "weights of JAX"),
    "net.pdparams": (b"\x80\x02}q\x00.", "weights of PaddlePaddle"),
    "llama.gguf": (b"GGUF\x03" + bytes(40), "a GGUF file"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_frameworks_are_named_with_what_to_do(run, tmp_path: Path, name: str) -> None:
    data, said = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    code, out, _ = run("inspect", tmp_path)
    assert code == 0
    assert said in out


@pytest.mark.parametrize(
    ("name", "data"),
    [("data.h5", b"\x89HDF\r\n\x1a\n" + bytes(200)), ("x.bin", bytes(50)), ("y.tar", b"a" * 600)],
)
def test_data_in_containers_of_others_is_no_checkpoint(name: str, data: bytes) -> None:
    assert kind_of_bytes(data, data, len(data), name) == ""


def test_a_zip_of_keras_is_named() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.weights.h5", b"")
    data = buffer.getvalue()
    assert kind_of_bytes(data, data, len(data), "a.keras") == "keras"


# Folders.


def test_a_final_model_hides_no_files_beside_it(tmp_path: Path) -> None:
    save_file(weights(9), tmp_path / "model.safetensors")
    for epoch in (1, 2):
        save_file(weights(epoch), tmp_path / f"epoch_{epoch}.safetensors")
    save_file(weights(5), tmp_path / "model-00001-of-00002.safetensors")
    save(tmp_path, "optimizer.pt", {})
    names = {c.name for c in scan_checkpoints(tmp_path)}
    assert names == {"epoch_1", "epoch_2", tmp_path.name}


def test_a_folder_of_orbax_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "default"
    (folder / "d").mkdir(parents=True)
    (folder / "manifest.ocdbt").write_bytes(b"x")
    (folder / "d" / "0123").write_bytes(b"\x80\x02x")
    (found,) = scan_checkpoints(tmp_path)
    assert found.name == "100/default"
    assert (found.problem or "").startswith("weights of JAX (Flax, Orbax")


def test_what_is_read_beside_the_weights_is_not_counted_as_something_else(tmp_path: Path) -> None:
    folder = save(tmp_path, "checkpoint-10/rng_state.pth", {}).parent
    save_file(weights(), folder / "model.safetensors")
    for name in ("config", "trainer_state", "preprocessor_config", "other"):
        (folder / f"{name}.json").write_text("{}")
    assert scan(tmp_path).others == {".json": 1}


def test_a_folder_of_accelerate_is_read(tmp_path: Path) -> None:
    for epoch in (0, 1):
        folder = tmp_path / f"epoch_{epoch}"
        save(folder, "optimizer.bin", {"state": {}})
        save(folder, "scheduler.bin", {})
        (folder / "random_states_0.pkl").write_bytes(pickle.dumps({"a": 1}))
        (folder / "custom_checkpoint_0.pkl").write_bytes(pickle.dumps({"a": 1}))
        save_file(weights(epoch), folder / "model.safetensors")
    found = scan(tmp_path)
    facts = [(c.name, c.epoch, c.problem) for c in found.checkpoints]
    assert facts == [("epoch_0", 0, None), ("epoch_1", 1, None)]
    assert not found.others


def test_deepspeed_is_read_where_it_is_whole_and_named_where_it_is_not(tmp_path: Path) -> None:
    whole = {"module": weights(), "ds_version": "0.14", "global_steps": 100}
    save(tmp_path, "global_step100/mp_rank_00_model_states.pt", whole)
    save(tmp_path, "global_step100/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", {})
    save(tmp_path, "global_step200/zero_pp_rank_0_mp_rank_00_model_states.pt", {"module": {}})
    found = {c.name.split("/")[0]: c for c in scan_checkpoints(tmp_path)}
    assert (found["global_step100"].step, found["global_step100"].format) == (100, "DeepSpeed")
    check_same(found["global_step100"], weights())
    assert "python zero_to_fp32.py . joined/$t --tag $t" in (found["global_step200"].problem or "")


# What is recorded.


@pytest.mark.parametrize(
    ("recorded", "epoch", "step"),
    [
        ({"n_epoch": 7}, 7, None),
        ({"EPOCHS_RUN": 40}, 40, None),
        ({"Epoch": 3, "iteration": 9}, 3, 9),
        ({"meta": {"epoch": 12, "iter": 99}}, 12, 99),
        ({"epochs": 90, "num_epochs": 90}, None, None),
        ({"epoch": True}, None, None),
    ],
)
def test_epochs_under_other_names(tmp_path: Path, recorded, epoch, step) -> None:
    save(tmp_path, "a.pth", {"state_dict": weights(), **recorded})
    found = only(tmp_path)
    assert (found.epoch, found.step) == (epoch, step)


def test_a_bare_number_is_no_epoch_where_the_file_records_a_step(tmp_path: Path) -> None:
    """Detectron2's model_0000099.pth and Ignite's checkpoint_100.pt are numbered by step."""
    save(tmp_path, "model_0000099.pth", {"model": weights(), "iteration": 99})
    found = only(tmp_path)
    assert (found.epoch, found.step, found.epoch_from) == (None, 99, "file")


@pytest.mark.parametrize("key", ["acc", "best_prec1", "best_acc", "top1", "val_acc", "Test_Acc"])
def test_accuracies_under_other_names(tmp_path: Path, key: str) -> None:
    for epoch, value in ((1, 0.9), (2, 40.0), (3, torch.tensor(71.5))):
        save(tmp_path, f"e{epoch}.pth", {"model": weights(epoch), "epoch": epoch, key: value})
    assert [c.source_accuracy for c in scan_checkpoints(tmp_path)] == pytest.approx(
        [0.009, 0.4, 0.715]
    )


def test_accuracies_below_metrics(tmp_path: Path) -> None:
    save(tmp_path, "a.pth", {"model": weights(), "metrics": {"accuracy": 71.5, "loss": 1.0}})
    assert only(tmp_path).source_accuracy == 0.715


def test_percent_or_fraction_is_told_from_all_files(run, tmp_path: Path) -> None:
    for epoch, value in ((1, 0.31), (2, 0.62)):
        save(tmp_path, f"e{epoch}.pth", {"model": weights(epoch), "epoch": epoch, "acc": value})
    code, out, err = run("inspect", tmp_path)
    assert code == 0
    assert "0.31, unknown" in out
    assert "note: acc, which 2 files (e1, e2) recorded, is percent or a fraction" in err
    assert {c.source_accuracy for c in scan_checkpoints(tmp_path)} == {None}


def test_a_network_beside_it_tells_nothing_of_percent(tmp_path: Path) -> None:
    """Another network's 97.4 would make 0.9 % of this run's 0.9."""
    for epoch, value in ((1, 0.4), (2, 0.6), (3, 0.9)):
        save(tmp_path, f"e{epoch}.pth", {"model": weights(epoch), "epoch": epoch, "acc": value})
    other = {"model": {"weight": torch.rand(3, 5)}, "epoch": 9, "acc": 97.4}
    save(tmp_path, "other/e9.pth", other)
    told = {c.name: c.source_accuracy for c in scan_checkpoints(tmp_path)}
    assert told == {"e1": 0.4, "e2": 0.6, "e3": 0.9, "other/e9": pytest.approx(0.974)}


def test_fractions_of_what_is_recorded() -> None:
    recorded = [Accuracy(0.5, "acc"), Accuracy(50, "acc"), Accuracy(0.5, "top1"), None]
    assert fractions_of(recorded) == [0.005, 0.5, None, None]
    assert fractions_of([Accuracy(0.5, "x", 1), Accuracy(50, "x", 100)]) == [0.5, 0.5]
    assert fractions_of([Accuracy(0, "acc")]) == [0.0]
    run = [Accuracy(value, "acc") for value in (0.4, 0.6, 0.9)]
    assert fractions_of(run[:2]) == [None, None], (
        "two epochs of a thousand classes may be below 1 %"
    )
    assert fractions_of(run) == [0.4, 0.6, 0.9]
    assert fractions_of([*run, Accuracy(1.2, "acc")]) == pytest.approx([0.004, 0.006, 0.009, 0.012])
