"""FE and FT runs: fair, resumable, and safe where training or memory goes wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.confirmation import protocols
from ckptsel.confirmation import runs as transfer
from ckptsel.confirmation.protocols import FE, FT, TrainingPlan
from ckptsel.confirmation.runs import Task, Transfer
from ckptsel.features.candidate import candidates_of
from ckptsel.features.encoder import LAST
from ckptsel.features.store import Cache
from ckptsel.ranking.workspace import open_workspace
from ckptsel.settings.rank import RankSettings

SHORT_FT = dataclasses.replace(FT, n_steps=18, batch_size=8, augment=("crop",))
SHORT_FE = dataclasses.replace(FE, n_steps=27, batch_size=8)


@pytest.fixture
def make_task(trajectory: Path, images: Path, tmp_path: Path, monkeypatch):
    """A task on the made images, in a cache of its own; many points on its short curve."""
    monkeypatch.setattr(protocols, "EVALUATE_EVERY", 1)
    monkeypatch.setattr(protocols, "CURVE_COST", 1000)
    found = scan_checkpoints(trajectory, "auto")

    def make(protocol: TrainingPlan, cache: str = "one") -> Task:
        workspace = open_workspace(RankSettings(), found, str(images), quiet=True)
        fitted, held = workspace.target.evaluation.folds[0]
        return Task(protocol, workspace, Cache(tmp_path / cache), fitted, held)

    make.candidates = candidates_of(found, [LAST])
    return make


@pytest.mark.parametrize("protocol", [SHORT_FE, SHORT_FT], ids=["fe", "ft"])
def test_it_learns_and_keeps_its_curve(make_task, protocol: TrainingPlan) -> None:
    task = make_task(protocol)
    run = Transfer(task, make_task.candidates[0], 0, 0.05)
    predicted = run.advance(protocol.n_steps)
    assert predicted.shape == (30,)
    assert (predicted == task.labels).mean() > 0.6
    points = run.record.points
    assert [p.step for p in points] == list(protocol.curve_steps(30))
    assert points[-1].train_loss < points[0].train_loss
    assert points[-1].held_accuracy == (predicted == task.labels).mean()


def test_an_fe_run_leaves_the_network_as_it_is(make_task) -> None:
    task = make_task(SHORT_FE)
    candidate = make_task.candidates[0]
    task.workspace.load(candidate.checkpoint)
    module = task.workspace.encoder.module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert any("running_var" in name for name in before)
    Transfer(task, candidate, 0, 0.1).advance(SHORT_FE.n_steps)
    after = module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("ema", [None, 0.8])
@pytest.mark.parametrize("goal", ["fe", "ft"])
def test_resumed_equals_undisturbed(make_task, monkeypatch, goal: str, ema: float | None) -> None:
    """Bit for bit, killed in the middle of an epoch and between a record and its weights."""
    protocol = dataclasses.replace(SHORT_FE if goal == "fe" else SHORT_FT, ema=ema)
    monkeypatch.setattr(transfer, "SAVE_INTERVAL_S", 0)
    candidate, last = make_task.candidates[1], protocol.n_steps
    undisturbed = Transfer(make_task(protocol, "undisturbed"), candidate, 3, 0.05)
    expected = undisturbed.advance(last)

    task = make_task(protocol, "killed")
    put, n_puts = Cache.put_record, []

    def killed(self, kind, key, record):
        n_puts.append(kind)
        if len(n_puts) in (5, 12):
            raise KeyboardInterrupt
        put(self, kind, key, record)

    monkeypatch.setattr(Cache, "put_record", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Transfer(task, candidate, 3, 0.05).advance(last)
        # What is in memory is lost with the process.
        task = make_task(protocol, "killed")
    resumed = Transfer(task, candidate, 3, 0.05)
    assert 0 < len(resumed.record.points) < len(protocol.curve_steps(30))
    assert np.array_equal(resumed.advance(last), expected)
    assert resumed.record.points == undisturbed.record.points


def test_rung_by_rung_equals_in_one_go(make_task) -> None:
    """And what was done is read, not done again."""
    candidate = make_task.candidates[0]
    whole = Transfer(make_task(SHORT_FT, "whole"), candidate, 0, 0.05)
    whole.advance(18)
    task = make_task(SHORT_FT, "parts")
    for rung in SHORT_FT.rungs:
        Transfer(task, candidate, 0, 0.05).advance(rung)
    again = Transfer(task, candidate, 0, 0.05)
    again.task = None
    for rung in SHORT_FT.rungs:
        assert np.array_equal(again.advance(rung), whole.record.predictions[rung])
    assert again.record.points == whole.record.points


def test_candidates_of_a_seed_share_batches_draws_and_first_layer(make_task) -> None:
    task = make_task(SHORT_FT)
    first, second = make_task.candidates[:2]
    for seed, other in ((0, 0), (0, 1)):
        a = list(task.batches(first, seed, epoch=2))
        b = list(task.batches(second, other, epoch=2))
        same = all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
        assert same == (seed == other)
        heads = [task.start(c, s, 0.1).model.head for c, s in ((first, seed), (second, other))]
        assert torch.equal(heads[0].weight, heads[1].weight) == (seed == other)


def test_training_and_held_out_images_do_not_overlap(make_task) -> None:
    task = make_task(SHORT_FT)
    assert not set(task.fitted) & set(task.held)
    fitted, held = (
        task.batches(make_task.candidates[0], 0, 1),
        task.batches(make_task.candidates[0], 0, None),
    )
    assert len(fitted.inputs) == 36 and len(held.inputs) == 30
    assert sum(len(labels) for _, labels in held) == 30


def test_a_run_that_diverges_says_by_when(make_task) -> None:
    task = make_task(SHORT_FT)
    run = Transfer(task, make_task.candidates[0], 0, 1e30)
    assert run.advance(18) is None
    assert run.record.diverged_at in SHORT_FT.curve_steps(30)
    # Also when it is asked again, from what was kept.
    assert Transfer(task, make_task.candidates[0], 0, 1e30).advance(18) is None


def test_out_of_memory_halves_what_goes_through_at_once(make_task, monkeypatch) -> None:
    task, sizes = make_task(SHORT_FT), []
    forward = transfer.Network.forward

    def small_memory(self, inputs):
        if self.training and len(inputs) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(transfer.Network, "forward", small_memory)
    assert Transfer(task, make_task.candidates[0], 0, 0.05).advance(2) is not None
    assert task.n_chunks == 4
    assert sizes[:8] == [2] * 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_on_a_gpu(make_task, precision: str) -> None:
    task = make_task(dataclasses.replace(SHORT_FT, ema=0.5))
    task.workspace.devices, task.workspace.precision = ("cuda",), precision
    run = Transfer(task, make_task.candidates[0], 0, 0.05)
    assert (run.advance(18) == task.labels).mean() > 0.6
