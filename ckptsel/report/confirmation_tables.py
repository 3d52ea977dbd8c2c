"""What real training gave, as text: cells of the ranking's table, lines, the table of agreement."""

from collections.abc import Iterator

from ckptsel.confirmation.agreement import MEASURES, MIN_CHECKPOINTS
from ckptsel.confirmation.race import Standing
from ckptsel.ranking.uncertainty import Interval
from ckptsel.results.confirmation import GoalConfirmation


def confirmed_cell(standing: Standing | None) -> str:
    """Accuracy in percent with its interval; for those that left, when."""
    if standing is None:
        return ""
    if standing.accuracy is None:
        return standing.state
    bounds = percent_interval(standing.accuracy, standing.low, standing.high)
    return f"{bounds} out@{standing.step}" if standing.state == "out" else bounds


def percent_interval(value: float, low: float | None, high: float | None, unit: str = "") -> str:
    """A fraction in percent, with its interval where it has one."""
    text = f"{100 * value:.1f}{unit}"
    return text if low is None or high is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


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
    if c.sweep:
        tried = ", ".join(
            f"{rate}: {'diverged' if accuracy is None else f'{100 * accuracy:.1f} %'}"
            for rate, accuracy in c.sweep.items()
        )
        yield f"learning rate for {c.goal}: {c.lr:g} (short runs of some candidates: {tried})"
    if not c.agreement:
        yield (
            f"agreement of the scores with {c.goal}: not measured, that takes {MIN_CHECKPOINTS} "
            "candidates that trained"
        )
    for flag in c.flags:
        yield f"flag: {c.goal}: {flag}"


def agreement_cells(confirmation: GoalConfirmation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each score against the accuracy after training, the closest first."""
    header = ["score", *(name.replace("_", " ") for name in MEASURES)]
    agreement = confirmation.agreement
    order = sorted(
        agreement, key=lambda name: -(t.value if (t := agreement[name].kendall_tau) else -2)
    )
    rows = [
        [name, *(_measure_cell(getattr(agreement[name], measure)) for measure in MEASURES)]
        for name in order
    ]
    return header, rows


def agreement_title(confirmation: GoalConfirmation) -> str:
    n = next(iter(confirmation.agreement.values())).n
    return (
        f"agreement with {confirmation.goal} accuracy after {confirmation.agreement_step} steps, "
        f"{n} checkpoints:"
    )


def _measure_cell(bounds: Interval | None) -> str:
    return "" if bounds is None else f"{bounds.value:.2f} [{bounds.low:.2f}, {bounds.high:.2f}]"
