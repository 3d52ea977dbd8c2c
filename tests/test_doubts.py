"""What makes scores unbelievable: said on top, never recommended, never passed by the gate."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ckptsel
from ckptsel.ranking.doubts import find_doubts
from ckptsel.ranking.inside import Inside
from ckptsel.results.ranking import Row, ScoreValue
from tests.conftest import save_images


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
    assert '<p class="note">chance: always naming the largest class (&#39;c0&#39;)' in page_text
    assert "Not recommended: " in page_text and '<p class="note">doubt: ' in page_text
    name = json.loads((out / "ranking.json").read_text())["best"]
    code, verdict, err = run("gate", out, "--current", name)
    assert code == 5 and "no checkpoint is recommended" in verdict
    _, path, err = run("pick", out)
    assert path.endswith(".safetensors\n") and err.startswith(
        "warning: these features tell nothing"
    )


def colours(folder: Path, n_per_class: int = 30, seed: int = 0) -> Path:
    """Images of three classes that any network tells apart, in two splits."""
    save_images(folder / "train", n_per_class, seed)
    save_images(folder / "val", n_per_class, seed + 1)
    return folder


def relabel(folder: Path, name_of: Callable[[int, int], int]) -> None:
    """Moves image i of class c to class name_of(c, i)."""
    moves = [
        (path, folder / f"class{name_of(label, i)}/{label}-{i}.png")
        for label in range(3)
        for i, path in enumerate(sorted((folder / f"class{label}").iterdir()))
    ]
    for path, to in moves:
        path.rename(to)


def shuffled(label: int, i: int) -> int:
    return int(np.random.default_rng((label, i)).integers(3))


def rank_fast(run, trajectory: Path, data: Path, *options: object) -> str:
    code, text, _ = run("rank", trajectory, "-d", data, "-q", "--scores", "linear_probe", *options)
    assert code == 0
    return text


@pytest.mark.parametrize(
    ("split", "name_of", "sentence"),
    [
        ("val", shuffled, "the labels of validation look wrong: a probe of checkpoint-"),
        ("train", shuffled, "the labels of train look wrong: a probe of checkpoint-"),
        (
            "val",
            lambda c, i: (c + 1) % 3,
            "the classes of train and validation do not mean the same",
        ),
    ],
)
def test_labels_of_one_split_that_are_wrong(
    run, trajectory: Path, tmp_path: Path, split: str, name_of, sentence: str
) -> None:
    data = colours(tmp_path / "data")
    relabel(data / split, name_of)
    text = rank_fast(run, trajectory, data)
    assert text.startswith(f"doubt: {sentence}")
    assert "no checkpoint is recommended: the " in text and "beats the last" not in text
    ranking = ckptsel.rank(trajectory, data, scores=("linear_probe",))
    assert ranking.no_winner == ranking.doubts[0] and not ranking.recommended


def test_labels_that_are_wrong_everywhere(run, trajectory: Path, tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    shutil.rmtree(data / "val")
    relabel(data / "train", shuffled)
    text = rank_fast(run, trajectory, data / "train")
    assert text.startswith("doubt: these features tell nothing about these classes")
    assert "are these the labels of the images?" in text


def test_training_that_comes_to_chance_is_not_recommended(
    run, trajectory: Path, noise: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranking"
    assert run("rank", trajectory, "-d", noise, "-q", "-o", out)[0] == 0
    options = ("--candidates", 2, "--seeds", 1, "--steps", 9, "--lr", "0.001", "-q")
    code, text, _ = run("confirm", out, *options)
    assert code == 0
    assert "no checkpoint is recommended: trained for fe, " in text
    assert "no more than always naming the largest class does (50.0 %)" in text
    assert run("gate", out, "--min-accuracy", 0.1)[0] == 5
    assert "warning: trained for fe, " in run("pick", out)[2]


def test_labels_that_are_right_leave_no_doubt(run, trajectory: Path, tmp_path: Path) -> None:
    text = rank_fast(run, trajectory, colours(tmp_path / "data"))
    assert "doubt" not in text and "no checkpoint is recommended" not in text
    assert "chance: always naming the largest class ('class0') is right on 33.3 % of the 90" in text


def test_few_held_out_images(run, trajectory: Path, tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    text = rank_fast(run, trajectory, data, "--max-eval-samples", 4)
    assert text.startswith(
        "doubt: there are 4 held-out images only: on so few no checkpoint can be"
    )
    assert "no checkpoint is recommended: there are 4 held-out images only" in text
    enough = rank_fast(run, trajectory, data, "--max-eval-samples", 20)
    assert "no checkpoint is recommended" not in enough
    for_tuning = rank_fast(run, trajectory, data, "--max-eval-samples", 4, "--goal", "ft")
    assert for_tuning.startswith("doubt: there are 4 held-out images only")


def test_few_held_out_images_of_a_race(run, trajectory: Path, tmp_path: Path) -> None:
    """Of a folder without a split all images are held out in turn; a race holds out a fifth."""
    data, out = tmp_path / "data", tmp_path / "ranking"
    save_images(data, 20)
    assert "no checkpoint is recommended" not in rank_fast(run, trajectory, data, "-o", out)
    options = ("--candidates", 2, "--seeds", 1, "--steps", 9, "--lr", "0.1", "-q")
    code, text, _ = run("confirm", out, *options)
    assert code == 0 and "no checkpoint is recommended: there are 12 held-out images only" in text
    assert run("gate", out, "--min-accuracy", 0.1)[0] == 5


def test_one_class_that_is_nearly_all(run, trajectory: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "data", 96)
    shutil.rmtree(tmp_path / "data/class2")
    for path in sorted((tmp_path / "data/class1").iterdir())[2:]:
        path.unlink()
    text = rank_fast(run, trajectory, tmp_path / "data")
    first = "nearly all held-out images are of one class ('class0', 98.0 %)"
    assert text.startswith(f"doubt: {first}") and f"no checkpoint is recommended: {first}" in text


def test_what_looks_wrong_inside_a_split() -> None:
    good, bad = Inside("a", 0.9, 0.02, 0.8, False), Inside("b", 0.12, 0.02, 0.02, True)
    assert bad.looks_wrong_beside(good) and not good.looks_wrong_beside(bad)
    few = dataclasses.replace(bad, error=0.3)
    harder = dataclasses.replace(bad, accuracy=0.4, ahead=0.3)
    assert not few.looks_wrong_beside(good) and not harder.looks_wrong_beside(good)


def test_well_below_chance_is_said() -> None:
    below = row("a", 1, linear_probe=(0.05, True))
    low = dataclasses.replace(below.scores["linear_probe"], low=0.02, high=0.09)
    below = dataclasses.replace(below, scores={"linear_probe": low})
    (doubt,) = find_doubts([below], {"n_classes": 10})
    assert "below chance (10.0 %): are the labels mixed up" in doubt
    assert "below chance" not in find_doubts([below], {"n_classes": 50})[0]
