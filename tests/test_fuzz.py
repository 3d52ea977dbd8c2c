"""Ten thousand broken inputs: each is read, or refused with a sentence. `make fuzz` tries a million."""

import sys
from pathlib import Path

import pytest

from tools.fuzzing.__main__ import fuzz
from tools.fuzzing.targets import Target, make_targets

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory can be limited on Linux alone"
)

N = {
    "extractor": 100,
    "checkpoints": 4000,
    "config": 4500,
    "cache": 1000,
    "results": 200,
    "data": 200,
}


def test_they_are_ten_thousand() -> None:
    assert sum(N.values()) == 10_000
    assert N.keys() == make_targets().keys()


@pytest.mark.parametrize("name", N)
def test_broken_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    target = make_targets()[name]()
    assert fuzz(name, target, N[name], seed=1, out=tmp_path) == 0, list(tmp_path.iterdir())


def test_what_ends_otherwise_is_found_and_kept(tmp_path: Path) -> None:
    def read(where: Path, name: str) -> None:
        if b"x" not in (where / name).read_bytes():
            raise KeyError("x")

    assert fuzz("made", Target({"file": b"xy"}, read), 50, seed=0, out=tmp_path) > 0
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".json"]
