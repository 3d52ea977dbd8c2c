"""Which checkpoint of a pre-training run to use on your data, how sure that is, and why."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptsel.confirmation.confirm import confirm
    from ckptsel.export.extractor import load_extractor
    from ckptsel.ranking.rank import rank
    from ckptsel.results.ranking import Ranking

__all__ = ["Ranking", "confirm", "load_extractor", "rank"]

_HOMES = {
    "rank": "ckptsel.ranking.rank",
    "confirm": "ckptsel.confirmation.confirm",
    "load_extractor": "ckptsel.export.extractor",
    "Ranking": "ckptsel.results.ranking",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `ckptsel --help` need not wait for torch."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ckptsel' has no attribute {name!r}")
