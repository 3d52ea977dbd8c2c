"""What GitHub Actions is told, and `action.yml` as it stands."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ckptsel.gating.gate import hold_against
from ckptsel.gating.github import annotations, step_outputs, step_summary
from ckptsel.settings.policy import Policy
from tests.test_gate import make_ranking, stored

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"


def test_annotations_are_escaped() -> None:
    ranking = make_ranking()
    broken = dataclasses.replace(ranking["broken"], reason="50 %\nof it: gone, all")
    ranking = dataclasses.replace(ranking, checkpoints=(*ranking.checkpoints[:2], broken))
    lines = annotations(ranking, hold_against(ranking, Policy(current="old", max_regret=0.0)))
    assert lines[0].startswith(
        "::error title=ckptsel gate%3A regret::old is 3.0 points [1.0, 5.0] b"
    )
    assert lines[1] == (
        "::warning title=ckptsel%3A failed checkpoint::broken: 50 %25\\nof it: gone, all"
    )


def test_no_more_annotations_than_are_shown() -> None:
    ranking = make_ranking()
    many = [dataclasses.replace(ranking["broken"], name=f"broken-{i}") for i in range(30)]
    ranking = dataclasses.replace(ranking, checkpoints=(*ranking.checkpoints[:2], *many))
    lines = annotations(ranking, hold_against(ranking, Policy(strict=True)))
    assert [line.split(" ")[0] for line in lines] == ["::error"] + 10 * ["::warning"]


def test_a_summary_that_is_too_long_loses_its_end(shown_ranking) -> None:
    text = step_summary(shown_ranking, hold_against(shown_ranking, Policy(strict=True)))
    assert "**Gate: fail**" in text and "| checkpoint |" in text
    rows = [
        dataclasses.replace(shown_ranking["old"], name=f"old-{i}" + "x" * 1000) for i in range(3000)
    ]
    long = dataclasses.replace(shown_ranking, checkpoints=(*shown_ranking.checkpoints, *rows))
    text = step_summary(long, hold_against(long, Policy(strict=True)))
    assert len(text.encode()) < 1_000_000
    assert "**Gate: fail**" in text and text.endswith("see the report.)\n")


@pytest.fixture
def shown_ranking():
    """A made ranking that is whole enough to be put into words."""
    from ckptsel.results.estimate import Measured
    from ckptsel.results.ranking import Reference

    return make_ranking(
        references={"last": Reference("old", Measured(0.03, 0.01, 0.05, by="linear_probe"))}
    )


def test_outputs_are_lines() -> None:
    lines = step_outputs(make_ranking(), None, Path("r/report.html")).splitlines()
    assert lines == [
        "best-path=ckpts/new.pt",
        "best-epoch=1",
        "best-score=0.9",
        "ci-low=0.88",
        "ci-high=0.92",
        "decision=",
        "report=r/report.html",
    ]


def test_a_file_of_the_runner_that_cannot_be_written_costs_no_result(
    run, tmp_path, monkeypatch, shown_ranking
) -> None:
    folder = stored(tmp_path / "run", shown_ranking)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "none" / "output"))
    code, out, err = run("gate", folder, "--min-accuracy", "0.93")
    assert (code, out.splitlines()[0]) == (4, "gate: fail")
    assert err.splitlines()[:2] == [
        f"warning: {tmp_path} cannot be written: Is a directory. All else is written.",
        f"warning: {tmp_path}/none/output cannot be written: No such file or directory. All else is "
        "written.",
    ]


def test_nothing_is_written_where_nobody_listens(run, tmp_path, monkeypatch, shown_ranking) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    folder = stored(tmp_path / "run", shown_ranking)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run("gate", folder, "--min-accuracy", "0.88")
    assert (code, err) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_runner_is_told(run, tmp_path, monkeypatch, shown_ranking) -> None:
    folder = stored(tmp_path / "run", shown_ranking)
    (folder / "report.html").write_text("")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "output").write_text("earlier=1\n")
    code, out, err = run("gate", folder, "--min-accuracy", "0.89")
    assert code == 5
    assert "::warning title=ckptsel gate%3A min-accuracy::new reaches 90.0 %25" in err
    assert "::" not in out
    outputs = (tmp_path / "output").read_text().splitlines()
    assert outputs[0] == "earlier=1"
    assert "decision=cannot-tell" in outputs
    assert f"report={folder / 'report.html'}" in outputs
    assert (tmp_path / "summary").read_text().startswith("## ckptsel: new\n")


# ---- action.yml ----------------------------------------------------------------------------------


def test_the_action_fits_githubs_schema() -> None:
    """The schema lies in check-jsonschema: nothing is fetched."""
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-actions",
    ]
    done = subprocess.run([*command, ACTION], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def step(name: str) -> dict:
    action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    return next(step for step in action["runs"]["steps"] if step["name"] == name)


def run_step(name: str, folder: Path, inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step's shell as it stands, with what the runner would put into its environment."""
    action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    values = {
        f"inputs.{key}": inputs.get(key, about.get("default", ""))
        for key, about in action["inputs"].items()
    }
    values |= {"github.action_path": str(ROOT), "runner.temp": str(folder / "temp")}
    environment = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(folder / "output")}
    environment["GITHUB_STEP_SUMMARY"] = str(folder / "summary")
    # The step says python: that of the tests, and the package of this checkout.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    for key, text in step(name).get("env", {}).items():
        for expression, value in values.items():
            text = text.replace("${{ " + expression + " }}", value)
        assert "${{" not in text, f"{key} holds an expression that the test does not know"
        environment[key] = text
    script = step(name)["run"]
    assert "${{" not in script, "an expression inside a script would be run as shell"
    # As the runner does for `shell: bash`.
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_rank_step(trajectory: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "ckptsel.toml").write_text("[gate]\nstrict = true\n")
    inputs = {
        "checkpoints": "ckpts",
        "data": "images",
        "options": "--scores 'linear_probe, logme' --seed 3",
        "out": "my ranking",
    }
    done = run_step("Rank and gate", tmp_path, inputs)
    assert done.returncode == 0, done.stderr
    ranking = json.loads((tmp_path / "my ranking/ranking.json").read_text())
    assert ranking["settings"]["seed"] == 3
    assert ranking["settings"]["scores"] == ["linear_probe", "logme"]
    assert list((tmp_path / "temp/ckptsel-cache/v2/features").iterdir())
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    declared = yaml.safe_load(ACTION.read_text(encoding="utf-8"))["outputs"]
    assert set(outputs) == set(declared)
    assert outputs["decision"] == "pass"
    assert outputs["report"] == "my ranking/report.html"
    assert "## ckptsel: checkpoint-" in (tmp_path / "summary").read_text()
    assert "::notice title=ckptsel gate%3A strict::" in done.stderr


