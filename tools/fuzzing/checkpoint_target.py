"""Checkpoint files of every container, read as the guarded process reads them."""

import argparse
import io
import json
import pathlib
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from ckptsel.checkpoints.reading import inspect_checkpoint
from ckptsel.errors import CheckpointError
from tools.fuzzing.mutate import mutate_bytes, mutate_json, mutate_torch_zip
from tools.fuzzing.targets import Target

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
        "plain_1.safetensors": save(weights | many, {"arch": "resnet18", "epoch": "3"}),
        "trainer_state.json": json.dumps(state).encode(),
        "config.json": json.dumps({"architecture": "resnet18"}).encode(),
        INDEX: json.dumps({"weight_map": dict.fromkeys(weights, "a.safetensors")}).encode(),
    }
    names = dict.fromkeys(seeds, mutate_bytes)
    names |= dict.fromkeys(("zip_1.pth", "zip4_1.pth", "module_1.pth"), mutate_torch_zip)
    names |= dict.fromkeys(("trainer_state.json", "config.json", INDEX), mutate_json)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-hf-"))
    shard = save(weights)

    def read(where: Path, name: str) -> object:
        if not name.endswith(".json"):
            try:
                return inspect_checkpoint(where / name, where, "auto")
            except MemoryError as error:  # which the guarded process answers
                raise CheckpointError("too much memory") from error
        for other in (INDEX, "trainer_state.json", "config.json"):
            (folder / other).write_bytes(seeds[other])
        (folder / "a.safetensors").write_bytes(shard)
        (folder / name).write_bytes((where / name).read_bytes())
        return inspect_checkpoint(folder, folder, "auto")

    return Target(seeds, read, names, is_limited=True)


def _saved(payload: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
