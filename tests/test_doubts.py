"""A probe at chance: said on top, never recommended, never passed by the gate."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ckptsel.ranking.doubts import find_doubts
from ckptsel.results.ranking import Row, ScoreValue


def row(name: str, rank: int, **scores: tuple[float, bool]) -> Row:
    values = {
        key: ScoreValue(value, details={"at_chance": at_chance, "largest_class": 0.2})
        for key, (value, at_chance) in scores.items()
    }
    return Row(name, name, "d", rank, rank, None, "file", None, "x", "ok", rank=rank, scores=values)


def test_features_that_tell_nothing() -> None:
    rows = [
        row("a", 1, linear_probe=(0.21, True), residual_component=(0.2, True)),
        row("b", 2, linear_probe=(0.19, True), residual_component=(0.2, True)),
    ]
    (doubt,) = find_doubts(rows)
    assert doubt.startswith("these features tell nothing about these classes: linear_probe of a")
    assert "21.0 %" in doubt and "20.0 %" in doubt


def test_a_probe_at_chance_beside_a_component_that_is_not() -> None:
    rows = [
        row("a", 1, linear_probe=(0.8, False), residual_component=(0.3, False)),
        row("b", 2, linear_probe=(0.2, True), residual_component=(0.7, False)),
    ]
    assert find_doubts(rows) == [
        "linear_probe of b is at chance (20.0 %) while residual_component is not (70.0 %): do not "
        "trust it."
    ]


def test_good_probes_leave_no_doubt() -> None:
    assert find_doubts([row("a", 1, linear_probe=(0.8, False))]) == []


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Images whose classes are names alone."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(2):
            (tmp_path / "noise" / split / f"c{label}").mkdir(parents=True)
            for i in range(20):
                pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                path = tmp_path / "noise" / split / f"c{label}" / f"{i}.png"
                Image.fromarray(pixels).save(path)
    return tmp_path / "noise"


def test_noise_is_not_recommended(run, trajectory: Path, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranking"
    code, text, _ = run("rank", trajectory, "-d", noise, "-q", "-o", out)
    assert code == 0
    assert text.splitlines()[0].startswith("doubt: these features tell nothing")
    assert "no checkpoint is recommended: these features tell nothing" in text
    assert "beats the last" not in text
    assert "no better than the largest class (50.0 %)" in text
    markdown = run("rank", trajectory, "-d", noise, "-q", "-f", "md")[1]
    assert markdown.startswith("**doubt: these features tell nothing")
    page_text = (out / "report.html").read_text()
    assert "Not recommended: " in page_text and '<p class="note">doubt: ' in page_text
    name = json.loads((out / "ranking.json").read_text())["best"]
    code, verdict, err = run("gate", out, "--current", name)
    assert code == 5 and "the best is at chance" in verdict
    _, path, err = run("pick", out)
    assert path.endswith(".safetensors\n") and err.startswith(
        "warning: these features tell nothing"
    )
