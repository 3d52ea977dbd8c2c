"""What is written and read back: older files, typed models, the order of writing."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptsel
from ckptsel.errors import InputError, OutputError
from ckptsel.report import page
from ckptsel.reproduce.results import Results, save_results
from ckptsel.results.confirmation import ConfirmationRecord
from ckptsel.results.estimate import Estimate, percent
from ckptsel.results.files import (
    read_confirmation,
    read_ranking,
    write_confirmation,
    write_ranking,
)
from ckptsel.results.ranking import Ranking, Reference
from tests.conftest import largest_file

FIRST = Path(__file__).parent / "data/first_schema"

FREE_OF = ("torch", "timm", "altair", "vl_convert", "scipy", "pandas", "pyarrow", "jinja2")


def test_files_of_the_first_schema_are_read() -> None:
    """As 0.1 wrote them."""
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


def test_text_is_no_number(tmp_path: Path) -> None:
    value = read_ranking(FIRST)[0].to_dict()
    value["checkpoints"][0]["scores"]["linear_probe"]["details"] = {"C": ["nan"]}
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"details\.C\.0: Input should be a finite number"):
        read_ranking(tmp_path)


def test_what_was_confirmed_is_told(tmp_path: Path) -> None:
    write_set(tmp_path, 1, confirmed=True)
    value = json.loads((tmp_path / "ranking.json").read_text())
    row = next(row for row in value["checkpoints"] if row["confirmed"])
    row["confirmed"]["fe_"] = next(iter(row["confirmed"].values()))
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="confirmed for 'fe_', and nothing is said of that"):
        read_ranking(tmp_path)


@pytest.mark.parametrize("key", ["source_accuracy", "p_best"])
def test_a_share_is_at_most_one(tmp_path: Path, key: str) -> None:
    value = read_ranking(FIRST)[0].to_dict()
    value["checkpoints"][0][key] = 1e30
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"checkpoints.0.{key}: Input should be less than"):
        read_ranking(tmp_path)


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


PUBLIC = {"ranking.json", "ranking.csv", "predictions.safetensors"}
CONFIRMED = {"confirm.json", "confirm.safetensors"}


def write_set(
    folder: Path, number: int, confirmed: bool = False, predictions: int | None = None
) -> None:
    """A ranking whose files all carry a number, its predictions another where that is given;
    confirmed as a second step."""
    rows = tuple(dataclasses.replace(row, epoch=number, confirmed=None) for row in small()[0])
    ranking = dataclasses.replace(
        small()[0], created=f"run {number}", confirmation={}, checkpoints=rows
    )
    labels = number if predictions is None else predictions
    write_ranking(folder, ranking, {"labels": np.array([labels])})
    if confirmed:
        confirm_set(folder, ranking, number)


def confirm_set(folder: Path, ranking: Ranking, number: int) -> None:
    trained = small()[0]
    rows = tuple(dataclasses.replace(r, confirmed=trained[r.name].confirmed) for r in ranking)
    ranking = dataclasses.replace(ranking, confirmation=trained.confirmation, checkpoints=rows)
    record = dataclasses.replace(small()[1], created=f"confirmed {number}")
    write_confirmation(folder, ranking, record, {"ft/labels": np.array([-number])})


@functools.cache
def small() -> tuple[Ranking, ConfirmationRecord]:
    """A ranking and its confirmation, of one row and without curves."""
    ranking, record = read_ranking(FIRST)[0], read_confirmation(FIRST)
    goals = {"ft": dataclasses.replace(record.goals["ft"], runs=(), standings=())}
    only = {"winner": ranking.best, "tie_set": (ranking.best,)}
    confirmation = {"ft": dataclasses.replace(ranking.confirmation["ft"], **only)}
    best = ranking[ranking.best]
    assert best.confirmed is not None
    return (
        dataclasses.replace(
            ranking,
            checkpoints=(dataclasses.replace(best, confirmed={"ft": best.confirmed["ft"]}),),
            tie_set=(ranking.best,),
            references={"last": Reference(ranking.best)},
            confirmation=confirmation,
        ),
        dataclasses.replace(record, goals=goals),
    )


def set_of(folder: Path) -> tuple[Any, ...]:
    """What a reader finds: the numbers that its files carry."""
    ranking, arrays = read_ranking(folder)
    numbers = {name: int(array[0]) for name, array in arrays.items()}
    by = read_confirmation(folder).created if ranking.confirmation else None
    return ranking.created, numbers, by


def plain(number: int) -> tuple[Any, ...]:
    return f"run {number}", {"labels": number}, None


def confirmed(number: int, by: int | None = None) -> tuple[Any, ...]:
    by = number if by is None else by
    arrays = {"labels": number, "confirmed/ft/labels": -by}
    return f"run {number}", arrays, f"confirmed {by}"


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_confirmation_belongs_to_its_ranking(tmp_path: Path) -> None:
    write_set(tmp_path, 1, confirmed=True)
    assert set_of(tmp_path) == confirmed(1)
    assert files_in(tmp_path) == PUBLIC | CONFIRMED
    named = json.loads((tmp_path / "ranking.json").read_text())["files"]
    assert set(named) == (PUBLIC | CONFIRMED) - {"ranking.json"}
    assert json.loads((tmp_path / "confirm.json").read_text())["files"] == {
        "confirm.safetensors": named["confirm.safetensors"]
    }
    for name, digest in named.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    (tmp_path / "report.html").write_text("of the old ranking")
    write_set(tmp_path, 2)
    assert set_of(tmp_path) == plain(2) and files_in(tmp_path) == PUBLIC
    with pytest.raises(InputError, match=r"confirm.json does not exist"):
        read_confirmation(tmp_path)


@pytest.mark.parametrize("name", ["predictions.safetensors", "confirm.safetensors", "confirm.json"])
def test_a_file_of_another_run_is_refused(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        write_set(tmp_path / str(number), number, confirmed=True)
    shutil.copy(tmp_path / "2" / name, tmp_path / "1" / name)
    with pytest.raises(InputError, match=rf"{name} does not belong to ranking.json beside it"):
        set_of(tmp_path / "1")
    (tmp_path / "1" / name).unlink()  # only some of the files were kept
    ranking, arrays = read_ranking(tmp_path / "1")
    assert ranking.created == "run 1"
    assert (
        len(arrays)
        == {"predictions": 0, "confirm": 2 if name.endswith("json") else 1}[name.partition(".")[0]]
    )


@pytest.mark.parametrize("digest", ["../../x", "", "a" * 100_000, 3, None])
def test_what_is_no_digest_names_no_file(tmp_path: Path, digest: object) -> None:
    write_set(tmp_path, 1)
    value = json.loads((tmp_path / "ranking.json").read_text())
    value["files"]["predictions.safetensors"] = digest
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    with pytest.raises(InputError):
        read_ranking(tmp_path)


def test_a_confirmation_of_another_ranking_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "1", 1, confirmed=True)
    write_set(tmp_path / "2", 2)
    shutil.copy(tmp_path / "1" / "confirm.json", tmp_path / "2")
    with pytest.raises(InputError, match=r"confirm.json does not belong to ranking.json"):
        read_confirmation(tmp_path / "2")


@pytest.mark.parametrize("command", ["report", "gate"])
def test_the_commands_refuse_a_mix(run, tmp_path: Path, command: str) -> None:
    for number in (1, 2):
        write_set(tmp_path / str(number), number)
    shutil.copy(tmp_path / "2/predictions.safetensors", tmp_path / "1")
    policy = ("--min-accuracy", "0.1") if command == "gate" else ()
    code, out, err = run(command, tmp_path / "1", *policy)
    assert (code, out) == (3, "")
    assert err.startswith("error: ") and "does not belong to ranking.json beside it" in err


def test_a_ranking_that_was_replaced_is_not_confirmed(tmp_path: Path) -> None:
    write_set(tmp_path, 2)
    with pytest.raises(OutputError, match="was replaced by another ranking"):
        confirm_set(tmp_path, small()[0], 1)
    assert set_of(tmp_path) == plain(2)


def test_an_older_ranking_is_confirmed_and_replaced(tmp_path: Path) -> None:
    """Its predictions were not named; from then on they are."""
    write_set(tmp_path, 1)
    value = json.loads((tmp_path / "ranking.json").read_text())
    del value["files"]
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    assert set_of(tmp_path) == plain(1)
    confirm_set(tmp_path, read_ranking(tmp_path)[0], 1)
    assert set_of(tmp_path) == confirmed(1)
    (tmp_path / "ranking.json").write_text(json.dumps(value))
    write_set(tmp_path, 2)
    assert set_of(tmp_path) == plain(2) and files_in(tmp_path) == PUBLIC


class Killed(BaseException):
    """The process is gone: nothing after this happens either."""


class Faults:
    """Every change of a file counts; the `at`-th fails, half done, and with `kills` all after it."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, kills: bool) -> None:
        self.n, self.at, self.kills = 0, at, kills
        for owner, name in (
            (Path, "write_bytes"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "chmod"),
            (tempfile, "mkstemp"),
        ):
            patch.setattr(owner, name, self._failing(getattr(owner, name)))

    def _failing(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.n += 1
            if self.n == self.at or (self.kills and self.n > self.at):
                if do.__name__ == "write_bytes" and self.n == self.at:
                    do(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed if self.kills else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return do(*arguments, **options)

        return call


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("before", ["nothing", "plain", "confirmed", "a fault"])
@pytest.mark.parametrize("step", ["rank", "the same predictions", "confirm"])
def test_a_fault_at_any_moment_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: bool, before: str, step: str
) -> None:
    """A disk that is full, or a process that is killed, at each write, rename and removal in turn."""
    seen, at, done = set(), 0, False
    while not done:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        if before != "nothing" or step != "rank":
            write_set(folder, 1, confirmed=before == "confirmed")
        if before == "a fault":
            leave_half_done(folder, monkeypatch)
        old = set_of(folder) if files_in(folder) else None
        with monkeypatch.context() as patch:
            faults = Faults(patch, at, kills)
            try:
                if step == "rank":
                    write_set(folder, 2)
                elif step == "the same predictions":
                    write_set(folder, 2, predictions=old[1]["labels"])
                else:
                    confirm_set(folder, read_ranking(folder)[0], 5)
            except (OutputError, Killed):
                pass
            done = faults.n < at  # nothing failed any more
        new = plain(2)
        if step == "confirm":
            new = confirmed(old[1]["labels"], by=5)
        elif step == "the same predictions":
            new = ("run 2", {"labels": old[1]["labels"]}, None)
        if not (folder / "ranking.json").is_file():
            assert old is None
        else:
            assert set_of(folder) in (old, new)
            seen.add(set_of(folder) == new)
            assert not done or set_of(folder) == new
        write_set(folder, 3, confirmed=True)
        assert set_of(folder) == confirmed(3)
        hidden = {name for name in files_in(folder) if name.startswith(".")}
        assert files_in(folder) - hidden == PUBLIC | CONFIRMED
        assert not any(name.endswith(".new") for name in hidden)
    assert at > 10 and True in seen


def leave_half_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer was killed as soon as its ranking counted: its files have not taken their names."""
    with monkeypatch.context() as patch:
        replace = Path.replace

        def killed(path: Path, target: Path) -> Any:
            if path.name.endswith(".new"):
                raise Killed
            return replace(path, target)

        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            write_set(folder, 7)
    assert set_of(folder) == plain(7)
    assert any(name.endswith(".new") for name in files_in(folder))


def test_a_full_disk_is_a_sentence_and_the_old_ranking_stays(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ranking"
    options = ("rank", trajectory, "-d", images, "-o", out, "-q", "--scores", "logme")
    assert run(*options)[0] == 0
    before = read_ranking(out)[0].created, files_in(out)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, text, err = run(*options, "--seed", "1")
    assert (code, text) == (3, "")
    (said,) = [line for line in err.splitlines() if line.startswith("error")]
    assert "No space left on device. Make room there" in said
    assert (read_ranking(out)[0].created, files_in(out)) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_disk_that_is_full_for_a_library_is_a_sentence_too(tmp_path: Path) -> None:
    results = Results(predictions={"t/seed0/labels": np.zeros(100_000, np.int64)})
    with largest_file(50_000), pytest.raises(OutputError, match="cannot write .*predictions"):
        save_results(results, tmp_path)
    assert not list(tmp_path.glob("raw/*"))


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
    names = "checkpoint-001, checkpoint-005, checkpoint-010"
    assert (
        code == 0 and f"note: logme_thuml of {names} is left out: it is -inf, which is no" in text
    )
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
