"""What a ranking says, in sentences: the line under the table, and first in reports and cards.

`summary` is the whole; the others are parts of it that notes and explanations need too.
"""

from collections.abc import Iterator, Sequence

from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import percent
from ckptsel.results.ranking import EPOCH, Ranking, Reference
from ckptsel.results.search import SearchRecord


def summary(ranking: Ranking) -> str:
    """Which checkpoint to use, what to expect of it, how far the last is behind the best, and how
    many cannot be told from the best."""
    n_scored = sum(row.status == "ok" and row.copy_of is None for row in ranking)
    if not ranking.recommended:
        return f"no checkpoint is recommended: {ranking.why_not}"
    if not ranking.is_known_how_sure:
        return _unsure(ranking)
    confirmed = ranking.confirmation.get(ranking.goal)
    first = "" if confirmed is None else f"confirmed for {ranking.goal}: "
    first += f"{ranking.best} is recommended{_expectation(ranking)}"
    is_part = ranking.search is not None and bool(ranking.search.unseen)
    if n_scored == 1 and not is_part:
        return f"{first}; it is the only checkpoint that could be scored."
    parts = [first]
    if n_scored > 1:
        parts += [*_references_in_words(ranking), _ties_in_words(ranking.best, ranking.tie_set)]
        parts += _why_not_the_highest(ranking)
    if ranking.search is not None and is_part:
        parts.append(_search_in_words(ranking.search, ranking))
    sure = "" if confirmed is None or confirmed.n_seeds > 1 else " (over images only: one seed)"
    return "; ".join(parts) + sure + "." + _of_other_goals(ranking)


def _unsure(ranking: Ranking) -> str:
    """What stands first, where nothing says how sure that is."""
    if ranking.score == EPOCH:
        return (
            "which checkpoint fine-tunes best is not known: no score was found to foretell it "
            "better than the order of training does. Race "
            f"them: ckptsel confirm RUN --goal {ranking.goal}. Until then they stand in the order of "
            f"training, the last first: {ranking.best}."
        )
    return (
        f"{ranking.best} is the first by {ranking.score}; {unsure_note(ranking.score)}. Race them to "
        f"know: ckptsel confirm RUN --goal {ranking.goal}."
    )


def unsure_note(score: str) -> str:
    """Why nothing says how sure an order by a score is."""
    return f"{score} has no held-out values: how sure the order is is not known"


def _expectation(ranking: Ranking) -> str:
    """What the best is expected to reach, where that is an accuracy."""
    expected = ranking.expected
    if expected is None or not ranking.is_accuracy(expected.by):
        return ""
    if ranking.goal == "ft" and expected.by != CONFIRMED:
        return f", by {expected.by}, {percent(expected, ' %')} with frozen features on new images"
    return f", {percent(expected, ' %')} expected on new images"


def _references_in_words(ranking: Ranking) -> Iterator[str]:
    last = ranking.references["last"]
    layer, run = ranking.references.get("last_layer"), ranking.references.get("last_checkpoint")
    if layer is not None and layer.name != ranking.best:
        yield f"at the last layer the first is {layer.name}, {against_reference(layer, ranking)}"
    if run is not None:
        if run.name != ranking.best:
            yield f"the last checkpoint's best is {run.name}, {against_reference(run, ranking)}"
    elif last.name == ranking.best:
        yield "it is the last of the run"
    else:
        yield f"the last is {against_reference(last, ranking)}"
    yield from _averages_in_words(ranking)
    source = ranking.references.get("source_accuracy")
    said = {ranking.best, (run or last).name}
    if source is not None and source.name not in said:
        which = "" if run is None else f"{source.name}, "
        yield f"the best by source accuracy is {which}{against_reference(source, ranking)}"


def _averages_in_words(ranking: Ranking) -> Iterator[str]:
    """How far the best of averages and checkpoints is ahead of the best of the others."""
    last = ranking.references["last"]
    for name, what in (("checkpoint", "single checkpoints"), ("average", "averages")):
        reference = ranking.references.get(name)
        if reference is not None and reference.name not in (ranking.best, last.name):
            yield f"of {what} the best is {reference.name}, {against_reference(reference, ranking)}"


def against_reference(reference: Reference, ranking: Ranking) -> str:
    """How far a reference is behind the best, in words that follow `is`."""
    behind = reference.ahead
    if behind is None:
        return "not compared: it did not race"
    is_accuracy = ranking.is_accuracy(behind.by)
    factor, digits = (100, 1) if is_accuracy else (1, 3)
    unit = "points" if is_accuracy else ranking.units.get(behind.by, "nats")
    # Adding zero turns -0.0 into 0.0.
    value, low, high = (round(factor * x, digits) + 0.0 for x in (behind.value, *behind.bounds))
    text = f"{value} {unit} behind the best [{low}, {high}]"
    return text if behind.bounds[0] > 0 else f"{text}, which does not tell them apart"


def _of_other_goals(ranking: Ranking) -> str:
    """A sentence for each goal that was confirmed besides the one that orders the ranking."""
    return "".join(
        f" Confirmed for {goal}: {found.winner} is the first; "
        f"{_ties_in_words(found.winner, found.tie_set)}."
        for goal, found in ranking.confirmation.items()
        if goal != ranking.goal and found.winner is not None
    )


def _ties_in_words(best: str, tie_set: Sequence[str]) -> str:
    others = [name for name in tie_set if name != best]
    if not others:
        return "no other can be the best at 95 %"
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return f"{len(others)} other{'s' * (len(others) > 1)} can be the best too, at 95 % ({shown})"


def _why_not_the_highest(ranking: Ranking) -> Iterator[str]:
    """Who of the tie set has a higher score than the best, where another score decides among them."""
    rows = [ranking[name] for name in ranking.tie_set]
    if ranking.score != "linear_probe" or ranking.goal in ranking.confirmation:
        return
    highest = max(rows, key=lambda row: row.scores[ranking.score].value)
    ahead = highest.scores[ranking.score].value - ranking[ranking.best].scores[ranking.score].value
    if round(100 * ahead, 1) > 0 and ranking[ranking.best].scores.keys() >= {"linear_probe_loglik"}:
        yield (
            f"of these {highest.name} has the highest accuracy, by {100 * ahead:.1f} points: among "
            "those that cannot be told apart the log-likelihood decides"
        )


def _search_in_words(search: SearchRecord, ranking: Ranking) -> str:
    """That not all were looked at, and what the chance is that it would have been worth it."""
    text = f"all this is among the {search.n_seen} of {search.n_checkpoints} that were looked at"
    if search.chance is None:
        return text
    ahead = f"{search.tolerance:g} {ranking.units.get(ranking.score, 'nats')}"
    if ranking.is_accuracy(ranking.score):
        points = 100 * search.tolerance
        ahead = f"{points:g} {'point' if points == 1 else 'points'}"
    return (
        f"{text}: with a chance of {100 * search.chance:.0f} % another is more than {ahead} ahead of "
        "the best of them"
    )
