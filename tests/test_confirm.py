"""`confirm` at the command line: real runs, the new order, and what can go wrong."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptsel
from ckptsel.confirmation import runs
from ckptsel.confirmation.candidates import choose_candidates
from ckptsel.results.confirmation import SCHEMA
from ckptsel.results.files import read_ranking
from tests.conftest import save_images

RUN = Path(__file__).parents[1] / "reference_runs" / "cifar10-mnist-small"
SMALL = ("--steps", 30, "--seeds", 2, "--lr", "0.1", "-q")


@pytest.fixture
def ranked(trajectory: Path, images: Path, tmp_path: Path) -> Path:
    """The folder of a ranking of three random networks."""
    from ckptsel.ranking.rank import rank_with_predictions
    from ckptsel.results.files import write_ranking

    out = tmp_path / "ranking"
    scored = rank_with_predictions(trajectory, images, scores=("linear_probe", "logme"))
    write_ranking(out, *scored)
    return out


def test_it_reorders_and_says_why(run, ranked: Path) -> None:
    code, out, err = run("confirm", ranked, "--goal", "both", *SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["checkpoint", "epoch", "source", "confirmed_fe", "confirmed_ft"]
    assert lines[1].startswith("*1")
    (verdict,) = [line for line in lines if line.startswith("confirmed for fe: checkpoint-")]
    assert " Confirmed for ft: checkpoint-" in verdict
    assert "agreement of the scores with ft: not measured, that takes 5 candidates" in out
    assert "\x1b" not in out
    value = json.loads((ranked / "ranking.json").read_text())
    assert value["best"] == value["checkpoints"][0]["name"]
    assert {row["confirmed"]["fe"]["state"] for row in value["checkpoints"]} <= {
        "won",
        "tied",
        "behind",
        "out",
    }
    header = (ranked / "ranking.csv").read_text().splitlines()[0]
    assert "fe_accuracy" in header and "ft_state" in header


def test_candidates_for_fine_tuning_are_spread_over_the_trajectory() -> None:
    """The best frozen features say little of fine-tuning."""
    path = Path(__file__).parent.parent / "reference_runs/cifar10-mnist-small/seed0/mnist-1000"
    ranking = read_ranking(path)[0]

    def epochs(goal: str, n: int | None = None) -> list[int | None]:
        return [row.epoch for row in choose_candidates(ranking, goal, n)]

    assert epochs("fe", 3) == [2, 5, 7] and epochs("ft", 3) == [1, 15, 120]
    assert epochs("ft") == [1, 3, 7, 15, 20, 40, 80, 120]


def test_confirm_json_holds_every_curve(run, ranked: Path) -> None:
    assert run("confirm", ranked, *SMALL, "--full", "--lr", "0.01,0.1,1")[0] == 0
    value = json.loads((ranked / "confirm.json").read_text())
    assert value["schema"] == SCHEMA
    goal = value["goals"]["fe"]
    assert set(goal["sweep"]) == {"0.01", "0.1", "1"}
    assert goal["lr_at_edge"] == (goal["lr"] != 0.1)
    assert goal["n_steps"] == goal["n_steps_full"] == 3 * 2 * 30
    raced = [r for r in goal["runs"] if r["purpose"] == "race"]
    assert {(r["checkpoint"], r["seed"]) for r in raced} == {
        (f"checkpoint-{epoch}", seed) for epoch in ("001", "005", "010") for seed in (0, 1)
    }
    assert all(r["lr"] == goal["lr"] for r in raced)
    assert all(r["points"][-1]["step"] == 30 for r in raced)
    assert len(goal["runs"]) == 6 + 9


def test_each_candidate_may_have_a_rate_of_its_own(run, ranked: Path, monkeypatch) -> None:
    """Searched wider and finer than the default grid; kept like every run."""
    options = ("--steps", 30, "--seeds", 1, "--lr-per-candidate", "-q")
    code, out, _ = run("confirm", ranked, *options)
    assert code == 0
    assert "learning rates for fe: checkpoint-001 " in out
    goal = json.loads((ranked / "confirm.json").read_text())["goals"]["fe"]
    assert f"one for all would be {goal['lr']:g} (short runs of some" in out
    assert {"0.001", "0.01", "0.1", "1"} < set(goal["sweep"])
    own = goal["own_rates"]
    assert set(own) == {"checkpoint-001", "checkpoint-005", "checkpoint-010"}
    raced = {r["checkpoint"]: r["lr"] for r in goal["runs"] if r["purpose"] == "race"}
    assert raced == {name: rate["lr"] for name, rate in own.items()}
    for rate in own.values():
        best = max(accuracy for accuracy in rate["sweep"].values() if accuracy is not None)
        assert rate["sweep"][f"{rate['lr']:g}"] == best
    swept = {(r["checkpoint"], r["lr"]) for r in goal["runs"] if r["purpose"] == "sweep"}
    assert goal["n_steps_sweep"] == len(swept) * (30 // 4)
    assert (
        json.loads((ranked / "ranking.json").read_text())["confirmation"]["fe"]["own_rates"] == own
    )
    monkeypatch.setattr("ckptsel.training.loop.Training.run", untrained)
    assert run("confirm", ranked, *options)[1] == out


def untrained(*arguments: object) -> None:
    raise AssertionError("trained again")


def test_again_gives_the_same_and_trains_nothing(
    run,
    ranked: Path,
    monkeypatch,
) -> None:
    first = run("confirm", ranked, *SMALL, "-f", "csv")
    assert first[0] == 0

    monkeypatch.setattr("ckptsel.training.loop.Training.run", untrained)
    assert run("confirm", ranked, *SMALL, "-f", "csv") == first


def test_killed_and_resumed_equals_undisturbed(run, ranked: Path, tmp_path: Path) -> None:
    """Killed inside the race of each goal; down to the curves."""
    options = ("--goal", "both", *SMALL, "--steps", 9, "--cache-dir")
    assert run("confirm", ranked, *options, tmp_path / "a")[0] == 0
    undisturbed = json.loads((ranked / "confirm.json").read_text())["goals"]
    (ranked / "confirm.json").unlink()
    advance, n_calls = runs.Transfer.advance, []

    def killed(self, *arguments):
        n_calls.append(self)
        if len(n_calls) in (4, 20):
            raise KeyboardInterrupt
        return advance(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Transfer, "advance", killed)
        for _ in range(2):
            code, out, err = run("confirm", ranked, *options, tmp_path / "b")
            assert (code, out) == (130, "")
            assert "the same command goes on from there" in err
            assert not (ranked / "confirm.json").exists()
        assert run("confirm", ranked, *options, tmp_path / "b")[0] == 0
    assert json.loads((ranked / "confirm.json").read_text())["goals"] == undisturbed


def test_a_ranking_by_epoch_is_confirmed(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranking"
    options = ("--goal", "ft", "--scores", "linear_probe", "-o", out, "-q")
    assert run("rank", trajectory, "-d", images, *options)[0] == 0
    code, text, _ = run("confirm", out, "--candidates", 2, *SMALL, "--steps", 9)
    assert code == 0
    value = json.loads((out / "ranking.json").read_text())
    # Spread over the trajectory: neighbours are much alike.
    tried = [row["name"] for row in value["checkpoints"] if row["confirmed"]]
    assert sorted(tried) == ["checkpoint-001", "checkpoint-010"]
    assert "confirmed for ft: checkpoint-0" in text
    assert "the best by source accuracy is not compared: it did not race" in text


def test_how_sure_an_order_is_is_known_after_the_race(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    options = ("--by", "logme", "--scores", "logme", "-o", tmp_path / "ranking", "-q")
    assert (
        "how sure the order is is not known" in run("rank", trajectory, "-d", images, *options)[1]
    )
    code, text, _ = run("confirm", tmp_path / "ranking", *SMALL)
    assert code == 0 and "confirmed for fe: checkpoint-0" in text
    assert "is not known" not in text


class ColourNetwork(nn.Module):
    """Two features: the mean of one colour, and noise; which is which the weights decide."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1)
        self.classifier = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Colours that are mixed away before the absolute value cannot be had back.
        return self.classifier(torch.tanh(self.mix(images)).mean((2, 3)))


