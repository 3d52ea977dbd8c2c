"""`ckptsel.rank` from files to a ranking: same numbers cold, warm, after a kill; bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.errors import InputError, ModelError, UsageError
from ckptsel.ranking import rank as pipeline
from ckptsel.ranking import workspace
from ckptsel.report.tables import format_ranking
from tests.conftest import save_checkpoint


def numbers(ranking) -> list:
    return [
        (row.name, row.rank, row.p_best, {k: (s.value, s.low) for k, s in row.scores.items()})
        for row in ranking
    ]


def test_rank_returns_a_ranking_without_printing(trajectory: Path, images: Path, capsys) -> None:
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe", "logme"))
    assert capsys.readouterr() == ("", "")
    assert len(ranking) == 3
    assert ranking.best == next(iter(ranking)).name
    assert ranking.references["last"].name == "checkpoint-010"
    assert ranking.references["source_accuracy"].name == "checkpoint-005"
    assert list(ranking[ranking.best].scores) == ["linear_probe", "logme"]
    assert ranking.target["evaluation"] == {
        "method": "validation split",
        "n_train": 36,
        "n_eval": 30,
        "n_folds": 1,
        "n_repeats": 1,
    }


def test_same_numbers_cold_warm_and_with_two_workers(trajectory: Path, images: Path) -> None:
    cold = ckptsel.rank(trajectory, images, workers=0)
    warm = ckptsel.rank(trajectory, images, workers=0)
    other = ckptsel.rank(trajectory, images, cache=False, workers=2)
    assert numbers(cold) == numbers(warm) == numbers(other)
    assert "scores" in cold.time_s
    assert not {"decode", "features", "scores"} & set(warm.time_s)


def test_same_numbers_after_a_kill_in_the_middle(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = ckptsel.rank(trajectory, images, cache=False)
    extract, calls = workspace.extract_features, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return extract(*arguments)

    monkeypatch.setattr(workspace, "extract_features", killed)
    with pytest.raises(KeyboardInterrupt):
        ckptsel.rank(trajectory, images)
    resumed = ckptsel.rank(trajectory, images)
    assert numbers(resumed) == numbers(undisturbed)
    # Three of six extractions were done before the kill, and are not done again.
    assert len(calls) == 4 + 3


def test_a_rewritten_checkpoint_is_not_taken_from_the_cache(trajectory: Path, images: Path) -> None:
    before = ckptsel.rank(trajectory, images, scores=("linear_probe_loglik",))
    save_checkpoint(trajectory / "checkpoint-005.safetensors", 99, 5, 0.6)
    after = ckptsel.rank(trajectory, images, scores=("linear_probe_loglik",))
    name = "linear_probe_loglik"
    assert after["checkpoint-005"].scores[name] != before["checkpoint-005"].scores[name]
    assert after["checkpoint-010"].scores[name] == before["checkpoint-010"].scores[name]


def test_bad_checkpoints_are_rows_and_the_others_are_ranked(trajectory: Path, images: Path) -> None:
    (trajectory / "checkpoint-020.pth").write_bytes(b"")
    (trajectory / "checkpoint-030.pth").write_text("epoch,loss\n1,0.3\n")
    weights = load_file(trajectory / "checkpoint-001.safetensors")
    del weights["layer1.0.conv1.weight"]
    save_file(weights, trajectory / "checkpoint-040.safetensors")
    weights["layer1.0.conv1.weight"] = torch.full((16, 16, 3, 3), float("nan"))
    save_file(weights, trajectory / "checkpoint-050.safetensors")
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    failed = {row.name: row.reason for row in ranking if row.status == "failed"}
    assert "the file is empty" in failed["checkpoint-020"]
    assert "text, not weights: it begins" in failed["checkpoint-030"]
    assert "missing: layer1.0.conv1.weight" in failed["checkpoint-040"]
    assert "2304 of 2304 values of layer1.0.conv1.weight are NaN" in failed["checkpoint-050"]
    assert sum(row.status == "ok" for row in ranking) == 3
    with pytest.raises(InputError, match="4 of 7 checkpoints cannot be used, and --strict"):
        ckptsel.rank(trajectory, images, strict=True)


def test_nothing_to_rank_lists_the_reasons(tmp_path: Path, images: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model_1.pth").write_bytes(b"")
    with pytest.raises(InputError, match="nothing to rank:\n  model_1: the file is empty"):
        ckptsel.rank(tmp_path / "bad", images)


def test_a_collapsed_network_fails_by_its_features(trajectory: Path, images: Path) -> None:
    weights = load_file(trajectory / "checkpoint-001.safetensors")
    save_file(
        {k: torch.zeros_like(v) if "bn" in k and v.ndim else v for k, v in weights.items()},
        trajectory / "checkpoint-011.safetensors",
    )
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    assert "features of all 36 images are the same" in (ranking["checkpoint-011"].reason or "")


def test_copies_are_scored_once(trajectory: Path, images: Path, monkeypatch) -> None:
    for name in ("model_best", "last"):
        shutil.copy(trajectory / "checkpoint-005.safetensors", trajectory / f"{name}.safetensors")
    calls = []
    extract = workspace.extract_features
    monkeypatch.setattr(workspace, "extract_features", lambda *a: (calls.append(1), extract(*a))[1])
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    assert len(calls) == 3 * 2
    assert ranking["last"].copy_of == ranking["model_best"].copy_of == "checkpoint-005"
    assert ranking["last"].rank == ranking["checkpoint-005"].rank


def test_unknown_names_get_near_ones(trajectory: Path, images: Path) -> None:
    near = r"unknown model 'cifar_resnet18_wl6'.*Did you mean cifar_resnet18_w16_s2"
    with pytest.raises(ModelError, match=near):
        ckptsel.rank(trajectory, images, model="cifar_resnet18_wl6")
    with pytest.raises(UsageError, match=r"unknown option 'sed'. Did you mean seed"):
        ckptsel.rank(trajectory, images, sed=1)
    with pytest.raises(UsageError, match=r"goal is 'fine'; it must be one of fe, ft"):
        ckptsel.rank(trajectory, images, goal="fine")


def test_the_wrong_model_fails_every_checkpoint_with_a_hint(trajectory: Path, images: Path) -> None:
    with pytest.raises(InputError, match=r"do not fit resnet10t") as caught:
        ckptsel.rank(trajectory, images, model="resnet10t", image_size=32)
    assert "--model" in str(caught.value)


@pytest.mark.parametrize("score", ["linear_probe", "logme"])
def test_the_goal_ft_is_decided_by_the_epoch_alone(
    trajectory: Path, images: Path, score: str
) -> None:
    ranking = ckptsel.rank(trajectory, images, goal="ft", scores=(score,))
    assert (ranking.score, ranking.best) == ("epoch", "checkpoint-010")
    assert [row.epoch for row in ranking] == [10, 5, 1]
    # Which says nothing about how sure it is.
    assert len(ranking.tie_set) == 3
    assert ranking.references["last"].difference is None
    assert all(row.p_best is None and score in row.scores for row in ranking)
    assert "which checkpoint fine-tunes best is not known" in format_ranking(ranking, "table")
    text = json.dumps(ranking.to_dict())
    assert json.dumps(ckptsel.Ranking.from_dict(json.loads(text)).to_dict()) == text


def test_the_papers_probe_ranks_too(trajectory: Path, images: Path) -> None:
    ranking = ckptsel.rank(trajectory, images, probe="paper", scores=("linear_probe",))
    assert 0 <= ranking["checkpoint-001"].scores["linear_probe"].value <= 1


def test_cross_validation_where_there_is_no_validation_split(
    trajectory: Path, images: Path
) -> None:
    ranking = ckptsel.rank(trajectory, images / "train", scores=("linear_probe",))
    assert ranking.target["evaluation"]["method"] == "cross-validation"
    assert ranking.target["evaluation"]["n_eval"] == 36


def test_predictions_give_the_accuracies_again(trajectory: Path, images: Path) -> None:
    ranking, arrays = pipeline.rank_with_predictions(trajectory, images)
    for row in ranking:
        predicted = arrays[f"{row.name}/linear_probe/predictions"]
        accuracy = np.mean(predicted == arrays["labels"])
        assert accuracy == pytest.approx(row.scores["linear_probe"].value)


def test_a_long_step_says_how_far_it_is(run, trajectory: Path, images: Path, monkeypatch) -> None:
    monkeypatch.setattr("ckptsel.common.progress.PULSE_INTERVAL_S", 0)
    options = ("--scores", "linear_probe", "--batch-size", "20")
    _, _, err = run("rank", trajectory, "-d", images, *options)
    assert "rank 0/3, 0 s  checkpoint-001: 20 of 36 images" in err
    assert "checkpoint-001: linear_probe" in err
    assert "left  checkpoint-005: 20 of 36 images" in err
