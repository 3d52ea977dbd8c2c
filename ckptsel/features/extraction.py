"""Features of a checkpoint, and the key under which they are kept.

The key of a cached array is made of what determines it: tensors, images and labels, preprocessing,
model, layer and precision. World size, batch size and worker count do not enter.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.common.devices import PRECISIONS, is_out_of_memory
from ckptsel.errors import FeatureError
from ckptsel.features.encoder import LAST, Encoder
from ckptsel.target.images import digest_of

FEATURES_VERSION = 2
"""Part of the cache key; raised whenever the same inputs would give other features."""

BATCH_VALUES = {"cpu": 64 * 3 * 224 * 224, "cuda": 1024 * 3 * 224 * 224}
"""Values in a first batch: large enough to be fast, halved where memory does not suffice."""

MAX_BATCH = {"cpu": 128, "cuda": 4096}
"""Small images: beyond this a CPU gets slower, since activations leave its caches."""


Read = Callable[[Tensor], dict[str, Tensor]]
"""Prepared samples (N, *shape) on the device -> features (N, D) by name."""


def feature_key(
    digest: str, fingerprint: str, encoder: Encoder, precision: str, layer: str = LAST
) -> str:
    """The key of the features of one checkpoint at one layer, on one set of samples."""
    return digest_of(
        f"features {FEATURES_VERSION}", digest, fingerprint, encoder.key(layer), precision
    )


def extract_features(
    encoder: Encoder,
    samples: NDArray[Any],
    device: str = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
    layers: Sequence[str] = (LAST,),
    on_batch: Callable[[int], None] = lambda n_done: None,
) -> dict[str, NDArray[np.float32]]:
    """Features (N, D), float32, at each layer, of prepared samples (N, *shape), in evaluation mode.

    batch_size: None finds one; it is halved where memory runs out. on_batch: told after each batch how
    many samples are done.
    Raises FeatureError where a feature is not finite, or all samples get the same features.
    """
    encoder.to(device)
    read = partial(encoder.features, layers=layers)
    features = read_in_batches(read, samples, device, precision, batch_size, on_batch)
    for found_features in features.values():
        check_features(found_features)
    return features


def read_in_batches(
    read: Read,
    samples: NDArray[Any],
    device: str = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda n_done: None,
) -> dict[str, NDArray[np.float32]]:
    """What `read` gives of prepared samples (N, *shape), N at least 1, a batch at a time: (N, D) by
    name. batch_size, on_batch: as in `extract_features`."""
    kind = torch.device(device).type
    batch_size = batch_size or first_batch_size(samples.shape[1:], kind)
    features: dict[str, Tensor] = {}
    start = 0
    while start < len(samples):
        batch = samples[start : start + batch_size]
        try:
            found = _read_batch(read, batch, device, PRECISIONS[precision])
        except RuntimeError as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
            batch_size //= 2
            continue
        for name, part in found.items():
            if name not in features:
                features[name] = part.new_empty(len(samples), *part.shape[1:])
            features[name][start : start + len(batch)] = part
        start += len(batch)
        on_batch(start)
    return {name: whole.cpu().numpy() for name, whole in features.items()}


def check_finite(features: NDArray[np.float32]) -> None:
    """Raises FeatureError where features are not finite."""
    most, least = features.max(1, initial=0), features.min(1, initial=0)
    n_bad = int((~np.isfinite(most) | ~np.isfinite(least)).sum())
    if n_bad:
        raise FeatureError(
            f"the features of {n_bad} of {len(features)} images are NaN or infinite: the network "
            "overflows (try --precision float32) or had diverged."
        )


def check_features(features: NDArray[np.float32]) -> None:
    """Raises FeatureError where features are not finite, or the same for all images."""
    check_finite(features)
    # By column: an array of differences would be another copy of the features.
    most, least = features.max(0), features.min(0)
    spread = np.maximum(most - features[0], features[0] - least).max(initial=0)
    if spread <= 1e-6 * np.maximum(most, -least).max(initial=1e-30):
        raise FeatureError(
            f"the features of all {len(features)} images are the same: the network has collapsed, "
            "or the images are all alike."
        )


@torch.inference_mode()
def _read_batch(
    read: Read, batch: NDArray[Any], device: str, autocast_dtype: torch.dtype | None
) -> dict[str, Tensor]:
    # A copy: samples may be a read-only map of a file.
    raw = torch.from_numpy(np.array(batch))
    if device.startswith("cuda"):
        raw = raw.pin_memory().to(device, non_blocking=True)
    enabled = autocast_dtype is not None
    with torch.autocast(torch.device(device).type, dtype=autocast_dtype, enabled=enabled):
        found = read(raw)
    return {name: part.float() for name, part in found.items()}


def first_batch_size(image_shape: tuple[int, ...], kind: str) -> int:
    """Samples in a batch where nobody says how many. kind: of device."""
    values = BATCH_VALUES.get(kind, BATCH_VALUES["cpu"])
    limit = MAX_BATCH.get(kind, MAX_BATCH["cpu"])
    return max(1, min(values // int(np.prod(image_shape)), limit))
