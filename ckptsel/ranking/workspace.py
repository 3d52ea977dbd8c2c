"""What ranking and confirming share: the target, the network, the device and the cache.

A workspace is made from settings and the checkpoints that were found; then every checkpoint is
audited (matched to the network) before anything is computed with it.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.scan import Checkpoint, read_same_weights, read_weights
from ckptsel.common.devices import default_device, default_precision
from ckptsel.errors import InputError, ModelError, reason_of
from ckptsel.features.encoders import Backbone, build_backbone, is_registered, load_weights
from ckptsel.features.extraction import extract_features, feature_key
from ckptsel.features.store import Cache, default_cache_folder
from ckptsel.settings.rank import RankSettings
from ckptsel.target.pixels import auto_workers, decode
from ckptsel.target.target import Target, load_target


@dataclass
class Workspace:
    """Everything about one target and one architecture.

    time_s collects seconds by stage, notes what a reader of the ranking should know.
    """

    settings: RankSettings
    target: Target
    backbone: Backbone
    cache: Cache
    device: str
    precision: str
    quiet: bool
    time_s: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _pixels: list[NDArray[np.uint8]] | None = None

    def pixels(self) -> list[NDArray[np.uint8]]:
        """Decoded pixels of each image set; decoded when first asked for."""
        if self._pixels is None:
            with self.timed("decode"):
                self._pixels = [
                    decode(
                        images,
                        self.backbone.preprocessing,
                        self.cache.pixels_folder,
                        auto_workers(self.settings.workers, len(images)),
                        self.quiet,
                    )
                    for images in self.target.image_sets
                ]
        return self._pixels

    def load(self, checkpoint: Checkpoint) -> str:
        """Put a checkpoint's weights into the backbone; returns the prefix that its names had.

        Raises CheckpointError where they do not fit, or are not those that were scanned.
        """
        return load_weights(self.backbone, read_same_weights(checkpoint, self.settings.weights))

    def feature_keys(self, checkpoint: Checkpoint) -> list[str]:
        """The cache key of a checkpoint's features on each image set."""
        return [
            feature_key(checkpoint.digest or "", images.fingerprint, self.backbone, self.precision)
            for images in self.target.image_sets
        ]

    def features(self, checkpoint: Checkpoint) -> NDArray[np.float32]:
        """Features (N, D) of all images of the target, from the cache or extracted (then cached).

        Raises FeatureError where they cannot be used.
        """
        keys = self.feature_keys(checkpoint)
        kept = [self.cache.get_features(key) for key in keys]
        parts = [features for features in kept if features is not None]
        if len(parts) == len(keys):
            return np.concatenate(parts)
        pixels = self.pixels()
        with self.timed("features"):
            self.load(checkpoint)
            parts = []
            for key, features, images in zip(keys, kept, pixels, strict=True):
                if features is None:
                    features = extract_features(
                        self.backbone,
                        images,
                        self.device,
                        self.precision,
                        self.settings.batch_size,
                    )
                    self.cache.put_features(key, features)
                parts.append(features)
        return np.concatenate(parts)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of the block to a stage."""
        start = time.monotonic()
        yield
        self.time_s[stage] = self.time_s.get(stage, 0.0) + time.monotonic() - start


def open_workspace(
    settings: RankSettings, found: Sequence[Checkpoint], data: str, quiet: bool
) -> Workspace:
    """The workspace for a target and the architecture that is named, or that the files record.

    Raises InputError where the architecture or the target cannot be had.
    """
    name = settings.model or _recorded_model(found)
    backbone = build_backbone(
        name,
        settings.pool,
        settings.image_size,
        settings.mean,
        settings.std,
        typed=settings.model is not None,
    )
    device = settings.device or default_device()
    folder = Path(settings.cache_dir) if settings.cache_dir else default_cache_folder()
    return Workspace(
        settings,
        _load_target(data, settings),
        backbone,
        Cache(folder if settings.cache else None),
        device,
        settings.precision or default_precision(device),
        quiet,
    )


def audit(found: Sequence[Checkpoint], workspace: Workspace) -> list[Checkpoint]:
    """Each checkpoint matched to the backbone; those that do not fit get a problem.

    Raises InputError where none is left, or any failed and the settings are strict.
    """
    audited = []
    for checkpoint in found:
        if checkpoint.problem is None and checkpoint.copy_of is None:
            try:
                weights = read_weights(checkpoint, workspace.settings.weights)
                prefix = load_weights(workspace.backbone, weights)
                key = f"{checkpoint.weights_key}:{prefix}" if prefix else checkpoint.weights_key
                checkpoint = dataclasses.replace(checkpoint, weights_key=key)
            except Exception as error:  # one file's surprise must not end the run
                checkpoint = dataclasses.replace(checkpoint, problem=reason_of(error))
        audited.append(checkpoint)
    return fail_copies(audited, workspace.settings.strict)


def fail_copies(checkpoints: Sequence[Checkpoint], strict: bool) -> list[Checkpoint]:
    """A copy of a checkpoint that cannot be used cannot be used either. Raises as `audit` does."""
    problems = {c.name: c.problem for c in checkpoints}
    checkpoints = [
        dataclasses.replace(c, problem=problems[c.copy_of])
        if c.copy_of and problems.get(c.copy_of)
        else c
        for c in checkpoints
    ]
    failed = [c for c in checkpoints if c.problem is not None]
    if len(failed) == len(checkpoints):
        raise InputError(_nothing_to_rank(checkpoints))
    if failed and strict:
        raise InputError(
            f"{len(failed)} of {len(checkpoints)} checkpoints cannot be used, and --strict asks for "
            "all of them:\n" + _problems(failed)
        )
    return checkpoints


def _recorded_model(found: Sequence[Checkpoint]) -> str:
    usable = [c for c in found if c.problem is None]
    if not usable:
        raise InputError(_nothing_to_rank(found))
    recorded = sorted({c.arch for c in usable if c.arch})
    names = [name for name in recorded if is_registered(name)]
    if recorded and not names:
        raise ModelError(
            f"the checkpoints record the architecture {', '.join(map(repr, recorded[:3]))}, which is no "
            "name that timm knows. Only such names are taken from files; name the network with "
            "--model: a timm name such as resnet50, or package.module:function of your own."
        )
    if len(names) == 1:
        return names[0]
    if not names:
        raise ModelError(
            "the checkpoints do not record their architecture. Name it with --model: a timm name "
            "such as resnet50, or package.module:function."
        )
    raise ModelError(
        f"the checkpoints record several architectures ({', '.join(names)}). Rank one trajectory "
        "at a time, or name the architecture with --model."
    )


def _load_target(data: str, settings: RankSettings) -> Target:
    return load_target(
        data,
        data_root=Path(settings.data_root) if settings.data_root else None,
        image_column=settings.image_column,
        label_column=settings.label_column,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        holdout=settings.holdout,
        max_train_samples=settings.max_train_samples,
        max_eval_samples=settings.max_eval_samples,
        seed=settings.seed,
    )


def _nothing_to_rank(checkpoints: Sequence[Checkpoint]) -> str:
    return (
        f"none of the {len(checkpoints)} checkpoints can be used, so there is nothing to rank:\n"
        + _problems([c for c in checkpoints if c.problem])
    )


def _problems(failed: Sequence[Checkpoint]) -> str:
    return "\n".join(f"  {c.name}: {c.problem}" for c in failed if not c.copy_of)
