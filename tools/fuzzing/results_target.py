"""The files of a ranking: read, and given to everything that reads them."""

import tempfile
import zlib
from pathlib import Path

import numpy as np

from ckptsel.gating.baseline import compare_with_stored
from ckptsel.gating.gate import hold_against
from ckptsel.gating.github import annotations, step_outputs, step_summary
from ckptsel.gating.junit import junit_text
from ckptsel.gating.tables import with_verdict
from ckptsel.report.charts import draw
from ckptsel.report.explanation import explanation_text
from ckptsel.report.page import page
from ckptsel.report.tables import TEXT_FORMATS, format_ranking
from ckptsel.results.files import read_confirmation, read_ranking
from ckptsel.settings.policy import Policy
from tools.fuzzing.mutate import mutate_bytes, mutate_json
from tools.fuzzing.targets import Target
from tools.made import confirm_made, make_inputs, rank_made

PAGES = 200
"""One in so many is drawn as a page too, which takes a second."""


def make() -> Target:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-ranking-"))
    run = folder / "run"
    make_inputs(folder)
    rank_made(folder, run, folder / "cache")
    confirm_made(run, folder / "cache")
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
