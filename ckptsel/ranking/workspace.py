"""What ranking and confirming share: the target, the network, the device and the cache.

A workspace is made from settings and the checkpoints that were found.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import limits_of
from ckptsel.checkpoints.weights import ReadAhead
from ckptsel.common.devices import default_device, default_precision
from ckptsel.errors import (
    OutputError,
)
from ckptsel.features.candidate import Candidate, candidates_of
from ckptsel.features.encoder import LAST, Encoder
from ckptsel.features.extraction import (
    extract_features,
    feature_key,
    first_batch_size,
    read_in_batches,
)
from ckptsel.features.feed import Samples, place
from ckptsel.features.layers import ALL, AUTO, NO_STAGES, choose_layers, scale_of, side_by_side
from ckptsel.features.sinks import OpenSink, in_memory, in_store
from ckptsel.features.store import Cache
from ckptsel.ranking.memory import MemoryBound, Scoring
from ckptsel.ranking.resolve import cache_of, check_devices, open_encoder, open_target
from ckptsel.settings.rank import RankSettings
from ckptsel.target.duplicates import (
    DUPLICATES_VERSION,
    Duplicates,
    are_pictures,
    find_duplicates,
)
from ckptsel.target.images import ImageSet, digest_of
from ckptsel.target.pixels import UnreadableImages, auto_workers, prepare_all
from ckptsel.target.target import Target


@dataclass
class Held:
    """Which weights a network holds: the digest of their checkpoint, None where that is not known."""

    digest: str | None = None

    def is_of(self, checkpoint: Checkpoint) -> bool:
        return self.digest is not None and self.digest == checkpoint.digest


@dataclass
class Workspace:
    """Everything about one target and one architecture.

    loaded: the target as its source gives it, duplicates included.
    layers: that candidates are read at.
    devices: one for each process that scores; with one this process does.
    time_s collects seconds by stage, notes what a reader of the ranking should know.
    held: the weights that the network holds, where workspaces of several targets share it.
    pulse: told how far a long step is.
    n_results: scores of all candidates; streams: whether all read features a chunk at a time. What
    memory they take depends on both.
    following: the checkpoint whose features are wanted after those of this one, where that is known.
    """

    settings: RankSettings
    loaded: Target
    encoder: Encoder
    layers: tuple[str, ...]
    cache: Cache
    devices: tuple[str, ...]
    precision: str
    quiet: bool
    time_s: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    held: "Held | None" = None
    pulse: Callable[[str], None] = lambda note: None
    n_results: int = 0
    streams: bool = False
    following: Checkpoint | None = None
    _ahead: ReadAhead = field(default_factory=ReadAhead)
    _prepared: list[NDArray[Any]] | None = None
    _samples: list[Samples] | None = None
    _extracted: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where this process computes."""
        return self.devices[0]

    @cached_property
    def target(self) -> Target:
        """The target without duplicates between what is fitted on and what is held out.

        They are looked for when it is first asked for, in the prepared pixels: by then it is known
        that there is something to rank. Raises DataError where too few images are left.
        """
        kind = self.settings.duplicates
        if kind == "keep" or not are_pictures(self.encoder.preparation):
            return self.readable
        return self.readable.without(self._find_duplicates(near=kind == "near"))

    @cached_property
    def readable(self) -> Target:
        """The target without images that cannot be read, where these may be skipped."""
        if not self.settings.skip_unreadable:
            return self.loaded
        with self.timed("decode"):
            unreadable = [self._find_unreadable(images) for images in self.loaded.image_sets]
        return self.loaded.readable(unreadable)

    def _find_unreadable(self, images: ImageSet) -> NDArray[np.int64]:
        """Indices; from the store, where they were found before."""
        key = digest_of("unreadable", self.encoder.preparation.key(), images.fingerprint)
        kept = self.cache.get_record("unreadable", key)
        if kept is None:
            kept = {"indices": torch.empty(0, dtype=torch.int64)}
            try:
                self._prepare(images)
            except UnreadableImages as error:
                kept = {"indices": torch.from_numpy(error.indices)}
            self.cache.put_record("unreadable", key, kept)
        return kept["indices"].numpy()

    def _prepare(self, images: ImageSet) -> NDArray[Any]:
        n_workers = auto_workers(self.settings.workers, len(images))
        preparation, bound = self.encoder.preparation, self.bound
        bound.check_pixels(self._n_bytes_of(images), self.cache.folder is not None)
        return prepare_all(
            images, preparation, self.cache, n_workers, self.quiet, bound.mapped_from
        )

    def _n_bytes_of(self, images: ImageSet) -> int:
        """Of prepared samples."""
        preparation = self.encoder.preparation
        size = math.prod(preparation.shape) * np.dtype(preparation.dtype).itemsize
        return len(images) * size

    @property
    def bound(self) -> MemoryBound:
        """What this process may hold."""
        return MemoryBound(self.settings.memory)

    def check_scoring(self, n_read: int, n_features: int) -> None:
        """Raises UsageError where scores take more memory than they may. n_read: features an image at
        all layers. n_features: at the widest candidate."""
        plan, sizes = self.target.evaluation, [self._n_bytes_of(s) for s in self.target.image_sets]
        scoring = Scoring(
            n_images=len(self.target.labels),
            n_read=0 if self.cache.keeps else n_read,
            n_features=n_features,
            n_classes=self.target.n_classes,
            n_fitted=max(len(fitted) for fitted, _ in plan.folds),
            n_folds=len(plan.folds),
            n_held=len(plan.evaluated) * plan.n_repeats,
            n_results=self.n_results,
            streams=self.streams,
        )
        self.bound.check_scoring(scoring, sizes if self._prepared is not None else [])

    def _check_widths(self, samples: Samples) -> None:
        """`check_scoring` before a pass over all samples, by one of two."""
        self.encoder.to(self.device)
        read = partial(self.encoder.features, layers=self.extracted_layers)
        found = read_in_batches(read, samples[:2], self.device, self.precision, 2)
        widths = {layer: features.shape[1] for layer, features in found.items()}
        every = sum(width for layer, width in widths.items() if layer != LAST)
        wanted = [every if layer == ALL else widths[layer] for layer in self.layers]
        self.check_scoring(sum(widths.values()), max(wanted))

    def _find_duplicates(self, near: bool) -> Duplicates:
        """From the store, where they were found before."""
        key = digest_of(
            f"duplicates {DUPLICATES_VERSION} {near}",
            self.encoder.preparation.key(),
            *(images.fingerprint for images in self.readable.image_sets),
        )
        kept = self.cache.get_record("duplicates", key)
        if kept is None:
            prepared = self.prepared()
            if near:
                self.bound.check_duplicates(sum(map(len, prepared)))
            with self.timed("duplicates"):
                found = find_duplicates(prepared, near)
            kept = {name: torch.from_numpy(array) for name, array in vars(found).items()}
            self.cache.put_record("duplicates", key, kept)
        return Duplicates(**{name: tensor.numpy() for name, tensor in kept.items()})

    def prepared(self) -> list[NDArray[Any]]:
        """Prepared samples of each image set; prepared when first asked for."""
        if self._prepared is None:
            image_sets = self.readable.image_sets
            with self.timed("decode"):
                self._prepared = [self._prepare(images) for images in image_sets]
        return self._prepared

    def samples(self) -> list[Samples]:
        """`prepared` where the device reads them from: on a GPU as a whole, once for all checkpoints,
        where they fit."""
        if self._samples is None:
            self._samples = place(self.prepared(), self.device)
        return self._samples

    def load(self, checkpoint: Checkpoint) -> str:
        """Put a checkpoint's weights into the encoder; returns the prefix that its names had.

        Raises CheckpointError where they do not fit, or are not those that were scanned.
        """
        weights = self._ahead.read(checkpoint, self.settings.weights, limits_of(self.settings))
        if self.held is None:
            return self.encoder.load(weights)
        self.held.digest = None  # what fails may have loaded a part
        prefix = self.encoder.load(weights)
        self.held.digest = checkpoint.digest
        return prefix

    def match(self, checkpoint: Checkpoint) -> str:
        """As `load`, but a checkpoint that fitted the same network before is not read again, unless
        that is code of the user's own, which may have changed."""
        if self.cache.verify or getattr(self.encoder, "is_own_code", False):
            return self.load(checkpoint)
        of = (checkpoint.digest or "", checkpoint.weights_key or "", self.encoder.key(LAST))
        key = digest_of("match", *of)
        kept = self.cache.get_record("matches", key)
        if kept is None:
            kept = {"prefix": self.load(checkpoint)}
            self.cache.put_record("matches", key, kept)
        return str(kept["prefix"])

    def beside(self, data: str, settings: RankSettings) -> "Workspace":
        """A workspace of another target of the same run: it shares the network, and what that holds.

        settings: they differ in what they say of the data alone.
        """
        self.held = self.held or Held()
        return Workspace(
            settings,
            open_target(data, settings, self.quiet, self.cache),
            self.encoder,
            self.layers,
            self.cache,
            self.devices,
            self.precision,
            self.quiet,
            held=self.held,
        )

    @property
    def extracted_layers(self) -> tuple[str, ...]:
        """The layers that one pass reads: `all` is made of the others."""
        if self.layers == (LAST,):
            return self.layers  # stages are not even looked for, which would take a pass
        stages = self.encoder.layers if ALL in self.layers else ()
        wanted = {*self.layers, *stages} - {ALL}
        return tuple(layer for layer in self.encoder.layers if layer in wanted)

    def feature_keys(self, candidate: Candidate) -> list[str]:
        """The key of a candidate's features on each image set."""
        digest = candidate.checkpoint.digest or ""
        if candidate.layer == ALL:
            each = [self.feature_keys(stage) for stage in self._stages_of(candidate)]
            fitted = self.target.evaluation.fit_part.tobytes()
            return [digest_of(ALL, *keys, digest_of(fitted)) for keys in zip(*each, strict=True)]
        return [
            feature_key(digest, images.fingerprint, self.encoder, self.precision, candidate.layer)
            for images in self.target.image_sets
        ]

    def _stages_of(self, candidate: Candidate) -> list[Candidate]:
        stages = [layer for layer in self.encoder.layers if layer != LAST]
        return candidates_of([candidate.checkpoint], stages)

    def features(self, candidate: Candidate) -> NDArray[np.float32]:
        """Features (N, D) of all images of the target, from the store or extracted (then kept).

        One pass of a checkpoint gives all layers: those of the last pass are held, so that the next
        layer of the same checkpoint needs no other where nothing is kept.
        Raises FeatureError where they cannot be used.
        """
        if candidate.layer == ALL:
            stages = [self._by_image_set(stage) for stage in self._stages_of(candidate)]
            return side_by_side(stages, list(self.scales(candidate).values()))
        return np.concatenate(self._by_image_set(candidate))

    def _by_image_set(self, candidate: Candidate) -> list[NDArray[np.float32]]:
        """Features (n, D) on each image set; those of the store are mapped."""
        keys = self.feature_keys(candidate)
        kept = [features for key in keys if (features := self._find(key)) is not None]
        if len(kept) == len(keys):
            return kept
        self._extract(candidate.checkpoint)
        return [self._extracted[key] for key in keys]

    def scales(self, candidate: Candidate) -> dict[str, float]:
        """What each stage is divided by, by its name, where a candidate is read at all of them; empty
        elsewhere. From the store, or fitted on the fitting part (then kept)."""
        kept = self.kept_scales(candidate)
        if kept is None:
            fitted = self.target.evaluation.fit_part
            stages = self._stages_of(candidate)
            kept = {stage.layer: scale_of(self.features(stage)[fitted]) for stage in stages}
            self.keep_scales(candidate, kept)
        return kept

    def kept_scales(self, candidate: Candidate) -> dict[str, float] | None:
        """Those of the store; None where it has none."""
        if candidate.layer != ALL:
            return {}
        return self.cache.get_record("scales", self._scales_key(candidate))

    def keep_scales(self, candidate: Candidate, scales: dict[str, float]) -> None:
        """Into the store."""
        if candidate.layer == ALL and scales:
            self.cache.put_record("scales", self._scales_key(candidate), scales)

    def _scales_key(self, candidate: Candidate) -> str:
        return digest_of("scales", *self.feature_keys(candidate))

    def _find(self, key: str) -> NDArray[np.float32] | None:
        found = self.cache.get_features(key)
        return self._extracted.get(key) if found is None else found

    def _extract(self, checkpoint: Checkpoint) -> None:
        """Features of a checkpoint at all layers, on every image set."""
        samples = self.samples()
        layers = self.extracted_layers
        keys = {layer: self.feature_keys(Candidate(checkpoint, layer)) for layer in layers}
        self._extracted = {}
        with self.timed("features"):
            if self.held is None or not self.held.is_of(checkpoint):
                self.load(checkpoint)
            self._read_ahead()
            if self.settings.memory is not None:
                self._check_widths(samples[0])
            for i, part in enumerate(samples):
                of_part = {layer: keys[layer][i] for layer in layers}
                self._extracted |= self._extract_part(part, of_part, checkpoint)

    @property
    def reads_ahead(self) -> bool:
        """A GPU would wait for its next weights; a CPU has its cores to compute with."""
        return self.device.startswith("cuda")

    def _read_ahead(self) -> None:
        if self.following is not None and self.reads_ahead:
            limits = limits_of(self.settings)
            self._ahead.begin(self.following, self.settings.weights, limits)

    def _extract_part(
        self, samples: Samples, keys: Mapping[str, str], checkpoint: Checkpoint
    ) -> dict[str, NDArray[np.float32]]:
        """Features on one image set by key. keys: by layer. What the store has is not extracted; the
        rest goes there batch by batch, or into memory where it cannot keep them."""
        kept = {layer: self.cache.get_features(key) for layer, key in keys.items()}

        def extract_missing(open_sink: OpenSink) -> None:
            missing = [layer for layer, features in kept.items() if features is None]
            if missing:
                kept.update(self._pass(samples, missing, checkpoint, open_sink))

        if self.cache.keeps:
            try:
                extract_missing(lambda layer: in_store(self.cache, keys[layer], len(samples)))
            except OutputError as error:
                self.cache.unkept = str(error)
        extract_missing(lambda _: in_memory(len(samples)))
        return {keys[layer]: found for layer, found in kept.items() if found is not None}

    def _pass(
        self,
        samples: Samples,
        layers: Sequence[str],
        checkpoint: Checkpoint,
        open_sink: OpenSink,
    ) -> dict[str, NDArray[np.float32]]:
        def say_done(n_done: int) -> None:
            self.pulse(f"{checkpoint.name}: {n_done} of {len(samples)} images")

        return extract_features(
            self.encoder,
            samples,
            self.device,
            self.precision,
            self.settings.batch_size or self._batch_size(samples),
            layers,
            say_done,
            open_sink,
        )

    def _batch_size(self, samples: Samples) -> int:
        shape = samples.shape[1:]
        usual = first_batch_size(shape, torch.device(self.device).type)
        is_here = self.device == "cpu"  # elsewhere a batch lies in memory of its own
        return self.bound.batch_size(shape, usual) if is_here else usual

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of the block to a stage."""
        start = time.monotonic()
        yield
        self.time_s[stage] = self.time_s.get(stage, 0.0) + time.monotonic() - start


def open_workspace(
    settings: RankSettings,
    found: Sequence[Checkpoint],
    data: str,
    quiet: bool,
    cache: Cache | None = None,
) -> Workspace:
    """The workspace for a target and the architecture that is named, or that the files record.

    cache: None opens that of the settings.
    Raises InputError where the architecture or the target cannot be had.
    """
    devices = settings.devices or (settings.device or default_device(),) * settings.processes
    check_devices(devices)
    encoder = open_encoder(settings, found, quiet)
    cache = cache or cache_of(settings)
    layers = choose_layers(settings.layers, lambda: encoder.layers)
    notes = list(getattr(encoder, "notes", ()))
    if AUTO in settings.layers and layers == (LAST,):
        notes.append(f"read at its last layer alone: {NO_STAGES}")
    return Workspace(
        settings,
        open_target(data, settings, quiet, cache),
        encoder,
        layers,
        cache,
        devices,
        settings.precision or default_precision(devices[0]),
        quiet,
        notes=notes,
    )
