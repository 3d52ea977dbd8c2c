"""The next checkpoint's weights, read while this one is computed with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptsel
from ckptsel.checkpoints.guard import DEFAULT
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import ReadAhead, read_weights
from ckptsel.errors import CheckpointError
from ckptsel.ranking.workspace import Workspace


def test_what_was_foreseen_is_not_read_again(trajectory: Path) -> None:
    first, second, _ = scan_checkpoints(trajectory)
    expected = [read_weights(checkpoint) for checkpoint in (first, second)]
    ahead = ReadAhead()
    ahead.begin(first, "auto", DEFAULT)
    other = ahead.read(second, "auto", DEFAULT)
    assert all(torch.equal(other[name], tensor) for name, tensor in expected[1].items())
    ahead.begin(first, "auto", DEFAULT)
    assert ahead._next is not None
    ahead._next[1].result()
    Path(first.path).unlink()
    foreseen = ahead.read(first, "auto", DEFAULT)
    assert all(torch.equal(foreseen[name], tensor) for name, tensor in expected[0].items())
    with pytest.raises(CheckpointError):  # once: what is let go is not held
        ahead.read(first, "auto", DEFAULT)


def test_what_cannot_be_read_is_said_when_it_is_asked_for(trajectory: Path) -> None:
    first, second, _ = scan_checkpoints(trajectory)
    save_file(load_file(second.path), first.path)
    ahead = ReadAhead()
    ahead.begin(first, "auto", DEFAULT)
    with pytest.raises(CheckpointError, match="replaced after it was scanned"):
        ahead.read(first, "auto", DEFAULT)


def test_a_ranking_reads_one_checkpoint_ahead(
    trajectory: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; a CPU reads none, since its cores compute."""
    expected = ckptsel.rank(trajectory, images, cache=False, scores=("linear_probe",))
    foreseen = []
    begin = ReadAhead.begin

    def noted(self, checkpoint, weights, limits):
        foreseen.append(checkpoint.name)
        begin(self, checkpoint, weights, limits)

    monkeypatch.setattr(ReadAhead, "begin", noted)
    ckptsel.rank(trajectory, images, cache=False, scores=("linear_probe",))
    assert foreseen == []
    monkeypatch.setattr(Workspace, "reads_ahead", True)
    found = ckptsel.rank(trajectory, images, cache=False, scores=("linear_probe",))
    assert foreseen == [row.name for row in sorted(expected, key=lambda row: row.name)][1:]
    for row in expected:
        assert found[row.name].scores == row.scores
