"""The shipped trajectory, ranked on the shipped target: real checkpoints, real images."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptsel
from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.ranking.scoring import SCORES_VERSION
from ckptsel.reproduce.results import Results, load_results, prediction_key
from ckptsel.reproduce.verify import verify
from tools.score_worth import worth_rows

RUNS = Path(__file__).parents[1] / "reference_runs"
RUN = RUNS / "cifar10-mnist-small"
OLD_SCORES = (
    "scores were not computed again: they are of version 2 of the scores, this is version "
    f"{SCORES_VERSION}"
)


def test_the_run_is_what_it_says(reference_cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, its claims from the raw numbers, its scores from the checkpoints."""
    monkeypatch.setenv("CKPTSEL_CACHE", reference_cache)
    files, claims, scores = verify(RUN, quiet=True)
    assert "files are as the manifest names them" in files
    assert claims == "20 claims follow from the raw numbers"
    assert scores == OLD_SCORES


@pytest.mark.parametrize("preset", ["small-decay", "small-collapse", "small-wide", "small-full"])
def test_the_variants_are_what_they_say(preset: str) -> None:
    _, claims, scores = verify(RUNS / f"cifar10-mnist-{preset}", quiet=True)
    assert claims == "20 claims follow from the raw numbers"
    assert scores == OLD_SCORES


