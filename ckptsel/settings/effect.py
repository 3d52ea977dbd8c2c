"""Options that have no effect with the others that were given: a sentence for each."""

from collections.abc import Sequence

from ckptsel.settings.option import Given

EVALUATED = {
    "cross-validation": "the training split is cross-validated",
    "holdout": "a part of the training split is held out",
}
"""What is evaluated, by the method of the evaluation, where no split of its own is."""


def idle_in_rank(given: Given, n_targets: int = 1) -> list[str]:
    """What can be said before the target is open."""
    notes = []
    if n_targets == 1 and "tolerance" in given.values and "budget" not in given.values:
        why = "it is for several targets or a budget, and neither is given"
        notes.append(_said(given, "tolerance", why))
    if {"holdout", "eval_split"} <= set(given.values):
        why = f"{given.name('eval_split')} names what is evaluated"
        notes.append(_said(given, "holdout", why))
    if given.values.get("average_across_drops") and "average" not in given.values:
        notes.append(_said(given, "average_across_drops", "no averages are asked for"))
    if "shard" in given.values:
        why = f"with {given.name('shard')} nothing is ranked"
        useless = (name for name in ("out", "format", "explain") if name in given.values)
        notes += [_said(given, name, why) for name in useless]
    return notes


def idle_in_evaluation(given: Given, method: str) -> list[str]:
    """What can be said once the target is open. method: of its evaluation."""
    if "max_eval_samples" in given.values and method in EVALUATED:
        return [_said(given, "max_eval_samples", EVALUATED[method])]
    return []


def idle_in_confirm(given: Given, goals: Sequence[str]) -> list[str]:
    """What a confirmation for these goals has no use for."""
    names = [name for name in ("augment", "ema") if name in given.values and "ft" not in goals]
    notes = [_said(given, name, "it is for fine-tuning, and the goal is fe") for name in names]
    if given.values.get("full") and "tolerance" in given.values:
        notes.append(_said(given, "tolerance", f"with {given.name('full')} there is no race"))
    if given.values.get("lr_per_candidate"):
        of = next((name for name in ("lr", "preset") if name in given.values), None)
        if of == "preset" or (of == "lr" and len(given.values["lr"]) == 1):
            why = f"{given.name(of)} gives one learning rate, there is none to choose"
            notes.append(_said(given, "lr_per_candidate", why))
    return notes


def _said(given: Given, name: str, why: str) -> str:
    return f"{given.name(name)} has no effect: {why}."
