"""Options that say where work runs, which several commands have, and which exclude each other."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, Protocol

from ckptsel.settings.kinds import Text
from ckptsel.settings.option import Option, OptionError

Engine = Literal["local", "ray"]

RayAddressOption = Annotated[
    Text | None,
    Option(
        "Address of the Ray cluster, as `ray start` printed it.",
        default="$RAY_ADDRESS, else a cluster of this machine",
        example="10.0.0.1:6379",
    ),
]


@dataclass(frozen=True)
class Where:
    """Where work runs, as the options of these names say."""

    device: str | None = None
    devices: tuple[str, ...] | None = None
    processes: int = 1
    engine: Engine = "local"
    ray_address: str | None = None

    @classmethod
    def of(cls, options: "Placed") -> "Where":
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    @property
    def first_device(self) -> str | None:
        """For what is done in one process."""
        return self.devices[0] if self.devices else self.device

    def on(self, device: str) -> "Where":
        """The same on a device, where nothing else says which."""
        is_said = self.devices is not None or self.engine == "ray"
        return self if is_said else replace(self, device=device)

    def settings(self) -> dict[str, Any]:
        """Of a ranking or a confirmation."""
        return vars(self).copy()


class Placed(Protocol):
    """Options that say where work runs."""

    @property
    def device(self) -> str | None: ...

    @property
    def devices(self) -> tuple[str, ...] | None: ...

    @property
    def processes(self) -> int: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def ray_address(self) -> str | None: ...


def check_place(settings: Placed, work: str) -> None:
    """Raises OptionError where two options say where it is. work: what is done there, for messages."""
    if settings.devices is not None and (settings.device is not None or settings.processes != 1):
        other = "device" if settings.device is not None else "processes"
        raise OptionError("{0} and {1} both say where " + f"{work}: give one.", "devices", other)
    if settings.engine != "ray" and settings.ray_address is not None:
        raise OptionError("{0} is for {1} ray.", "ray_address", "engine")
    for name, is_given in (("processes", settings.processes != 1), ("devices", settings.devices)):
        if settings.engine == "ray" and is_given:
            raise OptionError(
                "{0} ray and {1} both say where " + f"{work}: give one.", "engine", name
            )
