"""An extractor, from what is known of a candidate and its tensors, and from a ranking's row."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import DEFAULT
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import ReplacedError, mean_of, read_weights
from ckptsel.errors import CheckpointError, CkptselError, InputError, ModelError
from ckptsel.features.encoder import LAST
from ckptsel.features.encoders import build_image_encoder, typed_or_recorded
from ckptsel.features.extractor import Extractor
from ckptsel.features.inputs import Inputs
from ckptsel.features.layers import ALL, Stage
from ckptsel.features.matching import Tensors
from ckptsel.features.network import Recorded, recorded_in
from ckptsel.ranking.reopen import checkpoint_of, recorded_settings
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.reading import Reading
from ckptsel.target.pixels import Preprocessing


@dataclass(frozen=True)
class Opened:
    """A candidate that was taken out.

    tensors: of its backbone, under the names that its network has and in the types that they were
    saved in.
    """

    extractor: Extractor
    reading: Reading
    tensors: dict[str, Tensor]


def open_reading(reading: Reading, tensors: Tensors, name: str, typed: bool) -> Opened:
    """The network that a reading describes, with these weights.

    name: of the network; typed: the user named it, so that `module:function` is imported and called.
    Raises ModelError where it cannot be built or does not run so, CheckpointError where the weights do
    not fit it.
    """
    network = reading.network
    encoder = build_image_encoder(
        name,
        **vars(network.asked),
        typed=typed,
        recorded=Recorded(
            reading.candidate,
            network.name,
            Inputs(**vars(network.recorded)),
            arguments=network.arguments,
            config=network.config,
            read=lambda: tensors,
        ),
    )
    prepared = Preprocessing(**vars(reading.preprocessing))
    encoder = dataclasses.replace(encoder, preprocessing=prepared)
    weights, _ = encoder.match(tensors)
    encoder.module.load_state_dict(weights, strict=False)
    modules = dict(encoder.module.named_modules())
    if missing := [stage.name for stage in reading.stages if stage.name not in modules]:
        raise ModelError(f"{encoder.name} has no module {missing[0]!r}, which is to be read.")
    stages = [_stage_of(stage) for stage in reading.stages]
    scales = [stage.scale for stage in reading.stages]
    try:
        extractor = Extractor(
            encoder, reading.layer, stages, scales, reading.candidate, reading.classes
        )
    except CkptselError:
        raise
    except Exception as error:  # whatever its code makes of sizes that a stranger wrote
        said = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{encoder.name} does not run as {reading.candidate} is to be read: {said}"
        ) from error
    return Opened(extractor, reading, weights)


def open_row(ranking: Ranking, row: Row, model: str | None = None) -> Opened:
    """A candidate of a ranking, from its checkpoint's file.

    model: a network of one's own, which a ranking may only name.
    Raises InputError where the checkpoint is gone, failed, or is not the one that was ranked.
    """
    if row.status == "failed":
        raise InputError(f"{row.name} cannot be taken out: {row.reason}")
    name = typed_or_recorded(model, ranking.model["name"])
    tensors, recorded = _read(ranking, row)
    reading = _reading_of(ranking, row, recorded)
    return open_reading(reading, tensors, name, typed=model is not None)


def _read(ranking: Ranking, row: Row) -> tuple[dict[str, Tensor], Recorded]:
    """(weights, what the checkpoint says of its network)."""
    checkpoint, weights = checkpoint_of(row), ranking.settings["weights"]
    if checkpoint.parts:
        tensors = mean_of(_read_file(part, weights) for part in checkpoint.parts)
    else:
        tensors = _read_file(checkpoint, weights)
    found = scan_checkpoints(checkpoint.path, weights)[0]
    recorded = recorded_in(found, weights, DEFAULT) if found.problem is None else Recorded()
    return tensors, recorded


def _read_file(checkpoint: Checkpoint, weights: str) -> dict[str, Tensor]:
    source = checkpoint.path
    if not source.exists():
        raise InputError(
            f"{source} is gone: the checkpoint was moved or deleted since it was ranked, or its path "
            "is relative to another folder than this. Put it back, or rank again."
        )
    try:
        return read_weights(checkpoint, weights)
    except ReplacedError as error:
        raise InputError(
            f"{source} has changed since it was ranked: the digest of its tensors is not "
            f"{(checkpoint.digest or '')[:12]}. Rank again."
        ) from error
    except CheckpointError as error:
        raise InputError(f"{source} cannot be read: {error}") from error


def _reading_of(ranking: Ranking, row: Row, recorded: Recorded) -> Reading:
    """How a candidate was read. Raises InputError where an older ranking does not say it."""
    settings, inputs = recorded_settings(ranking), recorded.inputs
    network = {
        "name": ranking.model["name"],
        "asked": _built_with(settings),
        "recorded": _built_with(inputs),
        "arguments": dict(recorded.arguments),
        "config": dict(recorded.config),
    }
    values = {
        "network": network,
        "preprocessing": dict(ranking.model["preprocessing"]),
        "candidate": row.name,
        "layer": row.layer,
        "stages": _stages_of(ranking, row),
        "classes": ranking.target.get("class_names", []),
    }
    return Reading.of(values, f"the ranking of {row.name}")


def _built_with(inputs: Any) -> dict[str, Any]:
    return {name: getattr(inputs, name) for name in ("image_size", "channels", "pool")}


def _stages_of(ranking: Ranking, row: Row) -> list[dict[str, Any]]:
    if row.layer == LAST:
        return []
    scales = row.stage_scales if row.layer == ALL else {row.layer: 1.0}
    known = {stage["name"]: stage for stage in ranking.model.get("stages", [])}
    if not scales or not known.keys() >= scales.keys():
        raise InputError(
            f"{row.name} cannot be taken out: its ranking, of an older version, does not say what its "
            "stages are divided by. Rank again: features and scores that are kept are not made anew."
        )
    return [{**known[name], "scale": scale} for name, scale in scales.items()]


def _stage_of(stage: Any) -> Stage:
    return Stage(stage.name, stage.shape, stage.channels_last, stage.grid, stage.n_prefix)
