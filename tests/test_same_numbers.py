"""One ranking, however it is computed: threads, workers, batches, a cold store or a warm one."""

import socket
import sys
from pathlib import Path

import pytest
import torch

import ckptsel
from ckptsel.results.ranking import Ranking
from ckptsel.target import workers
from tests.conftest import save_checkpoint, save_images

EXACT = 0.0
ROUNDED = 1e-4
"""Nats. Sums in another order end in other last digits of float32 features."""
ONE_BY_ONE = 2e-3
"""Images one by one go another way through the network, and a fit ends a step earlier or later."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for i, epoch in enumerate((1, 5, 10)):
        save_checkpoint(folder / "ckpts" / f"m{epoch}.safetensors", i, epoch, 0.5)
    save_images(folder / "images" / "train", 15)
    save_images(folder / "images" / "val", 20, seed=1)
    return folder


def rank(made: Path, **options: object) -> Ranking:
    return ckptsel.rank(made / "ckpts", made / "images", image_size=32, **options)


@pytest.fixture(scope="module")
def first(made: Path) -> Ranking:
    return rank(made, cache=False, workers=0)


def differ(one: Ranking, other: Ranking) -> float:
    """The largest difference of a score; the answer must be the same."""
    assert (one.best, one.tie_set) == (other.best, other.tie_set)
    assert [row.name for row in one] == [row.name for row in other]
    return max(
        abs(score.value - other[row.name].scores[name].value)
        for row in one
        for name, score in row.scores.items()
    )


def test_a_cold_store_and_a_warm_one(made: Path, first: Ranking, tmp_path: Path) -> None:
    cold, warm = (rank(made, cache_dir=str(tmp_path / "c"), workers=0) for _ in range(2))
    assert differ(first, cold) == differ(first, warm) == EXACT


@pytest.mark.parametrize(
    "start",
    ["fork", *(pytest.param(s, marks=pytest.mark.slow) for s in ("spawn", "forkserver"))],
)
def test_workers_however_they_start(
    made: Path, first: Ranking, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    if sys.platform == "win32" and start != "spawn":
        pytest.skip("not on Windows")
    options = workers.loader_options
    monkeypatch.setattr(
        "ckptsel.target.pixels.loader_options",
        lambda n: options(n) | {"multiprocessing_context": start},
    )
    assert differ(first, rank(made, cache=False, workers=2)) == EXACT


def test_threads(made: Path, first: Ranking) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert differ(first, rank(made, cache=False, workers=0)) <= ROUNDED
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("batch_size", [1, 7, 105])
def test_batches(made: Path, first: Ranking, batch_size: int) -> None:
    other = rank(made, cache=False, workers=0, batch_size=batch_size)
    assert differ(first, other) <= (ONE_BY_ONE if batch_size == 1 else ROUNDED)


def test_nothing_is_sent_anywhere(
    made: Path, first: Ranking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither telemetry nor a look at a registry: with sockets forbidden all goes as before."""

    def forbidden(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, forbidden, raising=False)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    assert differ(first, rank(made, cache=False, workers=0)) == EXACT
