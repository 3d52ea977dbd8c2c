"""What a file is, by its first bytes, whatever its name; no byte of it is interpreted further.

Kinds that this package reads: `torch` (a zip of torch.save or torch.jit.save), `pickle`, `safetensors`,
and of `jax` (arrays in `.npz`) plain vision transformers.
Kinds that hold weights and are not read: the keys of `REFUSED`, with what to do. "" for anything else.
"""

import re
import struct
from pathlib import Path

READ = ("torch", "pickle", "safetensors", "jax")

REFUSED = {
    "lfs": (
        "a pointer of Git LFS, not the weights, which were not fetched with the repository. There, run: "
        "git lfs pull"
    ),
    "onnx": (
        "an ONNX graph, which holds no weights by the names of a network of torch. Give the files of "
        "torch.save that it was exported from."
    ),
    "keras": (
        "weights of Keras (HDF5). Load them in Keras, and save a network of torch that has them with "
        "torch.save(model.state_dict(), ...). Keras 3 with its torch backend gives one."
    ),
    "tensorflow": (
        "weights of TensorFlow. Load them into the same network in torch (transformers: "
        "from_pretrained(..., from_tf=True)) and save model.state_dict()."
    ),
    "mindspore": (
        "a checkpoint of MindSpore. Load it with mindspore.load_checkpoint, and save its arrays under "
        "the names of the torch network with torch.save."
    ),
    "jax": (
        "weights of JAX, and no plain vision transformer, which alone is read. timm reads others: load "
        "with timm.create_model(NAME, checkpoint_path=...) and save model.state_dict() with torch.save."
    ),
    "flax": (
        "weights of JAX (Flax, Orbax). Load them in JAX, and save the arrays under the names and in the "
        "shapes of a torch network with safetensors.numpy.save_file."
    ),
    "paddle": "weights of PaddlePaddle. Save them under the names of the torch network with torch.save.",
    "gguf": (
        "a GGUF file of a quantised language model, which is not read. Give the checkpoint that it was "
        "made from."
    ),
    "html": (
        "a web page, not the weights: perhaps what was downloaded is a page to sign in at, or an error. "
        "Download it again."
    ),
    "tar": "a tar archive of checkpoints. Unpack it: tar -xf FILE, and give the folder.",
}

ENDS = 1 << 16
"""Bytes that are looked at at the end of an archive, where its directory is."""

HEAD = 4096

TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
"""Last bytes of a table of TensorFlow: tensorflow/core/lib/io/format.h."""

PICKLE = re.compile(rb"\x80[\x02-\x05]")
OLD_PICKLE = re.compile(rb"[(\]}c]")
"""How pickles begin; those of protocol 0 and 1 like text, and only under a pickle's name."""

WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)

TARRED = re.compile(rb"\.(pth|pt|ckpt|safetensors|bin|pkl)\x00")
"""In a tar's first headers: names of checkpoints."""

NPZ = re.compile(r"\.npz(-\d+)?$")
"""big_vision keeps copies as checkpoint.npz-000010000."""

MINDSPORE = re.compile(rb"\n[\x05-\xff]\x01?\n[\x01-\x7f][\w.]+\x12", re.DOTALL)
ONNX = re.compile(rb"\x08[\x01-\x20]\x12.(pytorch|tf2onnx|skl2onnx|onnx|keras2onnx|\w)", re.DOTALL)
FLAX = re.compile(rb"[\x81-\x8f\xde].{0,40}(params|model|opt_state|target|step)", re.DOTALL)


def kind_of(path: Path) -> str:
    """The kind of a regular file. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - ENDS))
        tail = file.read(ENDS)
    return kind_of_bytes(head, tail, size, path.name.lower())


def kind_of_bytes(head: bytes, tail: bytes, size: int, name: str) -> str:
    """The same from the first and last bytes. name: in small letters."""
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "lfs"
    if WEB_PAGE.match(head):
        return "html"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(head, tail, name)
    if name.endswith(".pdparams"):
        return "paddle"
    if PICKLE.match(head) or (name.endswith((".pkl", ".pickle")) and OLD_PICKLE.match(head)):
        return "pickle"
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        is_keras = b"keras" in head + tail or b"layer_names" in head + tail
        return "keras" if is_keras or name.endswith((".keras", ".weights.h5")) else ""
    if head.startswith(b"GGUF"):
        return "gguf"
    if head[257:262] == b"ustar" and TARRED.search(head):
        return "tar"
    return _kind_by_name_too(head, tail, name)


def _kind_by_name_too(head: bytes, tail: bytes, name: str) -> str:
    """Of formats whose bytes are not sure enough alone."""
    if tail.endswith(TABLE_MAGIC) and name.endswith((".ckpt", ".index")):
        return "tensorflow"
    if name.endswith((".pb", ".tflite")):
        return "tensorflow"
    if name.endswith(".onnx") and ONNX.match(head):
        return "onnx"
    if name.endswith(".ckpt") and MINDSPORE.match(head):
        return "mindspore"
    is_flax = name.endswith(".msgpack") or re.search(r"checkpoint_\d+$", name)
    return "flax" if is_flax and FLAX.match(head) else ""


def _kind_of_zip(head: bytes, tail: bytes, name: str) -> str:
    if b"data.pkl" in head or b"/data/0" in head[:300] or b"data.pkl" in tail:
        return "torch"
    if name.endswith(".keras") or b"model.weights.h5" in tail:
        return "keras"
    return "jax" if NPZ.search(name) and b"kernel.npy" in tail else ""


def _is_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and 2 <= length <= size - 8 and b'"' in head[8:64]
