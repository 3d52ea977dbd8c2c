"""Arrays of made vision transformers, under the names of Flax."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def vit_arrays(
    style: str = "big_vision",
    place: str = "params/",
    width: int = 64,
    heads: int = 2,
    depth: int = 6,
    hidden: int = 192,
    patch: int = 16,
    n_positions: int = 5,
    has_class_token: bool = True,
    has_pooling: bool = False,
    seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """style: `original` (the ViT paper's code), `big_vision`, or `stacked` (big_vision's `scan`).
    place: before each name. n_positions: of the embedding; the class token's is one of them in the
    original."""
    generator = np.random.default_rng(seed)

    def some(*shape: int) -> NDArray[np.float32]:
        return (generator.standard_normal(shape) * 0.05).astype(np.float32)

    numbers = (1, 3, 2) if style == "original" else (0, 0, 1)
    block = {"width": width, "heads": heads, "hidden": hidden, "numbers": numbers}
    arrays = {"embedding/kernel": some(patch, patch, 3, width), "embedding/bias": some(width)}
    if has_class_token:
        arrays["cls"] = some(1, 1, width)
    positions = "Transformer/posembed_input/" if style == "original" else ""
    arrays[f"{positions}pos_embedding"] = some(1, n_positions, width)
    if style == "stacked":
        arrays |= _under("Transformer/encoderblock", _block(some, (depth,), **block))
    else:
        for i in range(depth):
            arrays |= _under(f"Transformer/encoderblock_{i}", _block(some, (), **block))
    arrays |= _under("Transformer/encoder_norm", _layer(some, (width,), (width,), "scale"))
    arrays |= _under("head", _layer(some, (width, 10), (10,)))
    if has_pooling:
        pooling = _block(some, (), **block) | {"probe": some(1, 1, width)}
        arrays |= _under("MAPHead_0", {n: a for n, a in pooling.items() if "LayerNorm_1" not in n})
    return {place + name: array for name, array in arrays.items()}


def _block(
    some: Any,
    lead: tuple[int, ...],
    width: int,
    heads: int,
    hidden: int,
    numbers: tuple[int, int, int],
) -> dict[str, NDArray[np.float32]]:
    """lead: axes before each array's own. numbers: of the attention, the MLP and the second norm."""
    attention, mlp, norm = numbers
    shapes = {
        f"MultiHeadDotProductAttention_{attention}/{name}": (
            (width, heads, width // heads),
            (heads, width // heads),
        )
        for name in ("query", "key", "value")
    }
    shapes[f"MultiHeadDotProductAttention_{attention}/out"] = (
        (heads, width // heads, width),
        (width,),
    )
    shapes[f"MlpBlock_{mlp}/Dense_0"] = ((width, hidden), (hidden,))
    shapes[f"MlpBlock_{mlp}/Dense_1"] = ((hidden, width), (width,))
    found: dict[str, NDArray[np.float32]] = {}
    for name, (kernel, bias) in shapes.items():
        found |= _under(name, _layer(some, (*lead, *kernel), (*lead, *bias)))
    for number in (0, norm):
        norms = _layer(some, (*lead, width), (*lead, width), "scale")
        found |= _under(f"LayerNorm_{number}", norms)
    return found


def _layer(
    some: Any, weight: tuple[int, ...], bias: tuple[int, ...], name: str = "kernel"
) -> dict[str, NDArray[np.float32]]:
    return {name: some(*weight), "bias": some(*bias)}


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
