"""Vision transformers of JAX in `.npz` files (the original ViT, AugReg, big_vision), as timm's tensors.

No JAX is needed. Flax multiplies from the left and keeps heads apart, so that kernels are turned, and
queries, keys and values joined into one. Its layers are called by their class and number, which the two
code bases count differently; big_vision may also stack all blocks in one array (`scan`).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.kinds import REFUSED
from ckptsel.checkpoints.npz_files import names_in_npz, read_npz
from ckptsel.checkpoints.tensors import Storage, StoredTensor
from ckptsel.errors import CheckpointError

Array = NDArray[Any]
Named = Iterator[tuple[str, Array]]

PLACES = ("params/img/", "params/", "opt/target/", "")
"""Where the network lies in a file; that of big_vision's image and text pairs first."""

PARTS = ("embedding/", "cls", "pos_embedding", "Transformer/", "head/", "MAPHead_0/")
"""Of the network; the state of an optimiser may lie beside it."""

POSITIONS, OLD_POSITIONS = "pos_embedding", "Transformer/posembed_input/pos_embedding"

MAX_BLOCKS = 1000
"""Of stacked blocks, whose number is one of the file's words."""


@dataclass(frozen=True)
class Layer:
    """Arrays below a path. block: which of the stacked blocks, None where they are not stacked."""

    arrays: Mapping[str, Array]
    path: str
    block: int | None = None

    def __contains__(self, name: str) -> bool:
        return self.path + name in self.arrays

    def __getitem__(self, name: str) -> Array:
        """Raises KeyError where there is none."""
        array = self.arrays[self.path + name]
        return array if self.block is None else array[self.block]

    def below(self, *names: str) -> "Layer":
        """The first of these layers that there is. Raises KeyError where there is none."""
        for name in names:
            path = f"{self.path}{name}/"
            if any(key.startswith(path) for key in self.arrays):
                return Layer(self.arrays, path, self.block)
        raise KeyError(self.path + names[0])


def read_vision_transformer(path: Path) -> tuple[dict[str, StoredTensor], int]:
    """(tensors by timm's names, heads of an attention). Raises CheckpointError for another network."""
    names = names_in_npz(path)
    place = next((place for place in PLACES if f"{place}embedding/kernel" in names), "")
    parts = tuple(place + part for part in PARTS)
    if f"{place}conv_root/kernel" in names:  # patches of a ResNet's maps
        raise CheckpointError(REFUSED["jax"])
    root = Layer(read_npz(path, [name for name in names if name.startswith(parts)]), place)
    try:
        tensors = {name: _stored(array) for name, array in _network(root)}
        query = _attention_of(_blocks(root)[0])["query/kernel"]
        return tensors, query.shape[-2]
    except (KeyError, IndexError, ValueError) as error:  # a layer is missing, or has another shape
        raise CheckpointError(REFUSED["jax"]) from error


def _stored(array: Array) -> StoredTensor:
    array = np.ascontiguousarray(array)
    data = array.reshape(-1).view(np.uint8).data
    return StoredTensor(array.dtype.name, array.shape, Storage(array.dtype.name, data))


def _network(root: Layer) -> Named:
    yield "patch_embed.proj.weight", root["embedding/kernel"].transpose(3, 2, 0, 1)
    yield "patch_embed.proj.bias", root["embedding/bias"]
    if "cls" in root:
        yield "cls_token", root["cls"]
    yield "pos_embed", root[POSITIONS if POSITIONS in root else OLD_POSITIONS]
    for i, block in enumerate(_blocks(root)):
        yield from _under(f"blocks.{i}", _block(block))
    yield from _under("norm", _norm(root.below("Transformer/encoder_norm")))
    if "head/kernel" in root:
        yield from _under("head", _linear(root.below("head")))
    if "MAPHead_0/probe" in root:
        yield from _under("attn_pool", _pooling(root.below("MAPHead_0")))


def _blocks(root: Layer) -> list[Layer]:
    """Numbered, or stacked, so that every array has a block on its first axis."""
    numbers = itertools.takewhile(
        lambda i: f"Transformer/encoderblock_{i}/LayerNorm_0/scale" in root, itertools.count()
    )
    if "Transformer/encoderblock/LayerNorm_0/scale" not in root:
        return [root.below(f"Transformer/encoderblock_{i}") for i in numbers]
    stacked = root.below("Transformer/encoderblock")
    n_blocks = min(len(stacked["LayerNorm_0/scale"]), MAX_BLOCKS)
    return [dataclasses.replace(stacked, block=i) for i in range(n_blocks)]


def _attention_of(block: Layer) -> Layer:
    return block.below("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")


def _block(block: Layer) -> Named:
    attention = _attention_of(block)
    yield from _under("norm1", _norm(block.below("LayerNorm_0")))
    yield from _under("attn.qkv", _joined(attention, "query", "key", "value"))
    yield from _under("attn.proj", _out(attention.below("out")))
    yield from _under("norm2", _norm(block.below("LayerNorm_2", "LayerNorm_1")))
    yield from _under("mlp", _mlp(block.below("MlpBlock_3", "MlpBlock_0")))


def _pooling(head: Layer) -> Named:
    """Attention of one learnt query to all tokens (SigLIP)."""
    attention = _attention_of(head)
    yield "latent", head["probe"]
    yield from _under("q", _joined(attention, "query"))
    yield from _under("kv", _joined(attention, "key", "value"))
    yield from _under("proj", _out(attention.below("out")))
    yield from _under("norm", _norm(head.below("LayerNorm_0")))
    yield from _under("mlp", _mlp(head.below("MlpBlock_0")))


def _joined(attention: Layer, *names: str) -> Named:
    """Kernels (inputs, heads, width) and biases (heads, width), as one layer."""
    kernels = [attention[f"{name}/kernel"] for name in names]
    biases = [attention[f"{name}/bias"] for name in names]
    yield "weight", np.concatenate([kernel.reshape(len(kernel), -1).T for kernel in kernels])
    yield "bias", np.concatenate([bias.reshape(-1) for bias in biases])


def _out(layer: Layer) -> Named:
    """A kernel (heads, width, outputs)."""
    kernel = layer["kernel"]
    yield "weight", kernel.reshape(-1, kernel.shape[-1]).T
    yield "bias", layer["bias"]


def _mlp(mlp: Layer) -> Named:
    for i in (0, 1):
        yield from _under(f"fc{i + 1}", _linear(mlp.below(f"Dense_{i}")))


def _linear(layer: Layer) -> Named:
    yield "weight", layer["kernel"].T
    yield "bias", layer["bias"]


def _norm(layer: Layer) -> Named:
    yield "weight", layer["scale"]
    yield "bias", layer["bias"]


def _under(prefix: str, named: Named) -> Named:
    return ((f"{prefix}.{name}", array) for name, array in named)
