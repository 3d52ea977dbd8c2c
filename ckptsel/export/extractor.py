"""`load_extractor`: a file that `ckptsel pick --to` wrote, as a module of torch."""

from pathlib import Path

from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.weights import read_weights
from ckptsel.errors import InputError, ModelError
from ckptsel.export.opening import open_reading
from ckptsel.features.extractor import Extractor
from ckptsel.features.names import is_registered
from ckptsel.results.reading import Reading


def load_extractor(file: str | Path, model: str | None = None) -> Extractor:
    """The network in a file of `ckptsel pick --to`, which gives the features of the candidate that was
    picked: images (N, C, H, W), prepared as its `transform` does, to (N, D).

    The checkpoint that it was picked from is not needed. model: `module:function`, where it was ranked
    with a network of one's own: nothing that a file names is run.
    Raises InputError where the file is not there, was not written by `pick`, or is damaged; ModelError
    where the network cannot be built.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path} is no file. Write one with: ckptsel pick RANKING --to {path}.")
    found = scan_checkpoints(path, "raw")[0]
    if found.problem is not None:
        raise InputError(f"{path} cannot be read: {found.problem}")
    text = found.records.get("reading")
    if text is None:
        raise InputError(
            f"{path} does not say how its network is read: it was not written by ckptsel pick --to, or "
            "by an older version. Pick again."
        )
    reading = Reading.from_json(text, str(path))
    name = reading.network.name
    if model is None and not is_registered(name):
        raise ModelError(
            f"{path} was picked from the network {name!r}, which is no name that timm knows. Nothing "
            f"that a file names is run: if it is yours, name it: model={name!r}."
        )
    tensors = read_weights(found, "raw")
    return open_reading(reading, tensors, model or name, typed=model is not None).extractor
