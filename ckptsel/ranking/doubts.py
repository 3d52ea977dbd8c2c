"""Why the scores of a ranking should not be believed, and why no checkpoint should be recommended."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckptsel.errors import MAX_LISTED
from ckptsel.ranking.inside import Inside
from ckptsel.results.ranking import FEW_IMAGES, Row, few_images

NEARLY_ALL = 0.95
"""Share of the held-out images in one class from which accuracy tells little."""

BELIEVED = 0.9
"""Accuracy that no wrong labels reach: a few well-parted classes can be right by luck."""

PROBES = ("linear_probe", "ridge_probe")
"""Scores that read the features as a whole. The first that a row has counts: where layers are compared,
most rows have the second alone."""

MANY_DUPLICATES = 0.1
"""Share of images that are duplicates from which it is said on top."""


def needs_a_look_inside(rows: Sequence[Row], target: Mapping[str, Any]) -> bool:
    """Whether the labels of one of two splits may be wrong, and there are images enough to tell."""
    scored = _scored(rows)
    if len(target["splits"]) < 2 or not scored or not _probe_of(scored[0]):
        return False
    probe = scored[0].scores[_probe_of(scored[0])]
    return probe.value < BELIEVED and not _of_the_data(target)


def find_reasons(
    rows: Sequence[Row], target: Mapping[str, Any], inside: Sequence[Inside] = ()
) -> list[str]:
    """Why no checkpoint should be recommended whatever its scores; a sentence each.

    rows: ranked, the best first. target: as the ranking records it. inside: a probe inside each
    split, where `needs_a_look_inside`.
    """
    reasons = _of_the_data(target)
    return reasons + _of_the_labels(_scored(rows)[0], target, *inside) if inside else reasons


def find_doubts(
    rows: Sequence[Row], target: Mapping[str, Any] | None = None, score: str = "linear_probe"
) -> list[str]:
    """Why the scores of ranked rows, the best first, should not be believed; a sentence each.

    score: what decided.
    """
    scored = _scored(rows)
    best = _best_at_chance(scored)
    doubts = [] if best is None else [_tells_nothing(best, len(scored), target, _probe_of(best))]
    for row in [row for row in scored if row.is_at_chance("linear_probe")][:MAX_LISTED]:
        other = _tells_more(row)
        if other is not None:
            doubts.append(
                f"linear_probe of {row.name} is at chance ({100 * row.scores['linear_probe'].value:.1f} "
                f"%) while {other} is not ({100 * row.scores[other].value:.1f} %): do not trust it."
            )
    if not doubts and scored and scored[0].is_at_chance(score):
        doubts.append(_tells_nothing(scored[0], len(scored), target, score))
    return doubts


def duplicates_sentence(target: Mapping[str, Any]) -> tuple[str, bool]:
    """What is to be said of images that were left out, and whether on top; '' where none were."""
    found = target["duplicates"]
    if not found or not found["n"]:
        return "", False
    train, held = target["splits"][0], target["splits"][-1]
    what = "are there already" if train == held else f"are also in {train}"
    kinds = f"{found['n_exact']} exactly, {found['n'] - found['n_exact']} nearly"
    if found["n_other_class"]:
        kinds += f"; {found['n_other_class']} under another class"
    examples = "; ".join(" is ".join(pair) for pair in found["examples"])
    sentence = (
        f"{found['n']} of {found['n_of']} images of {held} {what} ({kinds}) and were left out: "
        f"{examples}"
    )
    return sentence, found["n"] >= MANY_DUPLICATES * found["n_of"]


def _scored(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.rank is not None and row.copy_of is None]


def _best_at_chance(scored: Sequence[Row]) -> Row | None:
    """The best, where its probe is at chance and no component of its features tells more."""
    if not scored or _tells_more(scored[0]) is not None:
        return None
    return scored[0] if scored[0].is_at_chance(_probe_of(scored[0])) else None


def _probe_of(row: Row) -> str:
    """The score that reads its features as a whole; '' where it has none."""
    return next((name for name in PROBES if name in row.scores), "")


def _of_the_data(target: Mapping[str, Any]) -> list[str]:
    """Why images such as these cannot tell checkpoints apart."""
    n, largest = target["evaluation"]["n_eval"], target["largest_class"]
    reasons = []
    if n < FEW_IMAGES:
        reasons.append(few_images(n))
    if largest["share"] >= NEARLY_ALL:
        reasons.append(
            f"nearly all held-out images are of one class ({largest['name']!r}, "
            f"{100 * largest['share']:.1f} %): always naming it is right as often, so accuracy tells "
            "nothing of the others. Take about as many images of each class."
        )
    return reasons


def _of_the_labels(best: Row, target: Mapping[str, Any], train: Inside, held: Inside) -> list[str]:
    """What is wrong with the labels, from what a probe reaches inside each split alone."""
    probe, at_chance = best.scores[_probe_of(best)], _best_at_chance([best]) is not None
    seen = (
        f"a probe of {best.name} fitted on {train.split} is right on {_percent(probe.value)} of "
        f"{held.split} (chance: {_percent(1 / target['n_classes'])}), while cross-validated inside "
        f"{train.split} it reaches {_percent(train.accuracy)}, inside {held.split} "
        f"{_percent(held.accuracy)}"
    )
    if train.looks_wrong_beside(held):
        wrong = train.split
    elif at_chance and held.looks_wrong_beside(train):
        wrong = held.split
    elif at_chance and not train.at_chance and not held.at_chance:
        return [
            f"the classes of {train.split} and {held.split} do not mean the same: {seen}. Are they "
            "numbered in another order?"
        ]
    else:
        return []
    return [
        f"the labels of {wrong} look wrong: {seen}. Were they shuffled, or read from another file?"
    ]


def _tells_nothing(best: Row, n_scored: int, target: Mapping[str, Any] | None, score: str) -> str:
    probe = best.scores[score]
    which = "" if n_scored == 1 else ", the first of them,"
    below = ""
    if target is not None and probe.high is not None and probe.high < 1 / target["n_classes"]:
        below = f", and below chance ({_percent(1 / target['n_classes'])}): are the labels mixed up"
    return (
        f"these features tell nothing about these classes: {score} of {best.name}{which} "
        f"is {_percent(probe.value)}, no better than always naming the largest class "
        f"({_percent(probe.details['largest_class'])}){below}. Is it the right network, input size and "
        "normalisation, and are these the labels of the images?"
    )


def _tells_more(row: Row) -> str | None:
    """A component that is above chance where the whole features, which hold it, are not."""
    for name in ("residual_component", "main_component"):
        if name in row.scores and not row.is_at_chance(name):
            return name
    return None


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
