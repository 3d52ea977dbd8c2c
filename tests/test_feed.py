"""How samples get to the device, and that the next batch is read ahead."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ckptsel.features import feed as module
from ckptsel.features.feed import Feed, place
from ckptsel.scores.inputs import SMALL, device_for

SAMPLES = np.arange(20, dtype=np.uint8).reshape(10, 2)


@pytest.fixture
def ahead(monkeypatch) -> list[tuple[int, int]]:
    """A device that batches are sent to; which they were."""
    read = []

    def sent(self, start: int, size: int) -> Callable[[], torch.Tensor]:
        read.append((start, size))
        batch = torch.from_numpy(self._samples[start : start + size].copy())
        return lambda: batch

    monkeypatch.setattr(Feed, "_sent", sent)
    monkeypatch.setattr(module, "is_read_ahead", lambda samples, device: True)
    return read


def test_a_batch_is_a_copy_of_a_part_of_the_samples() -> None:
    fixed = SAMPLES.copy()
    fixed.flags.writeable = False
    with Feed(fixed, "cpu") as feed:
        batch = feed.batch(8, 4)
    batch += 1
    assert batch.tolist() == [[17, 18], [19, 20]] and fixed[8, 0] == 16


def test_a_batch_goes_to_any_device() -> None:
    with Feed(SAMPLES, "meta") as feed:
        assert feed.batch(0, 4).device.type == "meta"


def test_samples_on_the_device_are_not_copied() -> None:
    samples = torch.from_numpy(SAMPLES.copy())
    with Feed(samples, "cpu") as feed:
        assert feed.batch(2, 3).data_ptr() == samples[2:].data_ptr()


def test_the_next_batch_is_read_ahead(ahead) -> None:
    with Feed(SAMPLES, "cpu") as feed:
        found = [feed.batch(start, 4) for start in (0, 4, 8)]
    assert torch.cat(found).tolist() == SAMPLES.tolist()
    assert ahead == [(0, 4), (4, 4), (8, 4)]


def test_a_batch_that_was_not_foreseen_is_read(ahead) -> None:
    """As where memory ran out, and batches are halved."""
    with Feed(SAMPLES, "cpu") as feed:
        first, again = feed.batch(0, 8), feed.batch(0, 4)
    assert first[:4].tolist() == again.tolist() == SAMPLES[:4].tolist()
    assert (0, 4) in ahead


def test_on_a_cpu_samples_stay_where_they_are() -> None:
    assert place([SAMPLES], "cpu")[0] is SAMPLES


@pytest.mark.parametrize(("size", "kept"), [(20, torch.Tensor), (19, np.ndarray)])
def test_a_gpu_holds_samples_that_leave_room(monkeypatch, size: int, kept: type) -> None:
    monkeypatch.setattr(module, "_room", lambda device: size)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self)
    assert isinstance(place([SAMPLES], "cuda")[0], kept)


def test_a_gpu_that_another_program_filled_holds_none(monkeypatch) -> None:
    def full(self, device):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "_room", lambda device: 1000)
    monkeypatch.setattr(torch.Tensor, "to", full)
    assert place([SAMPLES], "cuda")[0] is SAMPLES


def test_little_is_computed_on_the_cpu() -> None:
    assert device_for(SMALL - 1, "cuda:1") == "cpu"
    assert device_for(SMALL, "cuda:1") == "cuda:1"
    assert device_for(SMALL, "mps") == "cpu"  # which has no float64
