"""A small run to try things on: three checkpoints of random weights, 66 images of three classes."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ckptsel.confirmation.confirm import confirm
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.results.files import write_ranking

MODEL = "cifar_resnet18_w16_s2"


def make_inputs(folder: Path) -> None:
    """`ckpts` and `images` in a folder; one of the checkpoints is empty."""
    random = np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 10)):
        for label in range(3):
            (folder / "images" / split / f"c{label}").mkdir(parents=True)
            for i in range(n):
                pixels = random.normal(100 + 30 * np.eye(3)[label], 40, (8, 8, 3)).clip(0, 255)
                path = folder / "images" / split / f"c{label}" / f"{i}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "ckpts").mkdir()
    for epoch in (1, 5, 9):
        torch.manual_seed(epoch)
        weights = timm.create_model(MODEL).state_dict()
        facts = {"format": "ckptsel", "arch": MODEL, "epoch": str(epoch), "source_accuracy": "0.5"}
        save_file(weights, folder / "ckpts" / f"m{epoch}.safetensors", facts)
    (folder / "ckpts" / "broken.pt").write_bytes(b"")


def rank_made(folder: Path, run: Path, cache: Path) -> None:
    """`ckptsel rank ckpts --data images --out run`."""
    ranking, arrays = rank_with_predictions(
        folder / "ckpts", str(folder / "images"), cache_dir=str(cache)
    )
    write_ranking(run, ranking, arrays)


def confirm_made(run: Path, cache: Path) -> None:
    """`ckptsel confirm run`, a few steps of each."""
    confirm(run, steps=4, n_seeds=2, lr=(0.1,), n_candidates=3, goal="both", cache_dir=str(cache))