def test_the_truly_best_wins(run, tmp_path: Path, monkeypatch) -> None:
    """Classes differ in colour alone; one checkpoint keeps colours apart, the others add them up."""
    monkeypatch.setitem(sys.modules, "colours", sys.modules[__name__])
    save_images(tmp_path / "data" / "train", 40, seed=0)
    save_images(tmp_path / "data" / "val", 100, seed=1)
    (tmp_path / "ckpts").mkdir()
    for epoch in range(1, 5):
        torch.manual_seed(epoch)
        network = ColourNetwork()
        with torch.no_grad():
            weight = network.mix.weight
            if epoch != 2:
                weight.copy_(weight.mean(1, keepdim=True).expand_as(weight))
        torch.save(
            {"state_dict": network.state_dict(), "epoch": epoch},
            tmp_path / "ckpts" / f"e{epoch}.pt",
        )
    out = tmp_path / "ranking"
    code, text, _ = run(
        "rank",
        tmp_path / "ckpts",
        "-d",
        tmp_path / "data",
        "-m",
        "colours:ColourNetwork",
        "-o",
        out,
        "--image-size",
        8,
        "--scores",
        "linear_probe",
        "--confirm",
        4,
        "-q",
    )
    assert code == 0
    value = json.loads((out / "ranking.json").read_text())
    assert value["best"] == "e2"
    assert value["tie_set"] == ["e2"]
    states = {row["name"]: row["confirmed"]["fe"]["state"] for row in value["checkpoints"]}
    assert states["e2"] == "won"
    confirmed = value["confirmation"]["fe"]
    assert confirmed["n_steps"] < 0.5 * confirmed["n_steps_full"]
    assert "confirmed for fe: e2 is recommended, " in text


