"""A ranking in the order that real training gave it."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from ckptsel.confirmation.race import Race
from ckptsel.ranking.order import arrange, layer_references, reference_rows
from ckptsel.results.confirmation import GoalConfirmation, Standing
from ckptsel.results.ranking import Ranking, Reference, Row
from ckptsel.results.summary import unsure_note

ENDED = ("won", "tied", "behind")


def reorder(
    ranking: Ranking,
    goal: str,
    summaries: dict[str, GoalConfirmation],
    races: dict[str, Race],
) -> Ranking:
    """The ranking ordered by the race of `goal`, with what the races of all goals gave.

    First those that ended the race, by accuracy; then those that left it, the later the better;
    then those that were not tried, by score; then those that diverged. The tie set is the race's, and
    so is how far each is behind the best: nothing says that of what did not race.
    """
    race = races[goal]
    if race.winner is None:
        # Every candidate diverged: nothing overrules the scores.
        return _with_confirmed(ranking, summaries, races, ranking.checkpoints)
    standings = {standing.name: standing for standing in race.standings}
    scored = [row for row in ranking if row.rank is not None and row.copy_of is None]
    scored.sort(key=lambda row: _place(row, standings.get(row.name)))
    behind = {s.name: s.behind_best for s in race.standings if s.state != "diverged"}
    p_best = {s.name: s.p_best if s.state in ENDED else 0.0 for s in race.standings}
    placed = {
        row.name: dataclasses.replace(
            row,
            rank=place,
            in_tie_set=row.name in race.tie_set,
            p_best=p_best.get(row.name),
            behind_best=behind.get(row.name),
        )
        for place, row in enumerate(scored, start=1)
    }
    rows = [placed.get(row.name, row) for row in ranking]
    reordered = dataclasses.replace(
        ranking,
        notes=tuple(note for note in ranking.notes if note != unsure_note(ranking.score)),
        goal=goal,
        best=race.winner,
        expected=race.expected,
        tie_set=tuple(row.name for row in scored if row.name in race.tie_set),
        references={
            name: Reference(row.name, behind.get(row.name))
            for name, row in _references(scored, placed, standings, goal).items()
        },
    )
    return _with_confirmed(reordered, summaries, races, rows)


def _references(
    scored: Sequence[Row], placed: Mapping[str, Row], names: Collection[str], goal: str
) -> dict[str, Row]:
    """As of a ranking; for `ft`, which trains a network as a whole, by the row that stood for each
    checkpoint in the race."""
    if goal != "ft":
        return {**reference_rows(scored), **layer_references(list(placed.values()))}
    raced = {row.checkpoint: row for row in scored if row.name in names}
    return {name: raced.get(row.checkpoint, row) for name, row in reference_rows(scored).items()}


def _with_confirmed(
    ranking: Ranking,
    summaries: dict[str, GoalConfirmation],
    races: dict[str, Race],
    rows: Iterable[Row],
) -> Ranking:
    confirmed: dict[str, dict[str, Standing]] = {}
    for goal, race in races.items():
        for standing in race.standings:
            confirmed.setdefault(standing.name, {})[goal] = standing
    rows = [
        dataclasses.replace(row, confirmed={**(row.confirmed or {}), **confirmed[row.name]})
        if row.name in confirmed
        else row
        for row in rows
    ]
    return dataclasses.replace(
        ranking,
        checkpoints=tuple(arrange(rows)),
        confirmation={**ranking.confirmation, **summaries},
    )


def _place(row: Row, standing: Standing | None) -> tuple[int, int, float, int]:
    """Sorts before what it beats."""
    if standing is None:
        return (2, 0, 0.0, row.score_rank or 0)
    if standing.state == "diverged":
        return (3, -standing.rung, 0.0, row.order)
    group = 0 if standing.state in ENDED else 1
    return (
        group,
        -standing.rung,
        -(standing.accuracy.value if standing.accuracy else 0.0),
        row.order,
    )
