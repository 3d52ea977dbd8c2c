"""Where a network is read besides its last layer: at named stages, and at all of them side by side.

A stage is the output of a module, as timm's `feature_info` names it; for other networks the modules
below the root are tried on one example. Its maps are averaged on a small grid, its tokens over the
patches, so that one vector an image is left. `all` is every stage, each divided by one number so
that all have the same total variance (as in Head2Toe, arXiv 2201.03529).
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ckptsel.errors import UsageError, did_you_mean
from ckptsel.features.encoder import LAST

ALL = "all"
"""Every stage, side by side."""

AUTO = "auto"
"""`last`, every stage, and `all`: each is a candidate."""

GRIDS = (4, 2)
MAX_WIDTH = 512
"""Maps are averaged on the finest of these grids that leaves at most so many values, else wholly."""

MAX_STAGES = 6
EVERY = 4
"""Of more stages those count that a change of resolution follows; where there are none, so many at equal
distances."""

NO_STAGES = "the network has no stages: no module inside gives maps or tokens once a pass"

MIN_STAGES = 3
"""Of fewer, the largest module is taken apart."""


@dataclass(frozen=True)
class Stage:
    """The output of one module, as one vector an image.

    name: of the module. shape: of its output for one image. is_last: whether channels come last in
    maps. grid: maps are averaged on grid x grid. n_prefix: tokens before the patches.
    """

    name: str
    shape: tuple[int, ...]
    is_last: bool = False
    grid: int = 1
    n_prefix: int = 0

    @property
    def width(self) -> int:
        """Values an image."""
        if len(self.shape) == 3:
            return self.grid**2 * self.shape[-1 if self.is_last else 0]
        return self.shape[-1] * (2 if self.n_prefix else 1)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Height and width of maps; the number of tokens."""
        if len(self.shape) == 3:
            return self.shape[:2] if self.is_last else self.shape[1:]
        return self.shape[:-1]

    def to_dict(self) -> dict[str, Any]:
        """For a ranking's JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "grid": self.grid,
            "n_prefix": self.n_prefix,
            "channels_last": self.is_last,
        }

    def read(self, output: Tensor) -> Tensor:
        """Features (N, width) of the module's output (N, *shape)."""
        if output.ndim == 4:
            maps = output.movedim(3, 1) if self.is_last else output
            return nn.functional.adaptive_avg_pool2d(maps.float(), self.grid).flatten(1)
        if output.ndim == 3:
            patches = output[:, self.n_prefix :].float().mean(1)
            return torch.cat([output[:, 0].float(), patches], 1) if self.n_prefix else patches
        return output.float()


def find_stages(module: nn.Module, forward: Callable[[], Any]) -> tuple[Stage, ...]:
    """The stages of a network, in the order in which they run; none where it has no such outputs.

    forward: runs the network on an example, and gives its features (N, D).
    """
    names = _named_by_timm(module)
    seen = _outputs(module, names, forward)
    if not seen:
        seen = _below_the_root(module, forward)
    n_prefix = getattr(module, "num_prefix_tokens", None)
    taken = (LAST, ALL, AUTO)  # a module of that name could not be asked for
    stages = [_stage_of(name, shape, n_prefix) for name, shape in seen.items() if name not in taken]
    return tuple(_thinned(stages))


