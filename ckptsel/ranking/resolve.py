"""What the settings name, opened: devices, cache, network and target."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import limits_of
from ckptsel.common.devices import why_missing
from ckptsel.common.places import is_url
from ckptsel.common.remote import local_path
from ckptsel.common.streams import say
from ckptsel.errors import UsageError
from ckptsel.features.encoder import Encoder
from ckptsel.features.encoders import ImageEncoder
from ckptsel.features.network import Recorded, recorded_in
from ckptsel.features.registry import build_encoder
from ckptsel.features.store import Cache
from ckptsel.ranking.recorded_model import recorded_model
from ckptsel.ranking.unusable import nothing_to_rank
from ckptsel.settings.rank import RankSettings
from ckptsel.target.target import Target, load_target


def check_devices(devices: Sequence[str]) -> None:
    """Raises UsageError where this machine does not have one of them."""
    for device in devices:
        if reason := why_missing(device):
            raise UsageError(f"the device is {device!r}; {reason}")


def cache_of(settings: RankSettings) -> Cache:
    """The cache that the settings ask for."""
    return Cache.open(
        settings.cache, settings.cache_dir, settings.cache_size, verify=settings.verify
    )


def open_encoder(settings: RankSettings, found: Sequence[Checkpoint], quiet: bool) -> Encoder:
    """The network that is named, or that the files record, with inputs as they record them.

    Raises InputError where it cannot be had.
    """
    recorded = _recorded(found, settings)
    usable = [c for c in found if c.problem is None]
    if settings.model is None and not usable:
        raise nothing_to_rank(found)
    name = settings.model or recorded_model(usable, recorded)
    encoder = build_encoder(name, settings, recorded)
    if not quiet:
        say(*_said_of(encoder, recorded, settings))
    return encoder


def _recorded(found: Sequence[Checkpoint], settings: RankSettings) -> Recorded:
    """What the last checkpoint that can be used says of its network."""
    usable = [c for c in found if c.problem is None]
    if not usable:
        return Recorded()
    return recorded_in(usable[-1], settings.weights, limits_of(settings))


def _said_of(encoder: Encoder, recorded: Recorded, settings: RankSettings) -> list[str]:
    """What was not typed about the inputs, and where it comes from."""
    if not isinstance(encoder, ImageEncoder):
        return []
    lines = [] if encoder.name in (settings.model, recorded.arch) else [f"network: {encoder.name}"]
    values = {k: v for k, v in vars(recorded.inputs).items() if v is not None}
    values = {k: v for k, v in values.items() if getattr(settings, k, None) is None}
    if values:
        known = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
        lines.append(f"inputs as {recorded.name} records them ({recorded.where}): {known}")
    return [f"note: {line}" for line in lines]


def _shown(value: Any) -> str:
    numbers = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in numbers)


def open_target(data: str, settings: RankSettings, quiet: bool, cache: Cache) -> Target:
    """The target's images and splits, fetched where an address names it."""
    place = str(local_path(data, settings.cache_dir, quiet)) if is_url(data) else data
    loaded = load_target(
        place,
        data_root=Path(settings.data_root) if settings.data_root else None,
        image_column=settings.image_column,
        label_column=settings.label_column,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        holdout=settings.holdout,
        max_train_samples=settings.max_train_samples,
        max_eval_samples=settings.max_eval_samples,
        seed=settings.seed,
        cache=cache,
    )
    return dataclasses.replace(loaded, spec=data)