def test_a_candidate_that_diverges_is_marked(run, ranked: Path, monkeypatch) -> None:
    start = runs.Task.start

    def poisoned(self, checkpoint, *arguments):
        training = start(self, checkpoint, *arguments)
        if checkpoint.name == "checkpoint-005":
            nn.init.constant_(training.model.weight, float("nan"))
        return training

    monkeypatch.setattr(runs.Task, "start", poisoned)
    code, out, _ = run("confirm", ranked, *SMALL)
    assert code == 0
    assert "flag: fe: checkpoint-005 diverged by step 3 and left the race" in out
    rows = json.loads((ranked / "ranking.json").read_text())["checkpoints"]
    assert rows[-1]["name"] == "checkpoint-005"
    assert rows[-1]["confirmed"]["fe"]["accuracy"] is None


def test_out_of_memory_is_said(run, ranked: Path, small_memory: None) -> None:
    code, out, err = run("confirm", ranked, "--goal", "ft", *SMALL[:-1], "--steps", 9)
    assert code == 0
    said = "out of memory: batches of 36 go through in 2 parts, gradients accumulated"
    assert f"flag: ft: {said}" in out
    assert f"note: {said}" in err


@pytest.mark.parametrize("kind", ["gone", "one gone", "changed", "new data"])
def test_what_was_ranked_must_be_what_is_trained(
    run,
    ranked: Path,
    trajectory: Path,
    images: Path,
    kind: str,
) -> None:
    file = trajectory / "checkpoint-005.safetensors"
    if kind == "gone":
        trajectory.rename(trajectory.with_name("elsewhere"))
    elif kind == "one gone":
        file.unlink()
    elif kind == "changed":
        shutil.copy(trajectory / "checkpoint-010.safetensors", file)
    else:
        (images / "train" / "class0" / "0.png").unlink()
    code, out, err = run("confirm", ranked, *SMALL)
    assert (code, out) == (3, "")
    expected = {
        "gone": "checkpoints are no longer at",
        "one gone": "checkpoint-005: not there any more",
        "changed": "checkpoint-005: has changed (digest",
        "new data": "are not those of the ranking: they have changed since",
    }
    assert expected[kind] in err
    assert len(err.splitlines()) <= 4
    if kind == "gone":
        moved = trajectory.with_name("elsewhere")
        assert run("confirm", ranked, *SMALL, "--checkpoints", moved)[0] == 0


