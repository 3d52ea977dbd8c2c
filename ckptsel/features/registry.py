"""Which encoder a name stands for: one of a registered kind, else a network of images.

Another package adds a kind through the entry point group `ckptsel.encoders`. The entry's name is
what comes before the colon in `--model kind:name`; it loads to a function of the settings that
gives an `Encoder`.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

from ckptsel.features.encoder import Encoder
from ckptsel.features.encoders import build_image_encoder
from ckptsel.features.network import Recorded
from ckptsel.settings.rank import RankSettings

BuildEncoder = Callable[[str, RankSettings], Encoder]
"""(what comes after the colon, settings) -> encoder, on the CPU, with random weights."""


def known_kinds() -> dict[str, BuildEncoder]:
    """Kinds of encoders that installed plug-ins add, by name."""
    return {entry.name: entry.load() for entry in entry_points(group="ckptsel.encoders")}


def build_encoder(name: str, settings: RankSettings, recorded: Recorded | None = None) -> Encoder:
    """The encoder `name`, on the CPU, with random weights.

    recorded: what the checkpoints say of their network. A kind, or `package.module:function`, is only
    run where the user typed the name, which is then in the settings. Raises ModelError naming near
    names.
    """
    typed = settings.model is not None
    kind, colon, rest = name.partition(":")
    if typed and colon and kind in (kinds := known_kinds()):
        return kinds[kind](rest, settings)
    return build_image_encoder(
        name,
        settings.pool,
        settings.image_size,
        settings.mean,
        settings.std,
        settings.crop_pct,
        settings.interpolation,
        settings.channels,
        typed=typed,
        recorded=recorded,
    )
