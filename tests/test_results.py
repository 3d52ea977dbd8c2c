"""What is written and read back: older files, typed models, the order of writing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ckptsel
from ckptsel.errors import InputError
from ckptsel.report import page
from ckptsel.results.estimate import Estimate, percent
from ckptsel.results.files import read_confirmation, read_ranking

RUNS = Path(__file__).parents[1] / "reference_runs"
FIRST = RUNS / "cifar10-mnist-small/seed1/mnist-1000"

FREE_OF = ("torch", "timm", "altair", "vl_convert", "scipy", "pandas", "pyarrow", "jinja2")


def test_files_of_the_first_schema_are_read() -> None:
    """The shipped runs were written by 0.1."""
    stored = json.loads((FIRST / "ranking.json").read_text())
    ranking, _ = read_ranking(FIRST)
    assert stored["schema"] == "ckptsel.ranking/1"
    assert [row.name for row in ranking] == [row["name"] for row in stored["checkpoints"]]
    last = stored["baselines"]["last"]
    assert ranking.references["last"].ahead == (
        None
        if last["difference"] is None
        else ckptsel.results.estimate.Measured(
            last["difference"], last["low"], last["high"], by=last["by"], step=last.get("step")
        )
    )
    first, row = stored["checkpoints"][0], ranking[ranking.best]
    assert row.confirmed["ft"].accuracy == Estimate(
        first["confirmed"]["ft"]["accuracy"],
        first["confirmed"]["ft"]["low"],
        first["confirmed"]["ft"]["high"],
    )
    assert ranking.is_accuracy("linear_probe") and not ranking.is_accuracy("logme")


def test_a_confirmation_of_the_first_schema_is_read() -> None:
    stored = json.loads((FIRST / "confirm.json").read_text())
    record = read_confirmation(FIRST)
    for goal, outcome in stored["goals"].items():
        read = record.goals[goal]
        assert len(read.runs) == len(outcome["runs"])
        accuracies = [s["accuracy"] for s in outcome["standings"]]
        assert [s.accuracy and s.accuracy.value for s in read.standings] == accuracies


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "ckptsel.ranking/9"}, "schema 'ckptsel.ranking/9', expected"),
        ({"best": 3}, "best: Input should be a valid string"),
        ({"checkpoints": [{}]}, r"checkpoints.0.name: Field required"),
        ({"tie_set": "abc"}, "tie_set: "),
    ],
)
def test_what_is_no_ranking_is_said_with_its_key(
    tmp_path: Path, change: dict, message: str
) -> None:
    value = {**read_ranking(FIRST)[0].to_dict(), **change}
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message) as raised:
        read_ranking(tmp_path)
    assert "Rank again" in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"schema": null}', "[" * 100_000])
def test_any_other_json_is_an_error_of_the_tool(tmp_path: Path, text: str) -> None:
    (tmp_path / "ranking.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read as a ranking"):
        read_ranking(tmp_path)


def test_broken_predictions_are_named(tmp_path: Path) -> None:
    shutil.copy(FIRST / "ranking.json", tmp_path / "ranking.json")
    (tmp_path / "predictions.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="predictions.safetensors cannot be read"):
        read_ranking(tmp_path)


def test_an_estimate_says_what_it_is() -> None:
    estimate = Estimate(0.5, 0.4, 0.6, n=100, random="images")
    assert (percent(estimate), percent(Estimate(0.5), " %")) == ("50.0 [40.0, 60.0]", "50.0 %")
    assert estimate.bounds == (0.4, 0.6)
    with pytest.raises(ValueError, match="no interval"):
        _ = Estimate(0.5).bounds


def test_scores_say_how_many_images_they_rest_on(trajectory: Path, images: Path) -> None:
    row = next(iter(ckptsel.rank(trajectory, images, scores=("linear_probe", "logme"))))
    probe, logme = row.scores["linear_probe"], row.scores["logme"]
    assert (probe.n, probe.random) == (30, "images")
    assert (logme.n, logme.random, logme.low) == (None, None, None)


def test_a_chart_that_fails_costs_no_result(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such colour")

    monkeypatch.setattr(page, "draw", fail)
    out = tmp_path / "ranking"
    code, text, err = run("rank", trajectory, "-d", images, "-o", out, "-q")
    assert code == 0 and "*1" in text
    assert "report.html could not be drawn (unexpected RuntimeError: no such colour)" in err
    assert {path.name for path in out.iterdir()} == {
        "ranking.json",
        "ranking.csv",
        "predictions.safetensors",
    }


def test_a_score_that_is_not_finite_costs_itself_alone(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptsel.scores import logme_thuml

    monkeypatch.setattr(logme_thuml, "_fixed_point", lambda *_: float("-inf"))
    out = tmp_path / "ranking"
    code, text, _ = run("rank", trajectory, "-d", images, "-o", out, "-q")
    assert code == 0 and "note: logme_thuml of checkpoint-001 is -inf, and left out" in text
    ranking, _ = read_ranking(out)
    assert all("logme" in row.scores and "logme_thuml" not in row.scores for row in ranking)


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "RUN", "--min-accuracy", "0.1"),
        ("pick", "RUN"),
        ("--help",),
        ("rank", "--help"),
        ("rank", "--seed", "-1"),
    ],
)
def test_what_reads_results_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Measured in a process of its own: the list of modules is what makes it start at once."""
    code = (
        "import sys\nfrom ckptsel.cli import main\n"
        f"sys.argv = {['ckptsel', *(str(FIRST) if a == 'RUN' else a for a in arguments)]!r}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', [m for m in {FREE_OF!r} if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "heavy: []", ended.stderr
