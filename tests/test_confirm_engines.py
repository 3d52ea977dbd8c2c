"""Runs of `confirm` side by side: the numbers of one process, whatever becomes of the others."""

import json
import os
import signal
from pathlib import Path

import pytest

import ckptsel
from ckptsel.confirmation import board, runs
from ckptsel.ranking import processes

SMALL = {"goal": "both", "steps": 9, "n_seeds": 2, "full": True, "lr": (0.03, 0.1)}


def confirmed(ranked: Path, own: Path, **options: object) -> dict:
    """What a confirmation measured. own: the folder of its cache."""
    ckptsel.confirm(ranked, cache_dir=str(own), **{**SMALL, **options})
    return json.loads((ranked / "confirm.json").read_text())["goals"]


def test_two_processes_give_the_numbers_of_one(ranked: Path, tmp_path: Path, monkeypatch) -> None:
    """To the last bit of every curve, those of the search of a learning rate too."""
    alone = confirmed(ranked, tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Transfer, "advance", None)  # nothing is trained in this process
        beside = confirmed(ranked, tmp_path / "two", processes=2)
        # What was trained beside is kept here: no process is asked again.
        patch.setattr(processes, "_answer", None)
        again = confirmed(ranked, tmp_path / "two", processes=2)
    assert alone == beside == again


def killer(name: str, once: Path | None, owner: int):
    """Training that ends its process behind the first point of a run: once, or whenever it comes."""
    train_to = runs.Transfer._train_to

    def killed(self, stop, training):
        is_beside = os.getpid() != owner and self.candidate.name == name and training.step > 0
        if is_beside and (once is None or not once.exists()):
            if once is not None:
                once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train_to(self, stop, training)

    return killed


@pytest.fixture
def forked(monkeypatch) -> None:
    """So that the processes have what a test changes."""
    monkeypatch.setattr(processes, "START", "fork")


@pytest.mark.parametrize("keeps", [True, False])
def test_runs_go_on_in_whatever_process(
    ranked: Path, tmp_path: Path, monkeypatch, forked, keeps: bool
) -> None:
    """At each rung from where they were; without a cache in a folder of this command's own."""
    train_to = runs.Transfer._train_to

    def told(self, stop, training):
        with (tmp_path / "trained").open("a") as lines:
            lines.write(f"{self.candidate.name} {training.step} to {stop}\n")
        return train_to(self, stop, training)

    monkeypatch.setattr(runs.Transfer, "_train_to", told)
    options = {"goal": "ft", "n_seeds": 1, "lr": (0.1,), "processes": 2, "cache": keeps}
    confirmed(ranked, tmp_path / "own", **options)
    trained = (tmp_path / "trained").read_text().splitlines()
    names = ("checkpoint-001", "checkpoint-005", "checkpoint-010")
    parts = ("0 to 1", "1 to 3", "3 to 9")
    assert sorted(trained) == [f"{name} {part}" for name in names for part in parts]


def test_a_process_that_dies_costs_no_number(
    ranked: Path, tmp_path: Path, monkeypatch, forked
) -> None:
    alone = confirmed(ranked, tmp_path / "one", lr=(0.1,))
    once = tmp_path / "once"
    monkeypatch.setattr(runs.Transfer, "_train_to", killer("checkpoint-005", once, os.getpid()))
    beside = confirmed(ranked, tmp_path / "two", lr=(0.1,), processes=2)
    assert once.exists() and alone == beside


def test_a_run_that_always_dies_is_named(run, ranked: Path, monkeypatch, forked) -> None:
    monkeypatch.setattr(runs.Transfer, "_train_to", killer("checkpoint-005", None, os.getpid()))
    options = ("--goal", "fe", "--steps", 9, "--seeds", 1, "--lr", "0.1", "--processes", 2, "-q")
    code, out, err = run("confirm", ranked, *options)
    assert (code, out) == (3, "")
    assert err.startswith(
        f"error: checkpoint-005, seed 0, learning rate 0.1: {processes.DIED}. What was trained is kept"
    )
    assert not (ranked / "confirm.json").exists()


def test_what_happens_beside_is_said(
    run, ranked: Path, monkeypatch, forked, small_memory: None
) -> None:
    monkeypatch.setattr(board, "PLAIN_INTERVAL_S", 0)
    options = ("--goal", "ft", "--steps", 9, "--seeds", 1, "--lr", "0.1", "--processes", 2)
    code, out, err = run("confirm", ranked, *options)
    said = "out of memory: batches of 36 go through in 2 parts, gradients accumulated"
    assert code == 0 and f"flag: ft: {said}" in out and err.count(f"note: {said}") == 1
    assert "ft checkpoint-005 seed 0 step 1/9  loss" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--devices", "cpu,cpu", "--processes", 2), "both say where runs are trained: give one"),
        (("--devices", "cuda:999"), "--devices is 'cuda:999'; "),
        (("--engine", "ray", "--processes", 2), "--engine ray and --processes both say where runs"),
    ],
)
def test_options_that_do_not_fit(run, ranked: Path, options, message: str) -> None:
    code, _, said = run("confirm", ranked, *options)
    assert code == 2 and message in said


def test_a_device_that_is_not_there_is_named_before_anything_is_trained(ranked: Path) -> None:
    with pytest.raises(ckptsel.errors.UsageError, match="the device is 'cuda:999'"):
        ckptsel.confirm(ranked, devices=("cpu", "cuda:999"))
