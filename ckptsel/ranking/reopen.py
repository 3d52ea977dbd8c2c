"""A ranking, taken up again: for confirming it, and for taking a candidate out of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ckptsel.checkpoints.averages import average_of
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.common.devices import default_device, default_precision
from ckptsel.common.fields import from_known_fields
from ckptsel.common.places import is_url
from ckptsel.common.remote import kept_path
from ckptsel.errors import DataError, InputError
from ckptsel.features.encoders import typed_or_recorded
from ckptsel.ranking.workspace import Workspace, open_workspace
from ckptsel.results.ranking import Ranking, Row
from ckptsel.settings.rank import RankSettings
from ckptsel.target.sources import is_named

OF_THE_MACHINE = (
    *("devices", "processes", "engine", "ray_address"),
    "cache_dir",
    "cache",
    "cache_size",
    "verify",
    "workers",
    "memory",
    "read_memory",
    "read_timeout",
    "max_file_size",
)
"""Settings that no ranking decides where it is taken up: it may come from another machine, or from a
stranger, and would say where this one writes and how much it spends."""


class Machine(Protocol):
    """Options that say where work runs here; None leaves it to the ranking or this machine."""

    @property
    def device(self) -> str | None: ...

    @property
    def precision(self) -> str | None: ...

    @property
    def workers(self) -> int | None: ...

    @property
    def cache_dir(self) -> str | None: ...

    @property
    def cache(self) -> bool | None: ...

    @property
    def cache_size(self) -> str | None: ...


@dataclass(frozen=True)
class Named:
    """What the user named again. model: a network of one's own, which a ranking may only name.
    data, data_root: where its images lie now. data_option: that says it."""

    model: str | None
    data: str | None
    data_root: str | None = None
    data_option: str = "--data"


def reopen(
    ranking: Ranking,
    checkpoints: Sequence[Checkpoint],
    named: Named,
    machine: Machine,
    quiet: bool,
    layers: tuple[str, ...] | None = None,
) -> Workspace:
    """The workspace of a ranking. layers: to read, if not all that were ranked.

    Raises DataError where the images are no longer the same, or only the user may name them.
    """
    device, precision = device_and_precision(ranking, machine)
    kept = {
        name: getattr(machine, name) for name in ("workers", "cache_dir", "cache", "cache_size")
    }
    changes = {**kept, "precision": precision, "data_root": named.data_root, "layers": layers}
    settings = dataclasses.replace(
        recorded_settings(ranking),
        model=typed_or_recorded(named.model, ranking.model["name"]),
        device=device,
        **{name: value for name, value in changes.items() if value is not None},
    )
    data = named.data or _recorded_data(ranking, named)
    workspace = open_workspace(settings, checkpoints, data, quiet)
    if workspace.target.describe()["fingerprint"] != ranking.target["fingerprint"]:
        raise DataError(
            f"the images or labels of {data} are not those of the ranking: they have changed since. "
            f"Rank again, or name the right ones with {named.data_option}."
        )
    return workspace


def checkpoint_of(row: Row, cache_dir: str | None = None) -> Checkpoint:
    """The checkpoint of a row, by the paths that its ranking names; of an average with its parts.

    Raises InputError where an average is not of the parts that are named.
    """
    if not row.average_of:
        return Checkpoint(row.checkpoint, kept_path(row.path, cache_dir), digest=row.digest)
    parts = [
        Checkpoint(part.name, kept_path(part.path, cache_dir), digest=part.digest)
        for part in row.average_of
    ]
    average = dataclasses.replace(average_of(parts), name=row.checkpoint)
    if average.digest != row.digest:
        raise InputError(
            f"{row.name} is not the average of what the ranking names as its parts: the file was "
            "changed, or is of another version of ckptsel. Rank again."
        )
    return average


def device_and_precision(ranking: Ranking, machine: Machine) -> tuple[str, str]:
    """As asked, else this machine's device and the precision of the ranking."""
    recorded = recorded_settings(ranking)
    device = machine.device or default_device()
    # What suits one kind of device does not suit another.
    is_alike = device[:4] == str(recorded.device)[:4]
    known = machine.precision or (recorded.precision if is_alike else None)
    return device, known or default_precision(device)


def recorded_settings(ranking: Ranking) -> RankSettings:
    """The settings of a ranking, without those of the machine."""
    # What an older ranking did, whose settings have no word of it.
    crop_pct = ranking.model["preprocessing"].get("crop_pct")
    recorded = {"duplicates": "keep", "crop_pct": crop_pct, **ranking.settings}
    recorded = {name: value for name, value in recorded.items() if name not in OF_THE_MACHINE}
    return from_known_fields(RankSettings, recorded)


def _recorded_data(ranking: Ranking, named: Named) -> str:
    """Where the ranking says that its data lies; raises DataError for what only the user may name."""
    data = str(ranking.target["data"])
    if is_url(data) or (is_named(data) and not data.startswith("torch/")):
        raise DataError(
            f"the ranking was made with the dataset {data}. A file may not name what is downloaded, or "
            f"opened by another library: if it is yours, say so with {named.data_option} {data}."
        )
    return data
