"""Exporting a checkpoint of a ranking: its backbone as safetensors, with what is known of it."""

import dataclasses
from pathlib import Path

from safetensors.torch import save

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import DEFAULT
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import ReplacedError, read_weights
from ckptsel.common.environment import package_version
from ckptsel.common.files import write_bytes
from ckptsel.errors import CheckpointError, InputError
from ckptsel.features.encoders import build_image_encoder, typed_or_recorded
from ckptsel.features.network import Recorded, recorded_in
from ckptsel.report.command import rank_command
from ckptsel.results.ranking import Ranking, Row


def export(ranking: Ranking, row: Row, path: Path, model: str | None = None) -> None:
    """Write the backbone's weights, under the names that its architecture has and in the types that
    they were saved in, to `path`.

    The metadata (text) names architecture, epoch, checkpoint, digest, goal, score, its interval and the
    command of the ranking. timm loads it: `create_model(arch, num_classes=0, checkpoint_path=path)`.
    model: a network of one's own, which a ranking may only name.
    Raises InputError where the checkpoint is gone, failed, or is not the one that was ranked.
    """
    if row.status == "failed":
        raise InputError(f"{row.name} cannot be exported: {row.reason}")
    source = Path(row.path)
    if not source.exists():
        raise InputError(
            f"{source} is gone: the checkpoint was moved or deleted since it was ranked, or its path "
            "is relative to another folder than this. Put it back, or rank again."
        )
    checkpoint = Checkpoint(row.name, source, digest=row.digest)
    try:
        state_dict = read_weights(checkpoint, ranking.settings["weights"])
    except ReplacedError as error:
        raise InputError(
            f"{source} has changed since it was ranked: the digest of its tensors is not "
            f"{(row.digest or '')[:12]}. Rank again."
        ) from error
    except CheckpointError as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    name = typed_or_recorded(model, ranking.model["name"])
    pool, image_size = ranking.settings["pool"], ranking.settings["image_size"]
    recorded = dataclasses.replace(_recorded(source, ranking), read=lambda: state_dict)
    encoder = build_image_encoder(
        name, pool, image_size, typed=model is not None, recorded=recorded
    )
    weights, _ = encoder.match(state_dict)
    tensors = {key: tensor.contiguous().clone() for key, tensor in weights.items()}
    write_bytes(path, save(tensors, _metadata(ranking, row)))


def _recorded(source: Path, ranking: Ranking) -> Recorded:
    """What the checkpoint says of its network."""
    weights = ranking.settings["weights"]
    found = scan_checkpoints(source, weights)
    return recorded_in(found[0], weights, DEFAULT) if found[0].problem is None else Recorded()


def _metadata(ranking: Ranking, row: Row) -> dict[str, str]:
    score = row.scores.get(ranking.score)
    trained = row.trained(ranking.goal)
    measured = {
        "score": ranking.score,
        "value": score and score.value,
        "low": score and score.low,
        "high": score and score.high,
        "confirmed_value": trained and trained.value,
        "confirmed_low": trained and trained.low,
        "confirmed_high": trained and trained.high,
    }
    values = {
        "format": "ckptsel",
        "ckptsel": package_version("ckptsel"),
        "arch": ranking.model["name"],
        **({} if row.epoch_from == "name" else {"epoch": row.epoch, "step": row.step}),
        "source_accuracy": row.source_accuracy,
        "checkpoint": row.checkpoint,
        "layer": row.layer,
        "digest": row.digest,
        "goal": ranking.goal,
        **measured,
        "command": rank_command(ranking),
    }
    return {key: str(value) for key, value in values.items() if value is not None}
