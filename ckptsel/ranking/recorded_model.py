"""Which network is ranked where the user names none: the one that the files record."""

import itertools
from collections.abc import Sequence

from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.errors import ModelError, listed
from ckptsel.features.matching import Tensors, shape_text
from ckptsel.features.names import is_registered, told_by_tensors
from ckptsel.features.network import Recorded

NAMES = (
    "--model: a timm name such as resnet50, or module:function, where the function, in a file module.py "
    "of yours that lies here, returns the network (docs/own-model.md)."
)


def recorded_model(usable: Sequence[Checkpoint], last: Recorded) -> str:
    """The name that checkpoints record, of a registry, or `hf:`. last: what the last of them says.

    Raises ModelError with what to type where they record none, or several.
    """
    if all(c.records.get("config") and not is_registered(c.arch or "") for c in usable):
        return "hf:"
    recorded = sorted({c.arch for c in usable if c.arch})
    names = [name for name in recorded if is_registered(name)]
    if recorded and not names:
        raise ModelError(
            f"the checkpoints record the architecture {', '.join(map(repr, recorded[:3]))}, which is no "
            f"name that timm knows. Only such names are taken from files; name the network with {NAMES}"
            + _hint(usable, last)
        )
    if len(names) == 1:
        return names[0]
    if not names:
        raise ModelError(
            f"the checkpoints do not record their architecture. Name it with {NAMES}"
            + _hint(usable, last)
        )
    raise ModelError(
        f"the checkpoints record several architectures ({', '.join(names)}). Rank one trajectory "
        "at a time, or name the architecture with --model."
    )


def _hint(usable: Sequence[Checkpoint], last: Recorded) -> str:
    """What network it may be, with a space before it."""
    return told_by_tensors(last.tensors) or _told_by_class(usable) or _told_by_first(last.tensors)


def _told_by_first(tensors: Tensors) -> str:
    first = [f"{name[:60]} ({shape_text(t)})" for name, t in itertools.islice(tensors.items(), 3)]
    return f" Its tensors begin with {listed(first)}." if first else ""


def _told_by_class(usable: Sequence[Checkpoint]) -> str:
    """What to type where whole modules of one class were saved, with a space before it."""
    classes = {c.records["class"] for c in usable if "class" in c.records}
    if len(classes) != 1:
        return ""
    (name,) = classes
    module, _, own = name.rpartition(".")
    typed = f"{'SCRIPT' if module == '__main__' else module}:{own}"
    known = f" They are modules of the class {name}"
    return f"{known}: where its code is yours and lies here, try --model {typed}."
