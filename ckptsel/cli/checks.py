"""What commands say and check before the work: configuration, device, options without effect."""

import sys
from collections.abc import Iterable
from pathlib import Path

from ckptsel.common.streams import say
from ckptsel.settings.engine import Placed
from ckptsel.settings.kinds import LIBRARIES
from ckptsel.settings.option import Given, OptionError
from ckptsel.settings.toml import Config, find_config, read_config


def read_own_config(given: Given, quiet: bool) -> Config:
    """The file that --config names, else the one of this folder, else an empty one."""
    path: Path | None = given.values.get("config")
    found = path or find_config(Path.cwd())
    if found is None:
        return Config()
    if path is None and not quiet:
        say(f"options from {found.name}")
    return read_config(found)


def check_device(device: str | None, given: Given, option: str = "device") -> None:
    """Raises OptionError where this machine does not have the device that an option asks for."""
    if device in (None, "cpu"):
        return

    from ckptsel.common.devices import why_missing

    if reason := why_missing(device):
        raise OptionError("{0} is {1}; {2}", option, repr(device), reason).written_as(given.written)


def check_devices(settings: Placed, given: Given) -> None:
    """`check_device` for each that the options name."""
    check_device(settings.device, given)
    for device in settings.devices or ():
        check_device(device, given, "devices")


def why_not_drawn() -> str | None:
    """Why this Python can draw no charts; None where it can."""
    if sys.flags.optimize < 2:
        return None
    return (
        "report.html cannot be drawn under python -OO (PYTHONOPTIMIZE=2): altair, which draws it, reads "
        "docstrings"
    )


def print_notes(notes: Iterable[str]) -> None:
    """On stderr; nothing records them."""
    for note in notes:
        say(f"note: {note}")


def say_own_code(model: str | None, given: Given) -> None:
    """That a module of the user's own is about to be run, and who says so; on stderr."""
    if model is not None and ":" in model and model.partition(":")[0] not in LIBRARIES:
        by = given.name("model")
        say(f"note: {model} is imported and called, as {by} says")
