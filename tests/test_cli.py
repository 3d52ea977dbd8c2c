"""The command line: stdout, exit codes, messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptsel.cli.process import SPINS
from tests.conftest import save_images

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def test_rank_prints_the_table_and_the_sentence(run, trajectory: Path, images: Path) -> None:
    code, out, err = run("rank", trajectory, "--data", images, "--scores", "linear_probe")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["checkpoint", "epoch", "source", "linear_probe", "P(best)"]
    assert lines[1].startswith("*1")
    assert len(lines) >= 5
    assert "checkpoint-" in lines[4] and lines[4].endswith(".")
    assert "rank 3/3" in err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("form", ["json", "csv", "md"])
def test_formats(run, trajectory: Path, images: Path, form: str) -> None:
    code, out, _ = run("rank", trajectory, "-d", images, "-f", form, "-q", "--scores", "logme")
    assert code == 0
    if form == "json":
        value = json.loads(out)
        assert value["schema"] == "ckptsel.ranking/2"
        assert len(value["checkpoints"]) == 3
    else:
        assert "checkpoint-005" in out


def test_out_holds_the_files_and_nothing_else(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranking"
    assert run("rank", trajectory, "-d", images, "--out", out, "-q")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.safetensors",
        "ranking.csv",
        "ranking.json",
        "report.html",
    ]


def test_config_file_and_command_line_over_it(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    config = tmp_path / "ckptsel.toml"
    config.write_text(
        f'checkpoints = "{trajectory}"\ndata = "{images}"\nformat = "json"\n'
        'scores = ["linear_probe"]\nseed = 3\nmax-train-samples = 30\n'
    )
    code, out, _ = run("rank", "--config", config, "--seed", 4, "-q")
    settings = json.loads(out)["settings"]
    assert code == 0
    assert (settings["seed"], settings["max_train_samples"]) == (4, 30)
    config.write_text("sed = 3\n")
    code, _, err = run("rank", "--config", config)
    assert code == 2
    assert "unknown option 'sed'. Did you mean seed" in err


def test_inspect_shows_what_was_found(run, trajectory: Path) -> None:
    (trajectory / "checkpoint-011.pth").write_bytes(b"")
    code, out, _ = run("inspect", trajectory)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == [
        "checkpoint", "format", "epoch", "source", "weights", "parameters", "digest", "notes"
    ]  # fmt: skip
    assert lines[1].split()[:9] == [
        "checkpoint-001", "ckptsel", "1", "40.0", "%", "whole", "file", "0.70", "M"
    ]  # fmt: skip
    assert "the file is empty" in lines[4]
    assert json.loads(run("inspect", trajectory, "-f", "json")[1])[1]["epoch"] == 5


def test_bad_input_exits_3_with_one_message(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    one_class = tmp_path / "one"
    save_images(one_class, 3)
    for name in ("class1", "class2"):
        for path in (one_class / name).iterdir():
            path.unlink()
    (one_class / "labels.csv").write_text("path,label\n")
    for arguments, message in (
        ((tmp_path / "nowhere", "-d", images), f"no such file or folder: {tmp_path / 'nowhere'}"),
        ((empty, "-d", images), f"no checkpoints below {empty}"),
        ((trajectory, "-d", tmp_path / "nowhere"), f"no data at {tmp_path / 'nowhere'}"),
        ((trajectory, "-d", empty), f"no images below {empty}"),
        ((trajectory, "-d", one_class), "has one class only ('class0')"),
        (
            (trajectory, "-d", one_class),
            "Lists lie in it (labels.csv): give one of them, as in --data ",
        ),
        ((trajectory, "-d", images, "-m", "resnt50"), "unknown model 'resnt50'"),
    ):
        code, out, err = run("rank", *arguments)
        assert (code, out) == (3, "")
        assert err.startswith("error: ") and message in err


def test_usage_errors_exit_2(run, trajectory: Path, images: Path) -> None:
    for arguments, message in (
        (("rank",), "no checkpoints given"),
        (("rank", trajectory), "no data given"),
        (("rank", trajectory, "-d", images, "-f", "jsn"), "Did you mean json?"),
        (("rank", trajectory, "-d", images, "--scores", "logm"), "Did you mean logme"),
        (("rank", trajectory, "-d", images, "--energy", "1.5"), "between 0 and 1"),
        (("rank", trajectory, "-d", images, "--mean", "a,b"), "not a list of numbers"),
        (("rank", trajectory, "-d", images, "--epochs", "3"), "No such option"),
        (("rank", trajectory, "-d", images, "--scores", "logme", "--scores", "logm"), "'logm'"),
        (("reproduce", "cifar10"), "unknown recipe 'cifar10'"),
        (("reproduce", "cifar10-mnist", "--preset", "smal"), "Did you mean small"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), err
        assert message in err


def test_an_option_that_is_given_twice_says_what_counts(run, images: Path, tmp_path: Path) -> None:
    code, _, err = run("extract", tmp_path / "no", "-d", "more", "-d", images, "--to", "f.npz")
    assert code == 3
    assert err.startswith(f"note: --data is given 2 times; the last counts: {images}\n")


def test_an_output_that_cannot_be_written_is_said_first(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("rank", trajectory, "-d", images, "--out", tmp_path / "file" / "out")
    assert code == 3
    assert "cannot write" in err and "rank 1/3" not in err


def test_ctrl_c_exits_130_and_keeps_the_cache(
    run, trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    from ckptsel.ranking import scoring

    score_one = scoring._score_one

    def interrupted(candidate, *rest):
        if candidate.name == "checkpoint-010":
            raise KeyboardInterrupt
        return score_one(candidate, *rest)

    monkeypatch.setattr(scoring, "_score_one", interrupted)
    code, out, err = run("rank", trajectory, "-d", images, "--scores", "linear_probe")
    assert (code, out) == (130, "")
    assert "interrupted: what was finished is kept" in err
    assert len(list((own_cache / "v2" / "features").iterdir())) == 4


def test_python_m_and_help_without_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['ckptsel', '--help']\n"
        "try: runpy.run_module('ckptsel', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("rank", "inspect", "reproduce"))


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_threads_soon_sleep_unless_told_otherwise(given: dict[str, str], spins: str) -> None:
    code = (
        "import os, sys\nfrom ckptsel.cli.process import end_process\n"
        "end_process(lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules) or 0)"
    )
    others = {name: it for name, it in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [spins, "False"]


def test_list_shows_the_recipes(run) -> None:
    code, out, _ = run("reproduce", "--list")
    assert code == 0
    assert "cifar10-mnist --preset small" in out
