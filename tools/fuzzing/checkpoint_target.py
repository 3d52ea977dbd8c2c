"""Checkpoint files of every container, read as the guarded process reads them."""

import argparse
import io
import json
import pathlib
import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint
from safetensors.torch import save

from ckptsel.checkpoints.reading import inspect_checkpoint
from ckptsel.errors import CheckpointError
from tools.fuzzing.mutate import mutate_bytes, mutate_json, mutate_torch_zip
from tools.fuzzing.targets import Target
from tools.made_jax import vit_arrays

INDEX = "model.safetensors.index.json"


def make() -> Target:
    weights = {"conv.weight": torch.randn(4, 3, 2, 2), "fc.bias": torch.randn(4)}
    many = {"half": torch.ones(3).half(), "b": torch.ones(3).bfloat16(), "i": torch.arange(3)}
    args = argparse.Namespace(model="resnet18", lr=0.1, output=pathlib.Path("/runs"))
    rich = {
        "state_dict": weights | many | {"view": torch.arange(6.0).view(2, 3).T},
        "epoch": np.int64(3),
        "best_acc1": torch.tensor(71.5),
        "args": args,
        "metric": np.float64(71.0),
        "optimizer": {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    }
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    state = {"epoch": 2.5, "global_step": 50, "log_history": [{"eval_accuracy": 0.7, "step": 50}]}
    seeds = {
        "zip_1.pth": _saved(rich),
        "zip4_1.pth": _saved(rich, pickle_protocol=4),
        "legacy_1.pth": _saved(rich, _use_new_zipfile_serialization=False),
        "module_1.pth": _saved({"model": module, "hyper_parameters": {"loss": np.clip}}),
        "module_1.th": _saved(module, _use_new_zipfile_serialization=False),
        "arrays_1.pkl": pickle.dumps({"model": {"conv.weight": np.ones((2, 3))}, "iteration": 9}),
        "jax_1.npz": _npz(vit_arrays(width=4, depth=1, hidden=4, patch=2)),
        "plain_1.safetensors": save(weights | many, {"arch": "resnet18", "epoch": "3"}),
        "trainer_state.json": json.dumps(state).encode(),
        "config.json": json.dumps({"architecture": "resnet18"}).encode(),
        INDEX: json.dumps({"weight_map": dict.fromkeys(weights, "a.safetensors")}).encode(),
    }
    in_pieces = _dcp({"model": weights | many, "epoch": 3, "args": args})
    folders = (
        {INDEX: b"", "trainer_state.json": b"", "config.json": b"", "a.safetensors": save(weights)},
        dict(in_pieces),
    )
    seeds |= in_pieces
    names = dict.fromkeys(seeds, mutate_bytes)
    zips = ("zip_1.pth", "zip4_1.pth", "module_1.pth", "jax_1.npz")
    names |= dict.fromkeys(zips, mutate_torch_zip)
    names |= dict.fromkeys(("trainer_state.json", "config.json", INDEX), mutate_json)
    places = [Path(tempfile.mkdtemp(prefix="fuzz-folder-")) for _ in folders]

    def read(where: Path, name: str) -> object:
        """The broken file, or the folder that it is a part of, whose other files are whole."""
        path = where / name
        for files, folder in zip(folders, places, strict=True):
            if name in files:
                for other, content in files.items():
                    (folder / other).write_bytes(seeds.get(other, content))
                (folder / name).write_bytes(path.read_bytes())
                path = folder
        try:
            return inspect_checkpoint(path, path if path.is_dir() else where, "auto")
        except MemoryError as error:  # which the guarded process answers
            raise CheckpointError("too much memory") from error

    return Target(seeds, read, names, is_limited=True)


def _dcp(payload: dict[str, object]) -> dict[str, bytes]:
    """The files of a folder of torch.distributed.checkpoint."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.distributed.checkpoint.save(payload, checkpoint_id=folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _saved(payload: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
