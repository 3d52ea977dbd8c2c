"""The shipped trajectory, ranked on the shipped target: real checkpoints, real images."""

import hashlib
import json
from pathlib import Path

import pytest

import ckptsel

RUN = Path(__file__).parents[1] / "reference_runs" / "cifar10-mnist-small"


def test_the_manifest_names_the_files_as_they_are() -> None:
    manifest = json.loads((RUN / "manifest.json").read_text())
    assert len(manifest["sha256"]) == 14 + 2
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((RUN / name).read_bytes()).hexdigest() == digest, name


def test_the_shipped_checkpoints_are_small() -> None:
    sizes = [path.stat().st_size for path in (RUN / "checkpoints").iterdir()]
    assert sum(sizes) < 25e6


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> ckptsel.Ranking:
    return ckptsel.rank(
        RUN / "checkpoints",
        RUN / "target",
        scores=("linear_probe", "linear_probe_loglik", "main_component", "logme"),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


def test_an_early_checkpoint_is_the_best_feature_extractor(ranking: ckptsel.Ranking) -> None:
    """The paper's effect; numbers in the last digit depend on the machine."""
    best = ranking[ranking.best]
    assert 2 <= best.epoch <= 10
    assert ranking.baselines["last"].low > 0.03
    assert ranking["checkpoint-120"].source_accuracy > best.source_accuracy + 0.1
    assert ranking["checkpoint-120"].in_tie_set is False


def test_the_main_component_falls_with_over_training(ranking: ckptsel.Ranking) -> None:
    early = ranking["checkpoint-005"].scores["main_component"]
    late = ranking["checkpoint-120"].scores["main_component"]
    assert early.low > late.high


def test_nothing_is_flagged(ranking: ckptsel.Ranking) -> None:
    assert [s.flags for row in ranking for s in row.scores.values() if s.flags] == []


CONFIRMED = Path(__file__).parents[1] / "reference_runs" / "confirm-small"


def test_no_score_foretells_fine_tuning_better_than_the_epoch() -> None:
    """Why `--goal ft` is decided by the epoch, from the shipped runs; and `fe` by the probe."""
    taus: dict[str, dict[str, list[float]]] = {"fe": {}, "ft": {}}
    for path in sorted(CONFIRMED.glob("*/ranking.json")):
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
