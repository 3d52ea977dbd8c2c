"""What the benchmarks share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import read_weights
from ckptsel.features.encoders import ImageEncoder


@pytest.fixture
def make_loading(tmp_path: Path) -> Callable[[ImageEncoder], Callable[[], str]]:
    """Of an encoder, what puts the weights of a scanned file into it, as `rank` does."""

    def make(encoder: ImageEncoder) -> Callable[[], str]:
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        weights = {name: t.contiguous() for name, t in encoder.module.state_dict().items()}
        save_file(weights, folder / "checkpoint-1.safetensors")
        (checkpoint,) = scan_checkpoints(folder)
        return lambda: encoder.load(read_weights(checkpoint))

    return make
