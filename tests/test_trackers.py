"""Experiment trackers: what they are told, read back from each; none of them can cost a ranking."""

import dataclasses
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ckptsel.cli import tracking
from ckptsel.errors import UsageError
from ckptsel.results.files import read_ranking
from ckptsel.trackers.entry import entry_of
from ckptsel.trackers.log import check_installed

FIRST = Path("reference_runs/cifar10-mnist-small/seed0/mnist-1000")


def accuracies(folder: Path) -> dict[int, tuple[float, float, float]]:
    """Value and interval by epoch, as the ranking has them."""
    scores = {row.epoch: row.scores["linear_probe"] for row in read_ranking(folder)[0]}
    return {int(epoch): (s.value, *s.bounds) for epoch, s in scores.items()}


def package(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that takes a tracker's place."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))


# ---- what they are told --------------------------------------------------------------------------


def test_scores_and_confirmed_accuracy_stand_against_the_epoch_with_intervals() -> None:
    ranking, _ = read_ranking(FIRST)
    entry = entry_of(ranking, FIRST)
    assert entry.axis == "ckptsel/epoch"
    assert [step for step, _ in entry.points][:4] == [1, 2, 3, 5]
    fifth = dict(entry.points)[5]
    row = ranking["checkpoint-005"]
    assert fifth["ckptsel/linear_probe"] == row.scores["linear_probe"].value
    trained = (row.trained("ft").value, *row.trained("ft").bounds)
    assert tuple(fifth[f"ckptsel/confirmed_ft{end}"] for end in ("", "_low", "_high")) == trained
    assert "ckptsel/logme_low" not in fifth  # it has no interval
    assert entry.best == "checkpoint-005"


def test_what_has_no_whole_epochs_stands_in_the_order_of_training() -> None:
    ranking, _ = read_ranking(FIRST)
    halves = tuple(dataclasses.replace(row, epoch=row.order + 0.5) for row in ranking)
    entry = entry_of(dataclasses.replace(ranking, checkpoints=halves), FIRST)
    assert entry.axis == "ckptsel/order"
    assert [step for step, _ in entry.points] == list(range(14))


# ---- TensorBoard ---------------------------------------------------------------------------------


def test_tensorboard_is_read_back(run, ranked: Path) -> None:
    for _ in range(2):  # the second time in place of the first
        code, out, _ = run("log", ranked, "--to", "tensorboard")
        assert (code, out.strip()) == (0, str(ranked / "tensorboard/ranking"))
    events = EventAccumulator(out.strip()).Reload()
    for i, end in enumerate(("", "_low", "_high")):
        read = {e.step: e.value for e in events.Scalars(f"ckptsel/linear_probe{end}")}
        assert read == pytest.approx({epoch: e[i] for epoch, e in accuracies(ranked).items()})
        assert len(events.Scalars(f"ckptsel/linear_probe{end}")) == 3
    (best,) = events.Tensors("ckptsel/best/text_summary")
    assert best.tensor_proto.string_val[0].decode() in (
        "checkpoint-001",
        "checkpoint-005",
        "checkpoint-010",
        "none is recommended",
    )


def test_rank_logs_at_its_end(run, trajectory: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranking"
    options = ("--scores", "linear_probe", "-o", out, "-q", "--log-to", "tensorboard")
    code, text, err = run("rank", trajectory, "-d", images, *options)
    assert code == 0 and "*1" in text
    assert err == f"tensorboard: {out}/tensorboard/ranking\n"
    assert list((out / "tensorboard/ranking").iterdir())


def test_confirm_logs_what_training_gave(run, ranked: Path) -> None:
    options = ("--steps", 6, "--seeds", 1, "--lr", "0.1", "--full", "-q")
    assert run("confirm", ranked, *options, "--log-to", "tensorboard")[0] == 0
    events = EventAccumulator(str(ranked / "tensorboard/ranking")).Reload()
    logged = {e.step: e.value for e in events.Scalars("ckptsel/confirmed_fe")}
    rows = read_ranking(ranked)[0]
    assert logged == pytest.approx({int(row.epoch): row.trained("fe").value for row in rows})


# ---- a tracker that fails costs nothing ----------------------------------------------------------

FAILURES = {
    "raises": ("raise_ = 1/0", "MLflow did not take the ranking: unexpected ZeroDivisionError"),
    "hangs": (
        "import time; time.sleep(60)",
        "no answer within 4 s. Log it again with: ckptsel log",
    ),
    "exits": ("import os; os._exit(7)", "it ended with exit code 7"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_tracker_that_fails_costs_a_warning(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    code, message = FAILURES[how]
    package(tmp_path / "fake", "mlflow", code, monkeypatch)
    if how == "hangs":  # the others may take long to start on a busy machine
        monkeypatch.setattr(tracking, "LIMIT_S", 4)
    out = tmp_path / "ranking"
    options = ("--scores", "linear_probe", "-o", out, "-q", "--log-to", "mlflow")
    ended, text, err = run("rank", trajectory, "-d", images, *options)
    assert ended == 0 and "*1" in text
    assert err.startswith("warning: mlflow: ") and message in err and len(err.splitlines()) == 1
    assert {path.name for path in out.iterdir()} >= {"ranking.json", "report.html"}


def test_a_tracker_that_hangs_is_given_up_in_time(
    ranked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "fake", "mlflow", "import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(tracking, "LIMIT_S", 1)
    start = time.monotonic()
    tracking.track(("mlflow",), ranked)
    assert time.monotonic() - start < 15


@pytest.mark.skipif(bool(find_spec("wandb")), reason="Weights & Biases is installed")
def test_a_folder_that_a_tracker_left_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="Weights & Biases needs the package wandb"):
        check_installed(["wandb"])


def test_logged_by_itself_a_failure_is_an_error(run, ranked, tmp_path, monkeypatch) -> None:
    package(tmp_path / "fake", "mlflow", "raise_ = 1/0", monkeypatch)
    code, out, err = run("log", ranked, "--to", "mlflow,tensorboard")
    assert code == 3
    assert out.strip() == str(ranked / "tensorboard/ranking")  # the other has it
    assert f"log it again with: ckptsel log {ranked} --to mlflow." in err


def test_what_is_missing_is_said_before_the_work(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("rank", trajectory, "-d", images, "-q")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, out, err = run(*call, "-o", tmp_path / "r", "--log-to", "mlflow")
    assert (code, out) == (2, "")
    assert err == "error: MLflow needs the package mlflow: pip install 'ckptsel[mlflow]'.\n"
    code, _, err = run(*call, "--log-to", "tensorboard")
    assert code == 2 and "--log-to needs --out" in err
    code, _, err = run(*call, "-o", tmp_path / "r", "--log-to", "tensorbord")
    assert code == 2 and "Did you mean tensorboard?" in err


def test_a_gate_that_says_no_is_logged_too(run, trajectory, images, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ckptsel.toml").write_text(
        'scores = ["linear_probe"]\nout = "ranking"\nlog-to = "tensorboard"\n'
        "[gate]\nmin-accuracy = 0.9999\n"
    )
    assert run("rank", "ckpts", "-d", "images", "--gate", "-q")[0] in (4, 5)
    assert list(Path("ranking/tensorboard/ranking").iterdir())


# ---- MLflow and Weights & Biases themselves, where they are installed -----------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of MLflow with SQLite behind it."""
    pytest.importorskip("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    store += ["--artifacts-destination", str(tmp_path / "artifacts")]
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, *words, *store],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            yield address
        finally:
            tracking._end(process)


def test_mlflow_is_read_back(run, ranked: Path, server: str, monkeypatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "pre-training")
    code, out, err = run("log", ranked, "--to", "mlflow")
    assert code == 0, err
    client = mlflow.MlflowClient(server)
    run_id = out.split("run ")[1].split()[0]
    for i, end in enumerate(("", "_low", "_high")):
        history = client.get_metric_history(run_id, f"ckptsel/linear_probe{end}")
        expected = {epoch: e[i] for epoch, e in accuracies(ranked).items()}
        assert {m.step: m.value for m in history} == pytest.approx(expected)
    kept = client.get_run(run_id)
    ranking, _ = read_ranking(ranked)
    best = ranking.best if ranking.recommended else "none is recommended"
    assert kept.data.tags["ckptsel.best"] == best
    names = {Path(f.path).name for f in client.list_artifacts(run_id, "ckptsel")}
    assert names == {"report.html", "ranking.json", "ranking.csv"}
    assert out == f"run {run_id} at {server}\n"
    # Again, into that run.
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert run("log", ranked, "--to", "mlflow")[1] == out


def test_an_mlflow_server_that_never_answers(ranked, capsys, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(tracking, "LIMIT_S", 8)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        tracking.track(("mlflow",), ranked)
    assert "warning: mlflow: no answer within 8 s" in capsys.readouterr().err


def test_an_mlflow_server_that_is_not_there(ranked, capsys, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracking.track(("mlflow",), ranked)
    assert "warning: mlflow: MLflow did not take the ranking: " in capsys.readouterr().err


def offline_records(file: Path) -> list:
    """Records of Weights & Biases' file: a log of LevelDB behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def test_weights_and_biases_offline_has_a_step_axis_of_its_own(
    run, ranked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    code, _, err = run("log", ranked, "--to", "wandb")
    assert code == 0, err
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = offline_records(file)
    metrics = {r.metric.name: r.metric.step_metric for r in records if r.HasField("metric")}
    assert metrics["ckptsel/linear_probe"] == metrics["ckptsel/linear_probe_low"] == "ckptsel/epoch"
    rows = [
        {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    read = {row["ckptsel/epoch"]: row["ckptsel/linear_probe"] for row in rows}
    assert read == {epoch: e[0] for epoch, e in accuracies(ranked).items()}
    files = [e.path for r in records for e in r.request.log_artifact.artifact.manifest.contents]
    files += [e.path for r in records for e in r.artifact.manifest.contents]
    assert {"report.html", "ranking.json"} <= set(files)
    ranking, _ = read_ranking(ranked)
    tags = {tag for r in records for tag in r.run.tags}
    assert tags == ({f"best:{ranking.best}"} if ranking.recommended else set())
