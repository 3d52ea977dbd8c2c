"""`ckptsel scores`."""

from dataclasses import dataclass

from ckptsel.cli.command import command
from ckptsel.common.streams import put
from ckptsel.settings.kinds import FormatOption
from ckptsel.settings.option import Given, Options


@dataclass(frozen=True)
class ScoresOptions(Options):
    """The options of `ckptsel scores`."""

    format: FormatOption = "table"


@command(ScoresOptions)
def scores(given: Given) -> None:
    """List the scores, those of installed packages too: unit, what it is, whether it may decide.

    Example: ckptsel scores
    """
    _run(given.make(ScoresOptions))


def _run(options: ScoresOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.report.scores import scores_text
    from ckptsel.scores import BUILT_IN, known_scores

    rows = [
        {
            "name": score.name,
            "unit": score.unit,
            "about": score.about,
            "by_default": score.by_default,
            "higher_is_better": score.higher_is_better,
            "cannot_decide": score.cannot_decide or None,
            "source": score.source or None,
            "built_in": score.name in BUILT_IN,
        }
        for score in known_scores().values()
    ]
    put(scores_text(rows, options.format))