def test_event_files_hold_the_curves(run, ranked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # The second time nothing is trained, and the files are still whole.
    for _ in range(2):
        assert run("confirm", ranked, *SMALL, "--full", "--tensorboard")[0] == 0
    goal = json.loads((ranked / "confirm.json").read_text())["goals"]["fe"]
    kept = next(r for r in goal["runs"] if (r["checkpoint"], r["seed"]) == ("checkpoint-005", 1))
    events = EventAccumulator(str(ranked / "tensorboard/fe/checkpoint-005/seed1")).Reload()
    accuracy = {e.step: e.value for e in events.Scalars("held_accuracy")}
    assert len(accuracy) == len(events.Scalars("held_accuracy"))
    assert accuracy == pytest.approx({p["step"]: p["held_accuracy"] for p in kept["points"]})


def test_one_candidate_is_no_race(run, ranked: Path) -> None:
    code, _, err = run("confirm", ranked, "--candidates", 1, *SMALL)
    assert code == 3
    assert "there are 1 candidates (checkpoint-" in err and "a race needs two" in err


def test_a_class_of_one_image_is_refused(run, trajectory: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "data", 6)
    for i in range(1, 6):
        (tmp_path / "data" / "class0" / f"{i}.png").unlink()
    code, _, err = run("rank", trajectory, "-d", tmp_path / "data", "--confirm", 2, "-q")
    assert code == 3
    assert "class0" in err and "single image" in err


def test_a_class_of_one_training_image_has_none_to_choose_a_rate_on(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    for i in range(1, 12):
        (images / "train" / "class0" / f"{i}.png").unlink()
    out = tmp_path / "ranking"
    assert (
        run("rank", trajectory, "-d", images, "--scores", "linear_probe", "-o", out, "-q")[0] == 0
    )
    code, _, err = run("confirm", out, "-q")
    assert code == 3
    assert "have a single image to train on" in err and "class0" in err


def test_a_folder_without_a_ranking(run, tmp_path: Path) -> None:
    code, _, err = run("confirm", tmp_path)
    assert code == 3
    assert "is no folder of a ranking. Make one with: ckptsel rank" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--goal", "tf"), "goal is 'tf'; it must be one of fe, ft, both"),
        (("--preset", "paper-cfar"), "unknown preset 'paper-cfar'"),
        (("--steps", 5, "--epochs", 1), "--steps and --epochs are both given"),
        (("--lr", "fast"), "--lr 'fast' is not a list of numbers"),
        (("--lr", "0.1,-1"), "it must be one or more numbers above 0"),
        (("--augment", "flop"), "augment is 'flop'; it must be one of flip, crop"),
        (
            ("--optimizer", "momentun"),
            "unknown optimizer 'momentun': not one of timm's. Did you mean momentum",
        ),
    ],
)
def test_wrong_options(run, ranked: Path, options, message: str) -> None:
    code, _, err = run("confirm", ranked, "-q", *options)
    assert code == 2
    assert message in err


@pytest.mark.slow
def test_the_shipped_trajectory_end_to_end(tmp_path: Path) -> None:
    """Rank, FE and FT on a small budget; frozen features agree with the linear probe."""
    from ckptsel.ranking.rank import rank_with_predictions
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import write_ranking

    scored = rank_with_predictions(
        RUN / "seed0/checkpoints", RUN / "targets/mnist-1000", scores=("linear_probe",)
    )
    write_ranking(tmp_path, *scored)
    ranking = ckptsel.confirm(tmp_path, goal="fe", n_seeds=2, steps=600, lr=(0.1,), full=True)
    for row in ranking:
        if row.confirmed:
            probe, trained = row.scores["linear_probe"], row.confirmed["fe"]
            assert trained.accuracy.low <= probe.value <= trained.accuracy.high
            assert probe.low <= trained.accuracy.value <= probe.high
    assert 2 <= ranking[ranking.best].epoch <= 10
    assert ranking.references["last"].ahead.by == "confirmed"
    assert ranking.references["last"].ahead.low > 0.03
    tau = ranking.confirmation["fe"].agreement["linear_probe"].kendall_tau
    assert tau.value > 0.5
    text = format_ranking(ranking, "table")
    assert "agreement with fe accuracy after 600 steps, 6 checkpoints:" in text
    kept = json.dumps(ranking.to_dict())
    assert json.dumps(ckptsel.Ranking.from_dict(json.loads(kept)).to_dict()) == kept
    tuned = ckptsel.confirm(
        tmp_path, goal="ft", n_candidates=3, n_seeds=2, steps=45, batch_size=32, lr=(0.1,)
    )
    assert tuned.goal == "ft" and tuned.confirmation.keys() == {"fe", "ft"}
    best = tuned[tuned.best].confirmed["ft"]
    assert best.state == "won" and best.accuracy.value > 0.6
