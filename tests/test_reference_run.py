"""The shipped trajectory, ranked on the shipped target: real checkpoints, real images."""

import json
import re
import shutil
from pathlib import Path

import pytest

import ckptsel
from ckptsel.ranking.scoring import SCORES_VERSION
from ckptsel.reproduce.verify import verify
from tools.score_worth import worth_rows

RUNS = Path(__file__).parents[1] / "reference_runs"
RUN = RUNS / "cifar10-mnist-small"
NO_CHECKPOINTS = "scores were not computed again: no checkpoints are shipped"


def test_the_run_is_what_it_says(reference_cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, its claims from the raw numbers, its scores from the checkpoints."""
    monkeypatch.setenv("CKPTSEL_CACHE", reference_cache)
    files, claims, scores = verify(RUN, quiet=True)
    assert "files are as the manifest names them" in files
    assert claims == "20 claims follow from the raw numbers"
    assert scores == "84 scores follow from 14 checkpoints"


@pytest.mark.parametrize("preset", ["small-decay", "small-collapse", "small-wide", "small-full"])
def test_the_variants_are_what_they_say(preset: str) -> None:
    _, claims, scores = verify(RUNS / f"cifar10-mnist-{preset}", quiet=True)
    assert claims == "20 claims follow from the raw numbers"
    assert scores == NO_CHECKPOINTS


def test_scores_of_an_older_version_are_left_alone(tmp_path: Path) -> None:
    run = shutil.copytree(RUNS / "cifar10-mnist-small-decay", tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["scores_version"] = 2
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert verify(run, quiet=True)[-1] == (
        "scores were not computed again: they are of version 2 of the scores, this is version "
        f"{SCORES_VERSION}"
    )


def test_the_run_without_labels_is_what_it_says() -> None:
    files, claims, scores = verify(RUNS / "cifar10-ssl-small", quiet=True)
    assert "files are as the manifest names them" in files
    assert (claims, scores) == ("27 claims follow from the raw numbers", NO_CHECKPOINTS)


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
    assert all(len(t) == 10 for t in taus["ft"].values())
    scores = [score for score in mean["ft"] if score not in ("epoch", "source_accuracy")]
    assert all(mean["ft"][score] < mean["ft"]["epoch"] for score in scores)
    assert mean["fe"]["linear_probe"] > 0.6 > 0 > mean["fe"]["epoch"]
