"""TensorBoard's event files, by torch's writer."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ckptsel.errors import UsageError


def check_events() -> None:
    """Raises UsageError where tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        raise UsageError(
            "event files need the package tensorboard: pip install 'ckptsel[tensorboard]'."
        )


def open_events(folder: Path) -> Any:
    """A `SummaryWriter` of a folder."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), flush_secs=10)
