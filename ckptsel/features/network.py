"""A module, how its features are read, and what a network is built from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import Limits
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import CheckpointError, ModelError
from ckptsel.features.inputs import UNSAID, Inputs
from ckptsel.features.matching import Tensors

Built = TypeVar("Built")

Read = Callable[[Any, Tensor], Tensor]
"""(module, normalised images (N, C, H, W)) -> features (N, D)."""


@dataclass(frozen=True)
class Network:
    """What a registry, a library or the user's own function gave for a name.

    read: takes the features. position: what they are, in words. head: names of the classifier's
    tensors begin with one of these. own: how images go in, by its own account. memory_format: how
    module and images lie in memory. translate: weights of a file under the module's names, where the
    library writes others. key: what decides the network besides its name. advice: what to do where
    features are not pooled. notes: what a reader of the ranking should know.
    """

    module: nn.Module
    read: Read
    position: str
    head: tuple[str, ...]
    own: Inputs
    memory_format: torch.memory_format = torch.contiguous_format
    translate: Callable[[Tensors], Tensors] | None = None
    key: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()
    is_own_code: bool = False


@dataclass(frozen=True)
class Recorded:
    """What the checkpoints say of their network; the last of the trajectory speaks for all.

    name: that checkpoint's. tensors: without values, on torch's device `meta`; none where they cannot
    be read. Others as in `Checkpoint` and its `records`.
    """

    name: str = ""
    arch: str | None = None
    inputs: Inputs = UNSAID
    where: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[], Tensors] = dict

    @cached_property
    def tensors(self) -> Tensors:
        try:
            return {name: tensor.to("meta") for name, tensor in self.read().items()}
        except CheckpointError:
            return {}  # its row says so


UNRECORDED = Recorded()


def recorded_in(checkpoint: Checkpoint, weights: str, limits: Limits) -> Recorded:
    records = checkpoint.records
    return Recorded(
        checkpoint.name,
        checkpoint.arch,
        Inputs.of_records(records.get("inputs", {})),
        records.get("where", ""),
        records.get("arguments", {}),
        records.get("config", {}),
        lambda: read_weights(checkpoint, weights, limits),
    )


@dataclass(frozen=True)
class Request:
    """What a network is built from.

    wanted: what the user or the files say of its inputs, the user first. asked: the user alone.
    """

    wanted: Inputs = UNSAID
    asked: Inputs = UNSAID
    recorded: Recorded = UNRECORDED

    @property
    def tensors(self) -> Tensors:
        return self.recorded.tensors


def pre_logits(module: Any, images: Tensor) -> Tensor:
    """timm's own way."""
    maps = module.forward_features(images)
    return module.forward_head(maps, pre_logits=True)


def input_of_last_linear(module: Any, images: Tensor) -> Tensor:
    """What the linear layer that runs last is given."""
    return last_linear(module, images)[1]


def last_linear(module: nn.Module, images: Tensor) -> tuple[str, Tensor]:
    """(name, input) of the linear layer that ran last. Raises ModelError where there is none."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ModelError(
            f"{type(module).__name__} has no linear layer, so it is not known which activations are "
            "its features. Give it timm's forward_features and forward_head."
        )
    return seen[-1]


def interpolation_note(side: int | None, asked: int | None) -> str:
    """For the ranking: that images are of another size than the positions that were learnt."""
    return (
        f"the position embedding is of {side}x{side} pixels and is interpolated to {asked}x{asked}"
    )


def skeleton(build: Callable[[], Built], is_trusted: bool = True) -> Built:
    """A module, or a network, without values where it can be built so, which takes neither memory nor
    time.

    is_trusted: its size is no stranger's word, so that it is else built with values. Raises ModelError.
    """
    try:
        with torch.device("meta"), _LinspaceHasValues():
            return build()
    except (NotImplementedError, RuntimeError, TypeError) as error:  # it computes with others
        if not is_trusted:
            raise ModelError(f"its size cannot be told before it is built: {error}") from error
        return build()


class _LinspaceHasValues(TorchFunctionMode):
    """Older timm's transformers and ConvNeXts read their drop rates from `linspace`, one a block."""

    N_MOST = 10_000
    """Steps. No network has as many blocks, and a stranger's file names their number."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace:
            steps = args[2] if len(args) > 2 else given.get("steps")
            if isinstance(steps, int) and steps <= self.N_MOST:
                given.setdefault("device", "cpu")
        return func(*args, **given)


def expected_tensors(module: nn.Module) -> Tensors:
    return {name: tensor.to("meta") for name, tensor in module.state_dict().items()}


def first_layer(module: nn.Module) -> tuple[str, nn.Module] | None:
    """(name, layer) of the first layer with weights that mix channels, in the module's own order."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)
    return next(((n, m) for n, m in module.named_modules() if isinstance(m, kinds)), None)
