"""`ckptsel compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ckptsel.cli.command import command
from ckptsel.common.streams import put
from ckptsel.settings.kinds import FormatOption
from ckptsel.settings.option import Argument, Given, Options


@dataclass(frozen=True)
class CompareOptions(Options):
    """The options of `ckptsel compare`."""

    a: Annotated[Path, Argument("A ranking: the folder that `ckptsel rank --out` wrote.")]
    b: Annotated[Path, Argument("Another ranking, or a stored ranking.json.")]
    format: FormatOption = "table"


@command(CompareOptions)
def compare(given: Given) -> None:
    """Set two rankings side by side: another target, seed or version; what moved, and whether by more
    than chance.

    Example: ckptsel compare ranking/ other/
    """
    _run(given.make(CompareOptions))


def _run(options: CompareOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.comparison.compare import compare as compare_rankings
    from ckptsel.comparison.text import format_comparison
    from ckptsel.results.files import read_ranking

    comparison = compare_rankings(*read_ranking(options.a), *read_ranking(options.b))
    put(format_comparison(comparison, options.format))
