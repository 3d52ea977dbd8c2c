"""Features: what they are, memory that runs out, values that cannot be scored, cache keys."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ckptsel.errors import FeatureError
from ckptsel.features import extraction as module
from ckptsel.features.encoder import LAST
from ckptsel.features.encoders import ImageEncoder, build_image_encoder
from ckptsel.features.extraction import extract_features, feature_key, first_batch_size
from ckptsel.features.sinks import Check, in_store
from ckptsel.features.store import Cache
from ckptsel.target.pixels import normalise
from tests.conftest import TINY_MODEL


@pytest.fixture(scope="module")
def backbone() -> ImageEncoder:
    torch.manual_seed(0)
    return build_image_encoder(TINY_MODEL)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)


def test_features_are_those_of_a_plain_forward(backbone: ImageEncoder, pixels: np.ndarray) -> None:
    images = normalise(torch.from_numpy(pixels), backbone.preprocessing)
    with torch.no_grad():
        expected = backbone.module(images)
    features = extract_features(backbone, pixels, batch_size=4)[LAST]
    assert features.dtype == np.float32
    assert np.allclose(features, expected.numpy(), atol=1e-5)


def test_buffers_do_not_change(backbone: ImageEncoder, pixels: np.ndarray) -> None:
    before = {name: b.clone() for name, b in backbone.module.named_buffers()}
    backbone.module.train()
    extract_features(backbone, pixels)[LAST]
    assert not backbone.module.training
    assert all(torch.equal(b, before[name]) for name, b in backbone.module.named_buffers())


def test_batches_are_halved_where_memory_runs_out(backbone, pixels, monkeypatch) -> None:
    whole = extract_features(backbone, pixels)[LAST]
    forward, sizes = module._read_batch, []

    def small_memory(read, batch, dtype):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return forward(read, batch, dtype)

    monkeypatch.setattr(module, "_read_batch", small_memory)
    assert np.allclose(extract_features(backbone, pixels, batch_size=8)[LAST], whole, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(("threads", "size"), [(1, 16), (2, 16), (8, 32), (16, 64)])
def test_more_cores_get_larger_batches(threads: int, size: int, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert first_batch_size((3, 224, 224), "cpu") == size
    assert first_batch_size((3, 32, 32), "cpu") == 128


def test_other_errors_are_not_taken_for_a_lack_of_memory(backbone, pixels, monkeypatch) -> None:
    def fail(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(module, "_read_batch", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        extract_features(backbone, pixels)[LAST]


def checked(values: NDArray[np.float32], n_batch: int) -> None:
    check = Check()
    for start in range(0, len(values), n_batch):
        check.add(values[start : start + n_batch])
    check.end()


@pytest.mark.parametrize("n_batch", [1, 2, 5])
def test_values_that_cannot_be_scored(n_batch: int) -> None:
    values = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    checked(values, n_batch)
    with pytest.raises(FeatureError, match="features of all 5 images are the same"):
        checked(np.ones((5, 3), dtype=np.float32), n_batch)
    values[2, 1] = np.nan
    with pytest.raises(FeatureError, match="features of 1 of 5 images are NaN or infinite"):
        checked(values, n_batch)


def test_features_go_to_the_store_as_they_come(backbone, pixels, tmp_path: Path) -> None:
    cache, layers = Cache(tmp_path), (LAST, "layer1")

    def extract(n_batch: int, **options: Any) -> dict[str, NDArray[np.float32]]:
        return extract_features(backbone, pixels, batch_size=n_batch, layers=layers, **options)

    in_memory = extract(3)
    kept = extract(3, open_sink=lambda layer: in_store(cache, layer, len(pixels)))
    for layer in layers:
        np.testing.assert_array_equal(kept[layer], in_memory[layer])
        np.testing.assert_array_equal(cache.get_features(layer), in_memory[layer])


def test_features_that_cannot_be_used_are_not_kept(pixels, tmp_path: Path) -> None:
    cache, broken = Cache(tmp_path), build_image_encoder(TINY_MODEL)
    next(broken.module.parameters()).data.fill_(float("nan"))
    with pytest.raises(FeatureError, match="NaN or infinite"):
        extract_features(
            broken, pixels, open_sink=lambda layer: in_store(cache, layer, len(pixels))
        )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_key_is_made_of_what_determines_the_features(backbone: ImageEncoder) -> None:
    settings = dataclasses.replace(backbone.preprocessing, mean=(0.5, 0.5, 0.5))
    larger = dataclasses.replace(backbone.preprocessing, input_size=(3, 64, 64))
    keys = [
        feature_key("digest", "images", backbone, "float32"),
        feature_key("other", "images", backbone, "float32"),
        feature_key("digest", "other", backbone, "float32"),
        feature_key("digest", "images", backbone, "bfloat16"),
    ]
    for change in ({"preprocessing": settings}, {"preprocessing": larger}, {"position": "x"}):
        changed = dataclasses.replace(backbone, **change)
        keys.append(feature_key("digest", "images", changed, "float32"))
    assert len(set(keys)) == len(keys)
    assert feature_key("digest", "images", backbone, "float32") == keys[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_features_of_the_cpu(pixels: np.ndarray) -> None:
    backbone = build_image_encoder(TINY_MODEL)
    expected = extract_features(backbone, pixels)[LAST]
    on_gpu = extract_features(backbone, pixels, device="cuda", precision="bfloat16")[LAST]
    scale = np.abs(expected).max()
    assert np.abs(on_gpu - expected).max() < 0.05 * scale
    there = torch.from_numpy(pixels).to("cuda")
    for samples in (pixels, there):  # sent batch by batch, and there as a whole
        found = extract_features(backbone, samples, "cuda", "bfloat16", batch_size=4)[LAST]
        assert np.abs(found - on_gpu).max() < 0.02 * scale
