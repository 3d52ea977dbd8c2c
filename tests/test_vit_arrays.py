"""Vision transformers of JAX in `.npz` files: read as timm itself reads them."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.guard import Limits
from ckptsel.checkpoints.scan import scan
from ckptsel.checkpoints.weights import read_weights
from ckptsel.features.encoders import build_image_encoder
from ckptsel.features.network import recorded_in
from tools.made_jax import vit_arrays

NETWORK = "test_vit"
"""timm's, of the sizes that `vit_arrays` has by default."""

OPTIMISER = {"opt/0/embedding/kernel": np.zeros((2, 2))}


def only(folder: Path) -> Checkpoint:
    (found,) = scan(folder).checkpoints
    return found


@pytest.mark.parametrize(
    ("arrays", "arguments"),
    [
        ({"style": "original", "place": ""}, {}),
        ({"style": "original", "place": "opt/target/"}, {}),
        ({}, {}),
        ({"style": "stacked"}, {}),
        (
            {
                "place": "params/img/",
                "n_positions": 4,
                "has_class_token": False,
                "has_pooling": True,
            },
            {"class_token": False, "global_pool": "map"},
        ),
    ],
)
def test_features_are_those_of_timms_own_reading(
    tmp_path: Path, arrays: dict[str, Any], arguments: dict[str, Any]
) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/checkpoint.npz-000000300").open("wb") as file:
        np.savez(file, **vit_arrays(**arrays), **OPTIMISER)
    (tmp_path / "timm.npz").write_bytes((tmp_path / "run/checkpoint.npz-000000300").read_bytes())
    expected = timm.create_model(NETWORK, img_size=32, num_classes=0, **arguments).eval()
    expected.load_pretrained(str(tmp_path / "timm.npz"))
    found = only(tmp_path / "run")
    assert (found.format, found.records["arguments"]) == ("JAX", {"num_heads": 2})
    weights = read_weights(found, "auto", Limits())
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if arguments:
            module = timm.create_model(NETWORK, img_size=32, num_classes=0, **arguments).eval()
            module.load_state_dict({n: w for n, w in weights.items() if not n.startswith("head.")})
            features = module(images)
        else:
            recorded = recorded_in(found, "auto", Limits())
            encoder = build_image_encoder(NETWORK, typed=True, recorded=recorded)
            encoder.load(weights)
            encoder.to("cpu")
            assert encoder.preprocessing.input_size == (3, 32, 32)
            features = encoder.penultimate(images)
        torch.testing.assert_close(features, expected(images), rtol=1e-5, atol=1e-5)


def test_the_heads_are_those_of_the_file(tmp_path: Path) -> None:
    """Their number is in no shape of timm's tensors."""
    np.savez(tmp_path / "a.npz", **vit_arrays(heads=4))
    found = only(tmp_path)
    encoder = build_image_encoder(
        NETWORK, typed=True, recorded=recorded_in(found, "auto", Limits())
    )
    assert {block.attn.num_heads for block in encoder.module.blocks} == {4}


def test_a_run_is_ranked_with_what_the_message_says(run, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shapes = {"width": 192, "heads": 3, "depth": 12, "hidden": 768}
    for step in (100, 200):
        np.savez(folder / f"step_{step}.npz", **vit_arrays(seed=step, **shapes))
    code, _, err = run("rank", folder, "-d", images, "-q")
    assert code == 3 and "Their tensors fit vit_tiny_patch16_224." in err
    options = ("--model", "vit_tiny_patch16_224", "--scores", "linear_probe", "-q")
    code, out, _ = run("rank", folder, "-d", images, *options)
    assert code == 0 and "step_100" in out and "failed" not in out


def saved(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def without(name: str) -> dict[str, Any]:
    return {n: array for n, array in vit_arrays(place="").items() if n != name}


def test_other_networks_are_named(tmp_path: Path) -> None:
    broken = vit_arrays(place="") | {"embedding/kernel": np.zeros(3, np.float32)}
    cases = {
        "mixer": {"stem/kernel": np.zeros((2, 2), np.float32)},
        "hybrid": vit_arrays(place="") | {"conv_root/kernel": np.zeros(2, np.float32)},
        "headless": without("Transformer/encoderblock_5/MlpBlock_0/Dense_1/bias"),
        "flat": broken,
    }
    for name, arrays in cases.items():
        (tmp_path / f"{name}.npz").write_bytes(saved(**arrays))
    found = scan(tmp_path).checkpoints
    assert len(found) == len(cases)
    for each in found:
        assert (each.problem or "").startswith("weights of JAX, and no plain vision transformer")


def test_what_is_said_in_a_header_is_not_believed(tmp_path: Path) -> None:
    """No array of objects is unpickled, no type is made, and no memory taken for what is not there."""
    objects = np.array([pickle.dumps(print)], dtype=object)
    headers = {
        "objects": saved(**vit_arrays(place="") | {"cls": objects}),
        "halves": saved(**vit_arrays(place="") | {"cls": np.zeros(2, "V2")}),
        "huge": _with_shape(saved(**vit_arrays(place="")), b"(1, 5, 64)", b"(9,99, 99)"),
        "names": saved(**vit_arrays(place="") | {"\xe9": np.zeros(1)}).replace(
            b"\xc3\xa9", b"\xff\xfe"
        ),
    }
    for name, data in headers.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
    problems = {c.name: c.problem for c in scan(tmp_path).checkpoints}
    assert problems["objects"] == problems["halves"]
    assert "cls in it is no array of float32" in str(problems["objects"])
    assert "not a whole .npz file" in str(problems["names"])
    assert "pos_embedding in it has another size than it says" in str(problems["huge"])


def _with_shape(data: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with another shape in one header."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(buffer, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(old, new))
    return buffer.getvalue()
