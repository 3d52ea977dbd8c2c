"""Files of `ckptsel pick --to` whose reading is broken, for `load_extractor`."""

import json
import random
from typing import Any

import timm
import torch
from safetensors.torch import load, save

from ckptsel import load_extractor
from ckptsel.features.encoders import build_image_encoder
from tools.fuzzing.mutate import mutate_json
from tools.fuzzing.targets import Target
from tools.made import MODEL

NETWORKS = (MODEL, "test_vit")


def make() -> Target:
    seeds = {f"{name}.safetensors": _picked(name) for name in NETWORKS}
    return Target(seeds, lambda where, name: load_extractor(where / name), _mutate)


def _picked(name: str) -> bytes:
    """A network with random weights, read at all its stages."""
    torch.manual_seed(0)
    encoder = build_image_encoder(name)
    stages = [{**stage.to_dict(), "scale": 1.5} for stage in encoder.stages]
    reading: dict[str, Any] = {
        "network": {"name": name, "arguments": {"patch_size": 16}},
        "preprocessing": encoder.preprocessing.to_dict(),
        "candidate": f"{name}@all",
        "layer": "all",
        "stages": stages,
        "classes": ["a", "b"],
        "version": 1,
    }
    weights = timm.create_model(name, num_classes=0).state_dict()
    return save(weights, {"reading": json.dumps(reading)})


def _mutate(data: bytes, r: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    reading = json.loads(data[8 : 8 + length])["__metadata__"]["reading"]
    broken = mutate_json(reading.encode(), r).decode(errors="replace")
    return save(load(data), {"reading": broken})
