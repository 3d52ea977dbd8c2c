"""`extract`: features of new images, by a candidate of a ranking or an exported network."""

import dataclasses
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.common.devices import default_device, default_precision
from ckptsel.common.progress import Progress
from ckptsel.common.streams import say
from ckptsel.errors import DataError
from ckptsel.export.extractor import load_extractor
from ckptsel.export.feature_files import ImageFeatures, write_features
from ckptsel.export.opening import open_row
from ckptsel.export.prediction import probabilities_of
from ckptsel.features.candidate import Candidate
from ckptsel.features.extraction import read_in_batches
from ckptsel.features.extractor import Extractor
from ckptsel.features.sinks import check_finite
from ckptsel.ranking.reopen import Named, checkpoint_of, device_and_precision, reopen
from ckptsel.results.files import check_writable, read_ranking
from ckptsel.results.ranking import Ranking, Row
from ckptsel.settings.extract import ExtractSettings
from ckptsel.target.images import ImageSet
from ckptsel.target.loose import Loose, read_loose
from ckptsel.target.pixels import UnreadableImages, auto_workers, prepare_all

PIXELS_AT_ONCE = 2**30
"""Bytes of prepared images that are held at a time."""


def extract(settings: ExtractSettings) -> ImageFeatures:
    """Features of the images that the settings name, written to the file that they name.

    Raises InputError where the candidate, the images or the file cannot be had.
    """
    check_writable(settings.to.parent)
    images = _read_images(settings)
    if settings.is_of_a_ranking:
        ranking, _ = read_ranking(settings.run)
        row = ranking.find(settings.candidate or ranking.best)
        if settings.candidate is None and not ranking.recommended:
            say(f"warning: {ranking.why_not}")
        found = _by_ranking(ranking, row, images, settings)
    else:
        extractor = load_extractor(settings.run, settings.model)
        device = settings.device or default_device()
        precision = settings.precision or default_precision(device)
        found = _features_of(images, extractor, device, precision, settings)
    write_features(settings.to, found)
    return found


def _read_images(settings: ExtractSettings) -> Loose:
    return read_loose(
        settings.data,
        None if settings.data_root is None else Path(settings.data_root),
        settings.image_column,
        settings.label_column,
        settings.split,
    )


def _by_ranking(
    ranking: Ranking, row: Row, images: Loose, settings: ExtractSettings
) -> ImageFeatures:
    extractor = open_row(ranking, row, settings.model).extractor
    device, precision = device_and_precision(ranking, settings)
    if not settings.predictions:
        return _features_of(images, extractor, device, precision, settings)
    checkpoint = checkpoint_of(row, settings.cache_dir)
    scanned = scan_checkpoints(checkpoint.path, ranking.settings["weights"])
    named = Named(settings.model, settings.fit_data, data_option="--fit-data")
    workspace = reopen(ranking, scanned, named, settings, settings.quiet, (row.layer,))
    found = _features_of(images, extractor, device, precision, settings)
    candidate = Candidate(checkpoint, row.layer)
    probabilities = probabilities_of(found.features, candidate, workspace)
    classes = list(workspace.target.class_names)
    return dataclasses.replace(
        found,
        predictions=[classes[i] for i in probabilities.argmax(1)],
        classes=classes,
        probabilities=probabilities,
    )


def _features_of(
    images: Loose, extractor: Extractor, device: str, precision: str, settings: ExtractSettings
) -> ImageFeatures:
    extractor.to(device)
    parts: list[NDArray[np.float32]] = []
    at_once = max(1, PIXELS_AT_ONCE // math.prod(extractor.transform.preprocessing.shape))
    with Progress("extract", len(images), quiet=settings.quiet) as progress:
        for image_set in images.image_sets:
            for start in range(0, len(image_set), at_once):
                block = image_set.subset(np.arange(start, min(start + at_once, len(image_set))))
                pixels = _prepared(block, extractor, settings)
                read = read_in_batches(
                    extractor.read, pixels, device, precision, settings.batch_size
                )
                parts += read.values()
                progress.advance(steps=len(block))
    features = np.concatenate(parts)
    check_finite(features)
    about = {"candidate": _as_utf8(extractor.candidate), "layer": extractor.layer}
    return ImageFeatures(
        features,
        [_as_utf8(name) for name in images.names],
        {**about, "precision": precision},
        images.splits if len(images.image_sets) > 1 else None,
        images.labels if images.has_labels else None,
    )


def _as_utf8(name: str) -> str:
    """A name with bytes that are no UTF-8 written visibly: no file format here holds them."""
    return name.encode("utf-8", "backslashreplace").decode()


def _prepared(
    block: ImageSet, extractor: Extractor, settings: ExtractSettings
) -> NDArray[np.uint8]:
    n_workers = auto_workers(settings.workers, len(block))
    try:
        return prepare_all(block, extractor.transform.preprocessing, None, n_workers, quiet=True)
    except UnreadableImages as error:
        raise DataError(*error.lines[:-1], "Repair or remove them.") from error
