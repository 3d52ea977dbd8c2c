"""`--explain` and the part of the report: how each number came about."""

import json
from pathlib import Path
from typing import Any

from ckptsel.report.explanation import explain
from ckptsel.results.ranking import Ranking


def read(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    value = json.loads((folder / "ranking.json").read_text(encoding="utf-8"))
    return value, dict(explain(Ranking.from_dict(value)))


def test_every_number_is_explained(run, trajectory: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, _ = run("rank", trajectory, "-d", images, "-o", out, "--explain", "-q")
    assert code == 0
    value, parts = read(out)
    rows = value["checkpoints"]
    assert set(rows[0]["scores"]) <= set(parts)
    assert {"images", "features", "P(best)", "expected on new images", "intervals"} <= set(parts)
    assert "how each number came about:" in text
    assert all(f"  {what}: {how}" in text for what, how in parts.items())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "How each number came about" in page and parts["intervals"] in page
    # And what was done here, not what is done in general.
    assert str(value["target"]["evaluation"]["n_eval"]) in parts["images"]
    strengths = [c for row in rows for c in row["scores"]["linear_probe"]["details"]["C"]]
    assert f"{min(strengths):.2g}" in parts["linear_probe"]
    assert value["model"]["name"] in parts["features"]

    options = ("--candidates", 2, "--steps", 9, "--seeds", 1, "--lr", 0.1)
    assert run("confirm", out, *options, "-q")[0] == 0
    trained = read(out)[1]["confirmed fe"]
    assert "9 steps" in trained and "over images only" in trained
    assert "Learning rate 0.1, as given" in trained


def test_a_ranking_by_epoch_says_that_nothing_is_known(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--goal", "ft", "--scores", "linear_probe", "-o", out, "-q")
    code, text, _ = run("rank", trajectory, "-d", images, *options)
    assert code == 0
    assert "which checkpoint fine-tunes best is not known" in text
    parts = read(out)[1]
    assert "no score foretells fine-tuning" in parts["order"]
    assert "P(best)" not in parts and "expected on new images" not in parts
