"""Exporting a candidate of a ranking: its backbone as safetensors, with how it is read."""

from pathlib import Path

from safetensors.torch import save

from ckptsel.common.environment import package_version
from ckptsel.common.files import write_bytes
from ckptsel.export.opening import open_row
from ckptsel.report.command import rank_command
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.reading import KEY, Reading


def export(ranking: Ranking, row: Row, path: Path, model: str | None = None) -> None:
    """Write the backbone's weights, under the names that its network has and in the types that they
    were saved in, to `path`.

    The metadata (text) names architecture, epoch, checkpoint, digest, goal, score, its interval and the
    command of the ranking; `reading` says as JSON how the network is read, for `load_extractor`.
    timm loads it too: `create_model(arch, num_classes=0, checkpoint_path=path)`.
    model: a network of one's own, which a ranking may only name.
    Raises InputError where the checkpoint is gone, failed, or is not the one that was ranked.
    """
    opened = open_row(ranking, row, model)
    tensors = {key: tensor.contiguous().clone() for key, tensor in opened.tensors.items()}
    write_bytes(path, save(tensors, _metadata(ranking, row, opened.reading)))


def _metadata(ranking: Ranking, row: Row, reading: Reading) -> dict[str, str]:
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
        "average_of": ", ".join(part.name for part in row.average_of) or None,
        "layer": row.layer,
        "digest": row.digest,
        "goal": ranking.goal,
        **measured,
        "command": rank_command(ranking),
        KEY: reading.to_json(),
    }
    return {key: str(value) for key, value in values.items() if value is not None}
