"""What a file says is never run, and what one file does never costs the others."""

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints import weights as weights_reader
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.walk import natural_key
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import CheckpointError
from ckptsel.ranking import rank as pipeline
from ckptsel.ranking import scoring, workspace
from ckptsel.ranking.scoring import SCORES_VERSION
from tests.conftest import TINY_MODEL


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file behind when it is imported, where the command runs."""
    sung = tmp_path / "sung"
    make = f"import timm\ndef make():\n    return timm.create_model({TINY_MODEL!r})\n"
    (tmp_path / "canary_nets.py").write_text(f"open({str(sung)!r}, 'w').close()\n{make}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    monkeypatch.delitem(sys.modules, "canary_nets", raising=False)
    return sung


def weights() -> dict[str, torch.Tensor]:
    return timm.create_model(TINY_MODEL).state_dict()


def save_recording(folder: Path, road: str, arch: str) -> None:
    """A checkpoint that records an architecture in one of the ways that files do."""
    folder.mkdir()
    if road == "arch":
        torch.save({"state_dict": weights(), "arch": arch}, folder / "a.pt")
    elif road == "args":
        torch.save({"model": weights(), "args": {"model": arch}}, folder / "a.pt")
    elif road == "safetensors":
        save_file(weights(), folder / "a.safetensors", {"arch": arch})
    else:
        save_file(weights(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"architecture": arch}))


@pytest.mark.parametrize(
    ("road", "arch"),
    [
        ("arch", "canary_nets:make"),
        ("args", "canary_nets:make"),
        ("safetensors", "canary_nets:make"),
        ("config.json", "canary_nets:make"),
        ("args", "os:abort"),
        ("safetensors", "canary_nets.make"),
    ],
)
def test_a_recorded_architecture_is_never_run(
    run, canary: Path, images: Path, tmp_path: Path, road: str, arch: str
) -> None:
    save_recording(tmp_path / "ckpts", road, arch)
    code, out, err = run("rank", tmp_path / "ckpts", "-d", images, "-q")
    assert (code, out) == (3, "")
    assert f"{arch!r}, which is no name that timm knows" in err
    assert "--model" in err
    assert not canary.exists()
    assert "canary_nets" not in sys.modules


def test_what_the_user_types_is_run(run, canary: Path, images: Path, tmp_path: Path) -> None:
    """The canary sings where it should: the tests beside this one would notice."""
    save_recording(tmp_path / "ckpts", "arch", TINY_MODEL)
    options = ("--model", "canary_nets:make", "--image-size", 32, "--scores", "linear_probe")
    assert run("rank", tmp_path / "ckpts", "-d", images, "-q", *options)[0] == 0
    assert canary.exists()


@pytest.fixture
def ranked_with_own(run, canary: Path, trajectory: Path, images: Path, tmp_path: Path) -> Path:
    """A ranking folder whose network is one of its author's own, in a process that never saw it."""
    out = tmp_path / "ranking"
    options = ("--model", "canary_nets:make", "--scores", "linear_probe", "--image-size", 32)
    assert run("rank", trajectory, "-d", images, "-o", out, "-q", *options)[0] == 0
    canary.unlink()
    del sys.modules["canary_nets"]
    return out


@pytest.mark.parametrize("command", ["confirm", "pick", "extract"])
def test_a_ranking_names_its_network_and_never_runs_it(
    run, canary: Path, ranked_with_own: Path, images: Path, tmp_path: Path, command: str
) -> None:
    to = ("--to", tmp_path / "best.safetensors")
    options = {"confirm": ("-q",), "pick": to, "extract": (*to, "--data", images, "-q")}
    code, out, err = run(command, ranked_with_own, *options[command])
    assert (code, out) == (3, "")
    assert "say so with --model canary_nets:make" in err
    assert not canary.exists()


@pytest.mark.parametrize("command", [("gate", "--min-accuracy", "0"), ("report",)])
def test_reading_a_ranking_needs_no_network(
    run, canary: Path, ranked_with_own: Path, command: tuple[str, ...]
) -> None:
    name, *options = command
    assert run(name, ranked_with_own, *options)[0] == 0
    assert not canary.exists()


def test_a_ranking_with_its_network_named_again(run, ranked_with_own: Path, tmp_path: Path) -> None:
    to = tmp_path / "best.safetensors"
    assert run("pick", ranked_with_own, "--to", to, "--model", "canary_nets:make")[0] == 0
    assert to.exists()
    options = ("--steps", 5, "--seeds", 1, "--lr", "0.1", "-q", "--model", "canary_nets:make")
    assert run("confirm", ranked_with_own, *options)[0] == 0


