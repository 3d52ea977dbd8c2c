"""Features of a checkpoint, and the key under which they are kept.

The key of a cached array is made of what determines it: tensors, images and labels, preprocessing,
model, layer and precision. World size, batch size and worker count do not enter.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ckptsel.common.devices import PRECISIONS, is_out_of_memory
from ckptsel.features.encoder import LAST, Encoder
from ckptsel.features.feed import Feed, Samples, begin_to_fetch
from ckptsel.features.sinks import InMemory, OpenSink, in_memory
from ckptsel.target.images import digest_of

FEATURES_VERSION = 2
"""Part of the cache key; raised whenever the same inputs would give other features."""

BATCH_VALUES = {"cpu": 16 * 3 * 224 * 224, "cuda": 1024 * 3 * 224 * 224}
"""Values in a first batch: large enough to be fast, halved where memory does not suffice. On a CPU the
system hands out large activations page by page, anew for each layer: four times as many take up to 1.8
times as long."""

CORES_SERVED = 4
"""Cores that a first batch on a CPU keeps busy; more get a larger one."""

MAX_BATCH = {"cpu": 128, "cuda": 4096}
"""Small images: beyond this a CPU gets slower, since activations leave its caches."""


Read = Callable[[Tensor], dict[str, Tensor]]
"""Prepared samples (N, *shape) on the device -> features (N, D) by name."""

OnBatch = Callable[[int], None]

Begun = tuple[int, Callable[[], dict[str, Tensor]]]
"""How many samples there are up to the end of a batch, and what waits for what is read of it."""


def feature_key(
    digest: str, fingerprint: str, encoder: Encoder, precision: str, layer: str = LAST
) -> str:
    """The key of the features of one checkpoint at one layer, on one set of samples."""
    return digest_of(
        f"features {FEATURES_VERSION}", digest, fingerprint, encoder.key(layer), precision
    )


def extract_features(
    encoder: Encoder,
    samples: Samples,
    device: str = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
    layers: Sequence[str] = (LAST,),
    on_batch: OnBatch = lambda n_done: None,
    open_sink: OpenSink | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Features (N, D), float32, at each layer, of prepared samples (N, *shape), in evaluation mode.

    samples: of the host, or on the device already.
    batch_size: None finds one; it is halved where memory runs out. on_batch: told after each batch how
    many samples are done. open_sink: where they go; None holds them in memory.
    Raises FeatureError where a feature is not finite, or all samples get the same features; OutputError
    where a sink cannot keep them.
    """
    encoder.to(device)
    read = partial(encoder.features, layers=layers)
    open_sink = open_sink or (lambda _: in_memory(len(samples)))
    with ExitStack() as opened:
        sinks = {layer: opened.enter_context(open_sink(layer)) for layer in layers}
        for found in _batches(read, samples, device, precision, batch_size, on_batch):
            for layer, part in found.items():
                sinks[layer].add(part)
        for sink in sinks.values():
            sink.end()
    return {layer: sink.features() for layer, sink in sinks.items()}


def read_in_batches(
    read: Read,
    samples: Samples,
    device: str = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What `read` gives of prepared samples (N, *shape), N at least 1, a batch at a time: (N, D) by
    name. batch_size: as in `extract_features`."""
    whole: dict[str, InMemory] = defaultdict(lambda: InMemory(len(samples)))
    for found in _batches(read, samples, device, precision, batch_size):
        for name, part in found.items():
            whole[name].add(part)
    return {name: sink.features() for name, sink in whole.items()}


def _batches(
    read: Read,
    samples: Samples,
    device: str,
    precision: str,
    batch_size: int | None,
    on_batch: OnBatch = lambda n_done: None,
) -> Iterator[dict[str, Tensor]]:
    """What `read` gives of each batch, in the order of the samples, on the host.

    A batch is given when the next one is begun, so that a GPU always has something to compute.
    """
    begun = _begun(read, samples, device, precision, batch_size)
    nothing: Begun = (0, dict)
    for (n_done, fetched), _ in pairwise(chain(begun, [nothing])):
        yield fetched()
        on_batch(n_done)


def _begun(
    read: Read, samples: Samples, device: str, precision: str, batch_size: int | None
) -> Iterator[Begun]:
    """Each batch as soon as the device was told of it."""
    kind = torch.device(device).type
    batch_size = batch_size or first_batch_size(samples.shape[1:], kind)
    start = 0
    with Feed(samples, device) as feed:
        while start < len(samples):
            try:
                batch = feed.batch(start, batch_size)
                fetched = begin_to_fetch(_read_batch(read, batch, PRECISIONS[precision]))
            except RuntimeError as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
                batch_size //= 2
                continue
            start += len(batch)
            yield start, fetched


@torch.inference_mode()
def _read_batch(read: Read, batch: Tensor, autocast_dtype: torch.dtype | None) -> dict[str, Tensor]:
    enabled = autocast_dtype is not None
    with torch.autocast(batch.device.type, dtype=autocast_dtype, enabled=enabled):
        found = read(batch)
    return {name: part.float() for name, part in found.items()}


def first_batch_size(image_shape: tuple[int, ...], kind: str) -> int:
    """Samples in a batch where nobody says how many. kind: of device."""
    values = BATCH_VALUES.get(kind, BATCH_VALUES["cpu"])
    if kind == "cpu":
        values *= max(1, torch.get_num_threads() // CORES_SERVED)
    limit = MAX_BATCH.get(kind, MAX_BATCH["cpu"])
    return max(1, min(values // int(np.prod(image_shape)), limit))
