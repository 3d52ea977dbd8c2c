"""What real training gave, as text: cells of the ranking's table, lines, the table of agreement."""

from collections.abc import Iterator

from ckptsel.results.confirmation import (
    MEASURES,
    MIN_CHECKPOINTS,
    Agreement,
    GoalConfirmation,
    Standing,
)
from ckptsel.results.estimate import Estimate, percent


def confirmed_cell(standing: Standing | None) -> str:
    """Accuracy in percent with its interval; for those that left, when."""
    if standing is None:
        return ""
    if standing.accuracy is None:
        return standing.state
    bounds = percent(standing.accuracy)
    return f"{bounds} out@{standing.step}" if standing.state == "out" else bounds


def confirmation_lines(confirmation: GoalConfirmation) -> Iterator[str]:
    """How the runs went, in words; one paragraph a line."""
    c = confirmation
    share = c.n_steps / c.n_steps_full
    yield (
        f"runs for {c.goal}: {c.n_seeds} seed{'s' * (c.n_seeds > 1)}, {c.n_fitted} images to "
        f"train on, {c.n_held} held out ({c.split}); {c.n_steps} training steps, {100 * share:.0f} % "
        f"of those of all candidates to the end"
        + (f", and {c.n_steps_sweep} for the learning rate" if c.n_steps_sweep else "")
    )
    yield from _rate_lines(c)
    if not c.agreement:
        yield (
            f"agreement of the scores with {c.goal}: not measured, that takes {MIN_CHECKPOINTS} "
            "candidates that trained"
        )
    for flag in c.flags:
        yield f"flag: {c.goal}: {flag}"


def _rate_lines(confirmation: GoalConfirmation) -> Iterator[str]:
    c = confirmation
    if c.own_rates:
        rates = ", ".join(f"{name} {own.lr:g}" for name, own in c.own_rates.items())
        yield f"learning rates for {c.goal}: {rates}"
    if c.sweep:
        tried = ", ".join(
            f"{rate}: {'diverged' if accuracy is None else f'{100 * accuracy:.1f} %'}"
            for rate, accuracy in c.sweep.items()
        )
        what = "one for all would be" if c.own_rates else f"learning rate for {c.goal}:"
        yield f"{what} {c.lr:g} (short runs of some candidates: {tried})"


def agreement_cells(confirmation: GoalConfirmation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each score against the accuracy after training, the closest first."""
    header = ["score", *(name.replace("_", " ") for name in MEASURES), "effective n"]
    agreement = confirmation.agreement
    order = sorted(
        agreement, key=lambda name: -(t.value if (t := agreement[name].kendall_tau) else -2)
    )
    rows = [
        [
            name,
            *(_measure_cell(getattr(agreement[name], measure)) for measure in MEASURES),
            effective_cell(agreement[name]),
        ]
        for name in order
    ]
    return header, rows


def effective_cell(agreement: Agreement) -> str:
    """Empty where a file does not say."""
    return "" if agreement.n_effective is None else f"{agreement.n_effective:.1f}"


def agreement_title(confirmation: GoalConfirmation) -> str:
    n = next(iter(confirmation.agreement.values())).n
    return (
        f"agreement with {confirmation.goal} accuracy after {confirmation.agreement_step} steps, "
        f"{n} checkpoints:"
    )


def _measure_cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    low, high = estimate.bounds
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"