@pytest.mark.slow
def test_the_rank_step_fails_as_the_gate_does(trajectory: Path, images: Path, tmp_path) -> None:
    (tmp_path / "ckptsel.toml").write_text("[gate]\nstrict = true\n")
    (trajectory / "checkpoint-020.pt").write_bytes(b"nothing")
    inputs = {"checkpoints": "ckpts", "data": "images", "options": "--scores linear_probe"}
    done = run_step("Rank and gate", tmp_path, inputs)
    assert done.returncode == 4
    assert "decision=fail" in (tmp_path / "output").read_text()
    assert (tmp_path / "ckptsel-ranking/report.html").is_file()


def test_options_are_words_and_not_shell(trajectory: Path, images: Path, tmp_path: Path) -> None:
    inputs = {"checkpoints": "ckpts", "data": "images", "gate": "false"}
    done = run_step("Rank and gate", tmp_path, {**inputs, "options": "--seed $(touch pwned)"})
    assert done.returncode == 2
    assert not (tmp_path / "pwned").exists()


def test_the_install_step_installs_this_version(tmp_path: Path) -> None:
    """With a pip that only says what it was asked for."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    script = step("Install ckptsel")["run"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ACTION_PATH": "/a/b", "VERSION": ""}
    bash = [shutil.which("bash"), "-c", script]
    said = subprocess.run(bash, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "-m pip install --quiet /a/b\n"
    environment["VERSION"] = "ckptsel==0.1.0"
    said = subprocess.run(bash, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "-m pip install --quiet ckptsel==0.1.0\n"
