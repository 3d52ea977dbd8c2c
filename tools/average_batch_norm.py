"""Averages whose batch norm is measured anew on source images, as files to rank beside the others.

    python -m tools.average_batch_norm CHECKPOINTS SOURCE OUT [--sizes 2,3,5] [--images 4000]
    ckptsel rank OUT --data ... --scores linear_probe

SOURCE: images that the run was pre-trained on, as `--data` of `ckptsel rank` takes them; the first of
its training split are used. OUT gets `<name>-bn.safetensors` of every checkpoint and average: the
weights of the ranking, with the means and variances of the network's own batches of 250 images.
docs/averages.md says what came out.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ckptsel.checkpoints.averages import with_averages
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import read_weights
from ckptsel.features.encoders import ImageEncoder
from ckptsel.ranking.resolve import open_encoder
from ckptsel.settings.rank import RankSettings
from ckptsel.target.pixels import auto_workers, prepare_all
from ckptsel.target.sources import open_source

BATCH_SIZE = 250


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", default="2,3,5")
    parser.add_argument("--images", type=int, default=4000)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    write_all(arguments.checkpoints, arguments.source, arguments.out, sizes, arguments.images)


def write_all(checkpoints: Path, source: str, out: Path, sizes: list[int], n_images: int) -> None:
    found = with_averages(scan_checkpoints(checkpoints), sizes).checkpoints
    encoder = open_encoder(RankSettings(), found, quiet=True)
    assert isinstance(encoder, ImageEncoder)
    images = open_source(source).read("train")
    images = images.subset(np.arange(min(n_images, len(images))))
    workers = auto_workers(None, len(images))
    pixels = torch.from_numpy(prepare_all(images, encoder.preparation, None, workers, quiet=True))
    out.mkdir(parents=True, exist_ok=True)
    for checkpoint in found:
        encoder.load(read_weights(checkpoint))
        recalibrate(encoder, pixels)
        tensors = {k: v.contiguous().clone() for k, v in encoder.module.state_dict().items()}
        metadata = {"format": "ckptsel", "arch": encoder.name, "epoch": str(checkpoint.epoch)}
        save_file(tensors, out / f"{checkpoint.name}-bn.safetensors", metadata)


def recalibrate(encoder: ImageEncoder, pixels: torch.Tensor) -> None:
    """Means and variances of batch norm from prepared pixels (N, C, H, W), each batch counting alike."""
    for module in encoder.module.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    encoder.module.train()
    with torch.no_grad():
        for batch in pixels.split(BATCH_SIZE):
            encoder.penultimate(encoder.normalise(batch))
    encoder.module.eval()


if __name__ == "__main__":
    main()
