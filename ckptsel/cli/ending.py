"""How `rank` and `gate` end: the verdict, what is printed, what a CI system is told."""

from pathlib import Path
from typing import Any

from ckptsel.cli.checks import why_not_drawn
from ckptsel.common.streams import put, say
from ckptsel.settings.policy import Policy


def draw(folder: Path, ranking: Any, arrays: Any) -> None:
    """Draw the report beside results that are written; a chart that fails is said, and no more."""
    if (reason := why_not_drawn()) is not None:
        say(f"warning: {reason}; all else is written.")
        return

    from ckptsel.report.page import draw_report

    problem = draw_report(folder, ranking, arrays)
    if problem is not None:
        say(f"warning: {problem}")


def draw_overall(folder: Path, record: Any, ranked: Any) -> None:
    """The same for the page of several targets, and for the page of each."""
    for name, (ranking, arrays) in ranked.items():
        draw(folder / name, ranking, arrays)
    if why_not_drawn() is not None:
        return

    from ckptsel.report.overall_page import draw_overall_report

    problem = draw_overall_report(folder, record, ranked)
    if problem is not None:
        say(f"warning: {problem}")


def end(
    ranking: Any,
    arrays: Any,
    policy: Policy | None,
    run: Path | None,
    form: str,
    junit: Path | None,
    show_ranking: bool = True,
    explain: bool = False,
) -> None:
    """Tell the CI system; print the ranking, where asked for how it came about, and the verdict; exit
    as the gate decides. Whoever reads stdout may leave early, so the CI system comes first."""
    from ckptsel.gating.gate import enforce, hold_against
    from ckptsel.gating.github import tell_actions
    from ckptsel.gating.junit import write_junit
    from ckptsel.gating.tables import format_verdict, with_verdict
    from ckptsel.report.explanation import explanation_text
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import PAGE_NAME

    verdict = None
    if policy is not None:
        ahead = None
        if policy.baseline is not None:
            from ckptsel.gating.baseline import compare_with_stored

            ahead = compare_with_stored(ranking, arrays, Path(policy.baseline))
        verdict = hold_against(ranking, policy, ahead)
        if junit is not None:
            write_junit(junit, verdict)
    page = None if run is None else run / PAGE_NAME
    tell_actions(ranking, verdict, page if page is not None and page.is_file() else None)
    if show_ranking:
        text = format_ranking(ranking, form)
        if explain and form in ("table", "md"):
            text += "\n" + explanation_text(ranking, form)
        put(with_verdict(text, verdict, form))
    elif verdict is not None:
        put(format_verdict(verdict, form))
    if verdict is not None:
        enforce(verdict)