@contextlib.contextmanager
def reading(module: nn.Module, stages: Sequence[Stage]) -> Iterator[dict[str, Tensor]]:
    """Features at stages, by name, of whatever the network is run on inside the block."""
    found: dict[str, Tensor] = {}

    def keep(stage: Stage, _module: nn.Module, _inputs: Any, output: Any) -> None:
        # At once: what follows may write over the output (ReLU in place).
        found[stage.name] = stage.read(_tensor(output))

    modules = dict(module.named_modules())
    hooks = [modules[s.name].register_forward_hook(partial(keep, s)) for s in stages]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def choose_layers(asked: Sequence[str], known: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    """The layers that candidates are read at.

    known: gives those that the encoder has; not called where the last alone is asked for, since
    finding stages takes a forward pass. Raises UsageError for a name that there is not.
    """
    if tuple(asked) == (LAST,):
        return (LAST,)
    stages = [layer for layer in known() if layer != LAST]
    every = (LAST, *stages, ALL) if stages else (LAST,)
    for name in asked:
        if name not in (AUTO, *every):
            why = "" if stages else f" ({NO_STAGES})"
            raise UsageError(
                f"no layer {name!r}. There are: {', '.join(every)}{why}."
                + did_you_mean(name, every)
            )
    if AUTO in asked:
        return every
    return tuple(layer for layer in every if layer in asked)


def side_by_side(
    stages: Sequence[Sequence[NDArray[np.float32]]], scales: Sequence[float]
) -> NDArray[np.float32]:
    """Features (N, D_1 + D_2 + ...) of all stages, each divided by its scale.

    stages: of each its features (n, D_i) on every image set, which together have N images.
    """
    lengths, widths = [len(part) for part in stages[0]], [parts[0].shape[1] for parts in stages]
    found = np.empty((sum(lengths), sum(widths)), np.float32)
    columns = np.split(found, np.cumsum(widths)[:-1], axis=1)
    for column, parts, scale in zip(columns, stages, scales, strict=True):
        places = np.split(column, np.cumsum(lengths)[:-1])
        for place, part in zip(places, parts, strict=True):
            np.divide(part, np.float32(scale), out=place)
    return found


def scale_of(features: NDArray[np.float32]) -> float:
    """The root of the total variance of features (N, D), a float32; 1 where all are the same."""
    total = features.var(axis=0, dtype=np.float64).sum()
    return float(np.float32(math.sqrt(total) if total > 0 else 1.0))


def _named_by_timm(module: nn.Module) -> list[str]:
    """Modules of timm's `feature_info`; none where a network has no such list."""
    known = dict(module.named_modules())
    infos = getattr(module, "feature_info", None) or []
    names = [info.get("module", "") for info in infos if isinstance(info, Mapping)]
    return [name for name in dict.fromkeys(names) if name in known]


def _below_the_root(module: nn.Module, forward: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """Outputs of the root's children; while few of these are blocks, the largest is taken apart."""
    inside = dict(module.named_children())
    while True:
        maps = {n: s for n, s in _outputs(module, list(inside), forward).items() if _is_spread(s)}
        blocks = {name for name in inside if _is_block(inside[name])}
        if len(blocks & maps.keys()) >= MIN_STAGES:
            return _last_of_each_step(maps, blocks)
        if not blocks:
            return maps  # plain layers in a row
        largest = max(blocks, key=lambda n: sum(p.numel() for p in inside[n].parameters()))
        inside = dict(_taken_apart(inside, largest))


def _taken_apart(inside: Mapping[str, nn.Module], name: str) -> Iterator[tuple[str, nn.Module]]:
    for other, child in inside.items():
        if other == name:
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        else:
            yield other, child


def _last_of_each_step(
    maps: Mapping[str, tuple[int, ...]], blocks: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Blocks, and of plain layers between them the last: convolution, norm and activation are one."""
    names = [*maps, None]
    return {n: maps[n] for n, after in pairwise(names) if n and (n in blocks or after in blocks)}


def _is_spread(shape: tuple[int, ...]) -> bool:
    """Whether an output still tells places apart: maps of more than one pixel, several tokens."""
    return len(shape) > 1 and math.prod(_stage_of("", shape, None).resolution) > 1


def _is_block(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _outputs(
    module: nn.Module, names: Sequence[str], forward: Callable[[], Any]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs of modules for one image, in the order in which they ran; without those
    that run more than once, whose name does not say which output is meant, and those that do not
    begin with the images (windows, sequences first)."""
    seen: dict[str, tuple[int, ...]] = {}
    runs: Counter[str] = Counter()

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = _tensor(output)
        runs[name] += 1
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.ndim in (2, 3, 4):
            seen[name] = tuple(tensor.shape)

    modules = dict(module.named_modules())
    hooks = [modules[name].register_forward_hook(partial(keep, name)) for name in names]
    try:
        with torch.no_grad():
            n_images = len(forward())
    finally:
        for hook in hooks:
            hook.remove()
    return {n: shape[1:] for n, shape in seen.items() if runs[n] == 1 and shape[0] == n_images}


def _tensor(output: Any) -> Any:
    """The first of several outputs."""
    return output[0] if isinstance(output, tuple | list) and output else output


def _stage_of(name: str, shape: tuple[int, ...], n_prefix: int | None) -> Stage:
    if len(shape) == 3:
        # Maps are square as images are: of channels first, the last two are equal.
        is_last = shape[0] == shape[1] != shape[2]
        channels, side = (shape[2], shape[0]) if is_last else (shape[0], min(shape[1:]))
        fitting = (g for g in GRIDS if g <= side and channels * g * g <= MAX_WIDTH)
        return Stage(name, shape, is_last, next(fitting, 1))
    if len(shape) == 2:
        spare = shape[0] - math.isqrt(shape[0]) ** 2
        return Stage(name, shape, n_prefix=spare if n_prefix is None else n_prefix)
    return Stage(name, shape)


def _thinned(stages: Sequence[Stage]) -> list[Stage]:
    if len(stages) <= MAX_STAGES:
        return list(stages)
    ends = [
        stage
        for stage, following in zip(stages, [*stages[1:], None], strict=True)
        if following is None or following.resolution != stage.resolution
    ]
    if MIN_STAGES <= len(ends) <= MAX_STAGES:
        return ends
    step = math.ceil(len(stages) / EVERY)
    return list(stages[::-1][::step][::-1])
