"""The files of a ranking: read, and given to everything that reads them."""

import tempfile
import zlib
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ckptsel.confirmation.confirm import confirm
from ckptsel.gating.baseline import compare_with_stored
from ckptsel.gating.gate import hold_against
from ckptsel.gating.github import annotations, step_outputs, step_summary
from ckptsel.gating.junit import junit_text
from ckptsel.gating.tables import with_verdict
from ckptsel.ranking.rank import rank_with_predictions
from ckptsel.report.charts import draw
from ckptsel.report.explanation import explanation_text
from ckptsel.report.page import page
from ckptsel.report.tables import TEXT_FORMATS, format_ranking
from ckptsel.results.files import read_confirmation, read_ranking, write_ranking
from ckptsel.settings.policy import Policy
from tools.fuzzing.mutate import mutate_bytes, mutate_json
from tools.fuzzing.targets import Target

MODEL = "cifar_resnet18_w16_s2"
PAGES = 200
"""One in so many is drawn as a page too, which takes a second."""


def make() -> Target:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-ranking-"))
    run = make_run(folder)
    names = [path.name for path in run.iterdir() if path.suffix in (".json", ".safetensors")]
    seeds = {name: (run / name).read_bytes() for name in sorted(names)}
    is_json = {name: name.endswith(".json") for name in seeds}
    how = {name: mutate_json if is_json[name] else mutate_bytes for name in seeds}

    def read(where: Path, name: str) -> object:
        for other in seeds.keys() - {name}:
            (where / other).write_bytes(seeds[other])
        read_everything(where, folder / "run")
        return None

    return Target(seeds, read, how)


def read_everything(run: Path, stored: Path) -> None:
    """What `report`, `gate`, `pick` and `confirm` make of a folder."""
    ranking, arrays = read_ranking(run)
    policy = Policy(
        current=ranking.checkpoints[-1].name, min_accuracy=0.5, baseline=str(stored), strict=True
    )
    verdict = hold_against(ranking, policy, compare_with_stored(ranking, arrays, stored))
    for form in TEXT_FORMATS:
        with_verdict(format_ranking(ranking, form), verdict, form)
    explanation_text(ranking)
    junit_text(verdict)
    annotations(ranking, verdict)
    step_summary(ranking, verdict)
    step_outputs(ranking, verdict, None)
    read_confirmation(run)
    drawn = zlib.crc32((run / "ranking.json").read_bytes() + arrays_bytes(arrays)) % PAGES == 0
    if drawn:
        page(ranking, draw(ranking, arrays))


def arrays_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    return b"".join(key.encode() for key in arrays)


def make_run(folder: Path) -> Path:
    """A small ranking that was confirmed, in `folder/run`."""
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
    ranking, arrays = rank_with_predictions(
        folder / "ckpts", str(folder / "images"), cache_dir=str(folder / "cache")
    )
    write_ranking(folder / "run", ranking, arrays)
    confirm(folder / "run", steps=3, n_seeds=2, lr=(0.1,), n_candidates=3)
    return folder / "run"
