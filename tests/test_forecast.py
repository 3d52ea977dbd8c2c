"""`tools.forecast`: what is measured of a trajectory, on made ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tools.forecast import gradient_alignment, trained


class Linear:
    """An encoder whose gradients are its inputs, times the read-out."""

    def __init__(self, n_inputs: int) -> None:
        self.module = torch.nn.Linear(n_inputs, 5, bias=False)

    def to(self, device: str) -> None:
        self.module.to(device)

    def features(self, batch: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {layer: self.module(batch) for layer in layers}


def test_gradients_that_are_the_labels_are_aligned_and_others_are_not() -> None:
    labels = torch.arange(60) % 3
    one_hot = torch.nn.functional.one_hot(labels).float()
    assert gradient_alignment(Linear(3), one_hot, labels) == pytest.approx(1, abs=1e-3)
    other = torch.nn.functional.one_hot(torch.arange(60) // 20).float()
    assert gradient_alignment(Linear(3), other, labels) == pytest.approx(0, abs=0.01)


def test_accuracy_of_each_rung_is_the_mean_of_the_seeds(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1])
    arrays = {
        "ft/labels": labels,
        "ft/a/9": np.stack([labels, 1 - labels]),
        "ft/a/27": np.stack([labels, labels]),
        "fe/a/9": np.stack([labels, labels]),
    }
    save_file(arrays, tmp_path / "confirm.safetensors")
    assert trained(tmp_path) == {"a": {9: 0.5, 27: 1.0}}
