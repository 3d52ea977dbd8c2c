"""Why the scores of a ranking should not be believed."""

from collections.abc import Sequence

from ckptsel.errors import MAX_LISTED
from ckptsel.results.ranking import Row


def find_doubts(rows: Sequence[Row]) -> list[str]:
    """Why the scores of ranked rows, the best first, should not be believed; a sentence each."""
    scored = [row for row in rows if row.rank is not None and row.copy_of is None]
    at_chance = [row for row in scored if row.is_at_chance("linear_probe")]
    doubts = []
    believable = [row for row in at_chance if _tells_more(row) is None]
    if scored and scored[0] in believable:
        probe = scored[0].scores["linear_probe"]
        which = "" if len(scored) == 1 else ", the best of them,"
        doubts.append(
            f"these features tell nothing about these classes: linear_probe of {scored[0].name}{which} "
            f"is {100 * probe.value:.1f} %, no better than always naming the largest class "
            f"({100 * probe.details['largest_class']:.1f} %). Is it the right network, input size and "
            "normalisation?"
        )
    for row in at_chance[:MAX_LISTED]:
        other = _tells_more(row)
        if other is not None:
            doubts.append(
                f"linear_probe of {row.name} is at chance ({100 * row.scores['linear_probe'].value:.1f} "
                f"%) while {other} is not ({100 * row.scores[other].value:.1f} %): do not trust it."
            )
    return doubts


def _tells_more(row: Row) -> str | None:
    """A component that is above chance where the whole features, which hold it, are not."""
    for name in ("residual_component", "main_component"):
        if name in row.scores and not row.is_at_chance(name):
            return name
    return None
