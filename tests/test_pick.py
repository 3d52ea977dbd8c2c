"""Exporting a checkpoint: its weights, what is said of them, and when it refuses."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckptsel.checkpoints.scan import scan_checkpoints


@pytest.fixture
def ranked(run, trajectory: Path, images: Path, tmp_path: Path) -> Path:
    out = tmp_path / "ranking"
    code, _, _ = run("rank", trajectory, "-d", images, "-o", out, "-q", "--scores", "linear_probe")
    assert code == 0
    return out


def best_of(folder: Path) -> dict:
    ranking = json.loads((folder / "ranking.json").read_text())
    return ranking["checkpoints"][0]


def test_the_path_alone(run, ranked: Path) -> None:
    code, out, err = run("pick", ranked)
    assert (code, out, err) == (0, best_of(ranked)["path"] + "\n", "")
    assert run("pick", ranked, "--format", "path", "--checkpoint", "checkpoint-010")[1].endswith(
        "checkpoint-010.safetensors\n"
    )


def test_the_backbone_with_what_is_known_of_it(run, ranked: Path, tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    assert run("pick", ranked, "--to", file)[0] == 0
    best = best_of(ranked)
    original, exported = load_file(best["path"]), load_file(file)
    assert set(original) - set(exported) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(exported[name], original[name]) for name in exported)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["digest"] == best["digest"]
    assert float(metadata["value"]) == best["scores"]["linear_probe"]["value"]
    assert float(metadata["low"]) == best["scores"]["linear_probe"]["low"]
    assert metadata["command"].startswith("ckptsel rank ")
    model = timm.create_model(metadata["arch"], num_classes=0)
    assert model.load_state_dict(exported, strict=True)


def test_it_is_a_checkpoint_again(run, ranked: Path, images: Path, tmp_path: Path) -> None:
    """Ranked again, it has the same features and so the same score."""
    run("pick", ranked, "--to", tmp_path / "picked/best.safetensors")
    (found,) = scan_checkpoints(tmp_path / "picked")
    assert (found.format, found.epoch) == ("ckptsel", best_of(ranked)["epoch"])
    code, out, _ = run(
        "rank", tmp_path / "picked", "-d", images, "-f", "json", "-q", "--scores", "linear_probe"
    )
    assert code == 0
    again = json.loads(out)["checkpoints"][0]["scores"]["linear_probe"]
    assert again["value"] == best_of(ranked)["scores"]["linear_probe"]["value"]


def test_it_refuses_what_was_not_ranked(run, ranked: Path, tmp_path: Path) -> None:
    path = Path(best_of(ranked)["path"])
    weights = load_file(path)
    weights["conv1.weight"] += 1
    save_file(weights, path)
    code, out, err = run("pick", ranked, "--to", tmp_path / "best.safetensors")
    assert (code, out) == (3, "")
    assert f"{path} has changed since it was ranked" in err
    path.unlink()
    code, _, err = run("pick", ranked, "--to", tmp_path / "best.safetensors")
    assert code == 3 and f"{path} is gone" in err
    assert not (tmp_path / "best.safetensors").exists()


def test_wrong_names(run, ranked: Path) -> None:
    code, _, err = run("pick", ranked, "--checkpoint", "checkpoint-01")
    assert code == 2 and "Did you mean checkpoint-0" in err
    code, _, err = run("pick", ranked, "--format", "table")
    assert code == 2 and "must be one of path, json" in err


def test_only_safetensors_are_written(run, tmp_path: Path) -> None:
    code, _, err = run("pick", tmp_path, "--to", tmp_path / "best.npz")
    assert code == 2 and "its name must end in .safetensors" in err