def test_a_run_folder_names_no_network_to_run(
    run, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptsel.reproduce import verify

    (tmp_path / "run/seed0/checkpoints").mkdir(parents=True)
    (tmp_path / "run/targets/t").mkdir(parents=True)
    recipe = {"pretraining": {"model": "canary_nets:make", "image_size": 32}}
    manifest = {"scores_version": SCORES_VERSION, "recipe": recipe}
    monkeypatch.setattr(verify, "load_results", lambda folder: None)
    with pytest.raises(ckptsel.errors.ModelError, match="canary_nets:make"):
        verify._check_scores(tmp_path / "run", manifest, quiet=True)
    assert not canary.exists()


def odd_payload(kind: str) -> object:
    odd = weights()
    if kind == "float8":
        odd["conv1.weight"] = odd["conv1.weight"].to(torch.float8_e4m3fn)
    if kind == "expanded":
        odd["conv1.weight"] = torch.zeros(1).as_strided((10**12,), (0,))
    if kind == "surrogate":
        odd["\ud800"] = torch.zeros(1)
    payload = {"state_dict": odd, "arch": TINY_MODEL}
    return payload | ({"epoch": 10**400} if kind == "epoch" else {})


@pytest.mark.parametrize("kind", ["float8", "expanded", "surrogate", "epoch"])
def test_an_odd_file_is_at_most_one_failed_row(trajectory: Path, images: Path, kind: str) -> None:
    torch.save(odd_payload(kind), trajectory / "odd.pt")
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    assert sum(row.status == "ok" for row in ranking) >= 3
    if kind == "expanded":
        assert "is an expanded view" in ranking["odd"].reason
    if kind == "surrogate":
        assert "is no valid text" in ranking["odd"].reason


def test_digits_that_are_no_numbers_sort_as_text() -> None:
    assert sorted(["c-10", "c-5²", "c-9"], key=natural_key) == ["c-5²", "c-9", "c-10"]


@pytest.mark.parametrize("stage", ["read_weights", "extract_features", "compute"])
def test_an_unexpected_error_fails_its_checkpoint_alone(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """While it is audited, extracted or scored; with the type of the error."""
    module = {
        "read_weights": weights_reader,
        "extract_features": workspace,
        "compute": scoring,
    }[stage]
    name = "ScoreInputs" if stage == "compute" else stage
    original, calls = getattr(module, name), []

    def second_time(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise ZeroDivisionError("what nobody foresaw")
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, second_time)
    ranking = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    failed = [row for row in ranking if row.status == "failed"]
    assert [row.reason for row in failed] == ["unexpected ZeroDivisionError: what nobody foresaw"]
    assert len(ranking) == 3


def test_a_file_replaced_after_the_scan_poisons_no_cache(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer rewrites the last one between scan and extraction; later it is the old one again."""
    path = trajectory / "checkpoint-010.safetensors"
    before = path.read_bytes()
    honest = ckptsel.rank(trajectory, images, cache=False, scores=("linear_probe",))
    audit = pipeline.audit

    def replaced(*given):
        audited = audit(*given)
        other = {k: v + 0.1 if v.is_floating_point() else v for k, v in load_file(path).items()}
        save_file(other, path)
        return audited

    monkeypatch.setattr(pipeline, "audit", replaced)
    during = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    assert "was replaced after it was scanned" in during["checkpoint-010"].reason
    monkeypatch.setattr(pipeline, "audit", audit)
    path.write_bytes(before)
    after = ckptsel.rank(trajectory, images, scores=("linear_probe",))
    name = "checkpoint-010"
    assert after[name].scores == honest[name].scores


def test_weights_that_changed_are_not_read_as_those_that_were_scanned(trajectory: Path) -> None:
    found = scan_checkpoints(trajectory)
    assert read_weights(found[0])
    save_file(load_file(found[1].path), found[0].path)
    with pytest.raises(CheckpointError, match="replaced after it was scanned"):
        read_weights(found[0])


@pytest.mark.parametrize("data", ["hfds/evil/set", "wds/x", "hfids/x", "tfds/x"])
def test_a_ranking_names_no_dataset_that_another_library_opens(
    run, trajectory: Path, images: Path, tmp_path: Path, data: str
) -> None:
    """webdataset runs what follows `pipe:` in the name of a file."""
    out, sung = tmp_path / "ranking", tmp_path / "sung"
    options = ("--scores", "linear_probe", "-q")
    assert run("rank", trajectory, "-d", images, "-o", out, *options)[0] == 0
    stored = json.loads((out / "ranking.json").read_text())
    stored["target"]["data"], stored["settings"]["data_root"] = data, f"pipe:touch {sung};"
    (out / "ranking.json").write_text(json.dumps(stored))
    code, _, err = run("confirm", out, "-q")
    assert code == 3
    assert f"say so with --data {data}" in err
    to = ("--data", images, "--to", tmp_path / "f.npz", "--predictions", "-q")
    code, _, err = run("extract", out, *to)
    assert code == 3
    assert f"say so with --fit-data {data}" in err
    assert not sung.exists()


def test_a_ranking_does_not_say_where_this_machine_writes(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    out, theirs = tmp_path / "ranking", tmp_path / "theirs"
    options = ("--scores", "linear_probe", "-q")
    assert run("rank", trajectory, "-d", images, "-o", out, *options)[0] == 0
    stored = json.loads((out / "ranking.json").read_text())
    stored["settings"] |= {"cache_dir": str(theirs), "workers": 50, "read_memory": "900TB"}
    (out / "ranking.json").write_text(json.dumps(stored))
    assert run("confirm", out, "-q", "--steps", 2, "--seeds", 1, "--lr", "0.1")[0] == 0
    assert not theirs.exists()


def test_own_code_is_shown_before_it_is_run(
    run, canary: Path, images: Path, tmp_path: Path
) -> None:
    save_recording(tmp_path / "ckpts", "arch", TINY_MODEL)
    options = ("-d", images, "-q", "--image-size", 32, "--scores", "linear_probe")
    by_flag = run("rank", tmp_path / "ckpts", "--model", "canary_nets:make", *options)
    assert "note: canary_nets:make is imported and called, as --model says" in by_flag[2]
    (tmp_path / "ckptsel.toml").write_text('model = "canary_nets:nowhere"\n')
    code, _, err = run("rank", tmp_path / "ckpts", *options)
    assert code == 3
    assert "canary_nets:nowhere is imported and called, as" in err
    assert "ckptsel.toml: model says" in err
