"""Entries of the cache: damaged ones are never other numbers; sealed ones of nonsense end in nothing."""

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckptsel.features.store import Cache
from ckptsel.results.scores import ScoreResult
from tools.fuzzing.mutate import mutate_bytes
from tools.fuzzing.targets import Target

KEY = "0123456789abcdef" * 4
RESEALED = b"RESEALED"
"""Marks what is to be kept with a seal of its own, so that the unpacking is tried and not the seal."""


def make() -> Target:
    cache = Cache(Path(tempfile.mkdtemp(prefix="fuzz-cache-")))
    score = ScoreResult(
        0.5, np.ones(9), np.arange(9), ("flag",), {"C": [1.0]}, {"singular_values": np.ones(3)}
    )
    record = {"weights": {"a": torch.ones(2, 3)}, "points": [{"step": 1, "loss": 0.5}], "lr": 0.1}
    put: dict[str, Any] = {"features": np.ones((4, 3), np.float32), "scores": score}
    cache.put_features(KEY, put["features"])
    cache.put_score(KEY, score)
    cache.put_record("transfers", KEY, record)
    kinds = ("features", "scores", "transfers")
    places = {kind: cache._path(kind, KEY) for kind in kinds}
    seeds = {kind: path.read_bytes() for kind, path in places.items() if path is not None}

    def read(where: Path, kind: str) -> object:
        data = (where / kind).read_bytes()
        is_resealed = data.startswith(RESEALED)
        if is_resealed:
            cache.write(kind, KEY, data[len(RESEALED) :])
        else:
            place = places[kind]
            assert place is not None
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        found = _get(cache, kind)
        if found is not None and not is_resealed:
            assert data == seeds[kind], "other bytes were taken for the entry"
        return found

    return Target(seeds, read, _mutate)


def _get(cache: Cache, kind: str) -> object:
    if kind == "features":
        return cache.get_features(KEY)
    return cache.get_score(KEY) if kind == "scores" else cache.get_record(kind, KEY)


def _mutate(data: bytes, r: random.Random) -> bytes:
    if r.random() < 0.5:
        return mutate_bytes(data, r)
    return RESEALED + mutate_bytes(data[:-32], r)
