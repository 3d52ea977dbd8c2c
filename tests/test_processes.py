"""Checkpoints scored in several processes: the ranking of one, whatever becomes of them."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import ckptsel
from ckptsel.checkpoints import scan
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.features.candidate import Candidate
from ckptsel.ranking import passes, processes
from ckptsel.ranking.calls import Call, Opening
from ckptsel.ranking.processes import Processes
from ckptsel.ranking.scoring import Outcome, score_candidates
from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import make_settings


def numbers(ranking: Ranking) -> list:
    return [
        (row.name, row.status, row.p_best, {k: v.value for k, v in row.scores.items()})
        for row in ranking.checkpoints
    ]


def test_two_processes_give_the_ranking_of_one(
    trajectory: Path, images: Path, tmp_path: Path
) -> None:
    alone = ckptsel.rank(trajectory, images, cache_dir=str(tmp_path / "one"))
    cache = str(tmp_path / "two")
    beside = ckptsel.rank(trajectory, images, cache_dir=cache, device="cpu", processes=2)
    assert numbers(alone) == numbers(beside)
    assert "processes" in beside.time_s and "processes" not in alone.time_s


def killer(name: str, once: Path | None):
    """Scoring that ends its process at a checkpoint: once, or whenever it comes."""

    def score(spec, workspace):
        if spec.candidates[0].checkpoint.name == name and (once is None or not once.exists()):
            if once is not None:
                once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return score_candidates(spec, workspace)

    return score


@pytest.mark.parametrize("always", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_process_that_dies(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch, always: bool
) -> None:
    """Once: its checkpoint is scored by another. Whenever: that checkpoint alone has failed."""
    alone = ckptsel.rank(trajectory, images, cache=False)
    victim = alone.checkpoints[-1].name
    # Forked here alone, so that the processes have the change.
    monkeypatch.setattr(processes, "START", "fork")
    monkeypatch.setattr(
        passes, "score_candidates", killer(victim, None if always else tmp_path / "once")
    )
    beside = ckptsel.rank(trajectory, images, cache=False, processes=2)
    if not always:
        assert numbers(alone) == numbers(beside)
    else:
        (failed,) = [row for row in beside.checkpoints if row.status == "failed"]
        assert failed.name == victim and failed.reason == processes.DIED


def tell_and_wait(folder: Path, job, workspace) -> None:
    """Work that tells who does it, and takes its time."""
    (folder / str(os.getpid())).touch()
    time.sleep(20)
    (folder / "done").touch()


def test_an_interrupt_ends_the_processes_whatever_they_are_at(
    trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(processes, "START", "fork")
    found = scan_checkpoints(trajectory)
    opening = Opening(tuple(found), str(images), make_settings({}))
    (told := tmp_path / "told").mkdir()
    calls = [Call(partial(tell_and_wait, told), (Candidate(c),)) for c in found]

    def interrupt() -> None:
        while len(list(told.iterdir())) < 2:
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), Processes(opening, ("cpu", "cpu")) as crew:
        list(crew.answers(calls))
    for path in told.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


def test_devices_and_processes_say_the_same(run, trajectory: Path, images: Path) -> None:
    code, _, said = run(
        "rank", trajectory, "--data", images, "--devices", "cpu,cpu", "--processes", "2"
    )
    assert code == 2
    assert "--devices and --processes both say where checkpoints are scored" in said


def test_parts_fill_the_cache_that_a_ranking_then_finds(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    alone = ckptsel.rank(trajectory, images, cache=False)
    options = ("--data", images, "--cache-dir", tmp_path / "shared")
    names = []
    for part in ("1/2", "2/2"):
        code, said, noted = run(
            "rank", trajectory, *options, "--shard", part, "--out", tmp_path / "no"
        )
        assert code == 0 and f"part {part.replace('/', ' of ')}: the scores of" in said
        assert "--out has no effect: with --shard nothing is ranked" in noted
        names.append(said)
    assert not (tmp_path / "no").exists()
    n_each = [int(said.split("scores of ")[1].split()[0]) for said in names]
    assert sum(n_each) == len(alone) and abs(n_each[0] - n_each[1]) <= 1
    monkeypatch.setattr("ckptsel.ranking.scoring._computed", None)  # nothing is left to compute
    gathered = ckptsel.rank(trajectory, images, cache_dir=str(tmp_path / "shared"))
    assert numbers(gathered) == numbers(alone)


def test_a_part_reads_its_own_files_alone(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    read, inspect_all = [], scan.inspect_all

    def noted(paths, *options):
        read.extend(path.stem for path in paths)
        return inspect_all(paths, *options)

    monkeypatch.setattr(scan, "inspect_all", noted)
    (trajectory / "checkpoint-010.safetensors").write_bytes(b"cut")
    options = ("--data", images, "--cache-dir", tmp_path / "shared", "--scores", "linear_probe")
    for part, n_scored, names in (
        ("2/3", "1 of 1", ["checkpoint-005"]),
        ("3/3", "0 of 1", ["checkpoint-010"]),
        ("4/4", "0 of 0", []),
    ):
        read.clear()
        code, said, _ = run("rank", trajectory, *options, "--shard", part)
        assert code == 0 and f"the scores of {n_scored} candidates" in said
        assert read == names
    (tmp_path / "empty").mkdir()
    code, _, said = run("rank", tmp_path / "empty", *options, "--shard", "1/2")
    assert code == 3 and "no checkpoints below" in said


def test_a_part_in_which_all_fail_is_no_failed_job(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    def score(spec, workspace):
        yield from (Outcome(c.name, problem="features are not finite") for c in spec.candidates)

    monkeypatch.setattr(passes, "score_candidates", score)
    options = ("--data", images, "--cache-dir", tmp_path, "--shard", "2/2")
    code, said, noted = run("rank", trajectory, *options)
    assert code == 0 and "the scores of 0 of 1 candidates" in said
    assert "failed: features are not finite" in noted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "3/2"), "--shard is 3/2: there is no part 3 of 2"),
        (("--shard", "x"), "it must be a part and the number of parts, such as 3/16"),
        (("--shard", "1/2", "--gate"), "--shard scores a part and ranks nothing"),
        (("--shard", "1/2", "--no-cache"), "a part of a ranking is scored for the cache"),
    ],
)
def test_a_part_that_cannot_be(run, trajectory: Path, images: Path, options, message: str) -> None:
    code, _, said = run("rank", trajectory, "--data", images, *options)
    assert code == 2 and message in said