def table(preset: str, name: str) -> list[dict[str, str]]:
    with (RUNS / f"cifar10-mnist-{preset}/raw/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def summed_decay(pretraining: dict[str, Any]) -> float:
    """Learning rate times weight decay, over all steps of a schedule that falls in steps."""
    n_steps = math.ceil((pretraining["n_images"] or 50_000) / pretraining["batch_size"])
    rates = [
        pretraining["lr"]
        * pretraining["gamma"] ** sum(epoch >= m for m in pretraining["milestones"])
        for epoch in range(pretraining["epochs"])
    ]
    return n_steps * sum(rates) * pretraining["weight_decay"]


def row_of_why(preset: str, seed: str) -> str:
    """A row of the table in docs/reproduce.md that asks why the residual component does not grow."""
    rows = [r for r in table(preset, "components") if r["seed"] == seed and r["stage"] == "before"]
    last = max(int(row["epoch"]) for row in rows)
    manifest = json.loads((RUNS / f"cifar10-mnist-{preset}/manifest.json").read_text())

    def change(component: str, reading: str, key: str = "accuracy") -> str:
        wanted = {"probe": "paper", "component": component, "reading": reading}
        values = {r["epoch"]: float(r[key]) for r in rows if wanted.items() <= r.items()}
        if key == "n_main":
            return f"{values['5']:.0f} → {values[str(last)]:.0f}"
        return f"{100 * values['5']:.1f} → {100 * values[str(last)]:.1f}"

    cells = [
        f"`{preset}`, seed {seed}",
        f"{summed_decay(manifest['recipe']['pretraining']):.2g}",
        change("main", "train", "n_main"),
        change("all", ""),
        change("main", "train"),
        *(change("residual", reading) for reading in ("train", "own", "batch")),
    ]
    return "| " + " | ".join(cells) + " |"


def test_the_documented_table_is_what_the_runs_hold() -> None:
    text = (RUNS.parent / "docs/reproduce.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `small.*", text.split("<!-- why -->")[1], re.MULTILINE)
    presets = [row.split("`")[1] for row in shown]
    by_width_and_decay = ("small-wide", "small", "small-decay", "small-full", "small-collapse")
    assert presets == [preset for preset in by_width_and_decay for _ in (0, 1)]
    for row in shown:
        preset, seed = re.match(r"\| `(.*)`, seed (\d)", row).groups()
        assert row == row_of_why(preset, seed)


def agreement_cells(preset: str, goal: str, targets: tuple[str, ...]) -> dict[str, list[str]]:
    """By score: Kendall's tau with its interval, a cell for each target and pre-training seed."""
    cells: dict[str, list[str]] = {}
    results = load_results(RUNS / f"cifar10-mnist-{preset}")
    for target in targets:
        for seed in (0, 1):
            series = curves(results, target, seed, goal)
            accuracy = series.pop("accuracy")
            for score, agreement in measure_agreement(series, accuracy).items():
                tau = agreement.kendall_tau
                cell = f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
                cells.setdefault(score, []).append(cell)
    return cells


def curves(results: Results, target: str, seed: int, goal: str) -> dict[str, np.ndarray]:
    """Along the epochs: accuracy after training, the scores and references."""
    by_score: dict[str, dict[int, float]] = {}
    for row in results.rows("scores", target=target, seed=seed):
        by_score.setdefault(row["score"], {})[row["epoch"]] = float(row["value"])
    source = {row["epoch"]: row["source_accuracy"] for row in results.rows("source", seed=seed)}
    epochs = sorted(by_score["linear_probe"])
    series = {score: [values[e] for e in epochs] for score, values in by_score.items()}
    series["epoch"] = [float(e) for e in epochs]
    series["source_accuracy"] = [source[e] for e in epochs]
    keys = [prediction_key(target, seed, goal, epoch) for epoch in epochs]
    series["accuracy"] = [results.correct(key).mean() for key in keys]
    return {name: np.array(values) for name, values in series.items()}


def tables_of_agreement() -> list[list[tuple[str, list[str]]]]:
    """The tables of docs/scores.md with a column for each pre-training seed: rows of (score, cells)."""
    text = (RUNS.parent / "docs/scores.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| score \| [^\n]*, seed 0 .*\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[line.strip("|\n ").split(" | ") for line in table.splitlines()] for table in tables]
    return [
        [(name.strip("`").replace(" ", "_"), cells) for name, *cells in table] for table in rows
    ]


def test_what_each_score_was_worth_is_what_the_runs_hold() -> None:
    fe, ft, collapsed = tables_of_agreement()
    both = ("mnist-1000", "cifar100-2000")
    for rows, goal in ((fe, "fe"), (ft, "ft")):
        expected = agreement_cells("small", goal, both)
        assert len(rows) == 7
        for score, cells in rows:
            assert cells[:4] == expected[score], (goal, score)
    before = agreement_cells("small-collapse", "fe", both[:1])
    after = agreement_cells("small-collapse", "ft", both[:1])
    assert len(collapsed) == 7
    for score, cells in collapsed:
        assert cells == before[score] + after[score], score


def test_what_the_others_were_worth_is_what_the_tool_finds(
    reference_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours in a curve may change places with the last digit of features: 0.03 is one pair of 91,
    and a little."""
    monkeypatch.setenv("CKPTSEL_CACHE", reference_cache)
    text = (RUNS.parent / "docs/scores.md").read_text(encoding="utf-8")
    number = r"(-?\d\.\d\d) \["
    for row in worth_rows([RUN / "targets" / "mnist-1000"]):
        name = row.split("`")[1]
        shown = re.search(rf"^\| `{name}` \| [\d.]+ s \| [\d.]+ s \| (.*)$", text, re.MULTILINE)
        documented = [float(tau) for tau in re.findall(number, shown.group(1))[:2]]
        found = [float(tau) for tau in re.findall(number, row)]
        assert found == pytest.approx(documented, abs=0.03), name


def test_the_shipped_checkpoints_are_small() -> None:
    sizes = [path.stat().st_size for path in (RUN / "seed0/checkpoints").iterdir()]
    assert len(sizes) == 14
    assert sum(sizes) < 25e6


@pytest.fixture(scope="module")
def ranking(reference_cache: str) -> ckptsel.Ranking:
    return ckptsel.rank(
        RUN / "seed0/checkpoints",
        RUN / "targets/mnist-1000",
        scores=("linear_probe", "main_component", "logme"),
        cache_dir=reference_cache,
    )


def test_an_early_checkpoint_is_the_best_feature_extractor(ranking: ckptsel.Ranking) -> None:
    """The paper's effect; numbers in the last digit depend on the machine."""
    best = ranking[ranking.best]
    assert 2 <= best.epoch <= 10
    assert ranking.references["last"].ahead.low > 0.03
    assert ranking["checkpoint-120"].source_accuracy > best.source_accuracy + 0.1
    assert ranking["checkpoint-120"].in_tie_set is False


def test_the_main_component_falls_with_over_training(ranking: ckptsel.Ranking) -> None:
    early = ranking["checkpoint-005"].scores["main_component"]
    late = ranking["checkpoint-120"].scores["main_component"]
    assert early.low > late.high


def test_nothing_is_flagged(ranking: ckptsel.Ranking) -> None:
    assert [s.flags for row in ranking for s in row.scores.values() if s.flags] == []


def test_no_score_foretells_fine_tuning_better_than_the_epoch() -> None:
    """Why `--goal ft` is decided by the epoch, from the shipped runs; and `fe` by the probe."""
    taus: dict[str, dict[str, list[float]]] = {"fe": {}, "ft": {}}
    for path in sorted(RUN.glob("seed*/*/ranking.json")):
        ranking = ckptsel.Ranking.from_dict(json.loads(path.read_text()))
        for goal, confirmation in ranking.confirmation.items():
            assert confirmation.n_steps == confirmation.n_steps_full
            for score, agreement in confirmation.agreement.items():
                taus[goal].setdefault(score, []).append(agreement.kendall_tau.value)
    mean = {g: {s: sum(t) / len(t) for s, t in by.items()} for g, by in taus.items()}
    assert all(len(t) == 4 for t in taus["ft"].values())
    scores = [score for score in mean["ft"] if score not in ("epoch", "source_accuracy")]
    assert all(mean["ft"][score] < mean["ft"]["epoch"] for score in scores)
    assert mean["fe"]["linear_probe"] > 0.6 > 0 > mean["fe"]["epoch"]
