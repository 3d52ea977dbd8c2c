"""A ranking's settings, taken up again: for confirming it, and for taking a candidate out of it."""

from ckptsel.common.fields import from_known_fields
from ckptsel.results.ranking import Ranking
from ckptsel.settings.rank import RankSettings

OF_THE_MACHINE = (
    "cache_dir",
    "cache",
    "cache_size",
    "workers",
    "read_memory",
    "read_timeout",
    "max_file_size",
)
"""Settings that no ranking decides where it is taken up: it may come from another machine, or from a
stranger, and would say where this one writes and how much it spends."""


def recorded_settings(ranking: Ranking) -> RankSettings:
    """The settings of a ranking, without those of the machine."""
    # What an older ranking did, whose settings have no word of it.
    crop_pct = ranking.model["preprocessing"].get("crop_pct")
    recorded = {"duplicates": "keep", "crop_pct": crop_pct, **ranking.settings}
    recorded = {name: value for name, value in recorded.items() if name not in OF_THE_MACHINE}
    return from_known_fields(RankSettings, recorded)
