"""What GitHub Actions shows: annotations, the step's summary, the step's outputs.

Each is written where the runner's variables ask for it, and nowhere else. Limits as GitHub documents
them: ten annotations of a kind a step, 1 MiB of summary.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ckptsel.common.outlets import annotation, exact, markdown
from ckptsel.common.streams import say, tell_runner
from ckptsel.gating.gate import CANNOT_TELL, FAIL, PASS, Verdict, best_accuracy
from ckptsel.gating.tables import markdown_verdict
from ckptsel.report.tables import closing_lines, doubt_lines, markdown_table
from ckptsel.results.ranking import Ranking
from ckptsel.results.summary import summary

MAX_ANNOTATIONS = 10
MAX_SUMMARY_BYTES = 1_000_000
"""A little below the limit, beyond which GitHub drops all of a summary."""

KINDS = {PASS: "notice", FAIL: "error", CANNOT_TELL: "warning"}


def tell_actions(
    ranking: Ranking,
    verdict: Verdict | None,
    report: Path | None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Tell the runner what came out, where one listens. report: the page, where it was written.

    A file of the runner that cannot be written is a warning: the result is not lost.
    Raises OutputError where an output cannot be given as it is.
    """
    if environment.get("GITHUB_ACTIONS") == "true":
        # To stderr, which the runner reads as well: stdout is the result's.
        for line in annotations(ranking, verdict):
            tell_runner(line)
    if environment.get("GITHUB_STEP_SUMMARY"):
        _append(environment["GITHUB_STEP_SUMMARY"], step_summary(ranking, verdict))
    if environment.get("GITHUB_OUTPUT"):
        _append(environment["GITHUB_OUTPUT"], step_outputs(ranking, verdict, report))


def annotations(ranking: Ranking, verdict: Verdict | None) -> list[str]:
    """Workflow commands: one a check, then one a checkpoint that failed, as many as GitHub shows."""
    lines: list[tuple[str, str, str]] = []
    for check in verdict.checks if verdict else ():
        lines.append((KINDS[check.decision], f"ckptsel gate: {check.name}", check.text))
    for row in ranking:
        if row.status == "failed":
            lines.append(("warning", "ckptsel: failed checkpoint", f"{row.name}: {row.reason}"))
    shown: list[str] = []
    for kind in ("error", "warning", "notice"):
        of_kind = [line for line in lines if line[0] == kind]
        shown += [annotation(*line) for line in of_kind[:MAX_ANNOTATIONS]]
    return shown


def step_summary(ranking: Ranking, verdict: Verdict | None) -> str:
    """Markdown: the verdict, the answer, the table, the notes; the last parts are left out where all
    would be too long."""
    parts = [f"## ckptsel: {markdown(ranking.best)}\n"]
    if verdict is not None:
        parts.append(markdown_verdict(verdict))
    parts += [f"**{markdown(line)}**\n" for line in doubt_lines(ranking)]
    parts.append(markdown(summary(ranking)) + "\n")
    parts.append(markdown_table(ranking))
    parts.append("\n".join(f"- {markdown(line)}" for line in closing_lines(ranking)[1:]) + "\n")
    text, left_out = "", "\n(The rest is too long to be shown here: see the report.)\n"
    for part in parts:
        if len((text + part + left_out).encode()) > MAX_SUMMARY_BYTES:
            return text + left_out
        text += part + "\n"
    return text


def step_outputs(ranking: Ranking, verdict: Verdict | None, report: Path | None) -> str:
    """`name=value` lines. best-path is empty where the best is an average. best-score and its interval
    are fractions, empty where nothing measured them; decision is empty without a gate.

    Raises OutputError for a path with a line break, which would begin another output, or anything else
    that would have to be altered.
    """
    best, measured = ranking[ranking.best], best_accuracy(ranking)
    values = {
        "best-path": best.path,
        "best-epoch": "" if best.epoch is None else f"{best.epoch:g}",
        "best-score": "" if measured is None else f"{measured.value:.6g}",
        "ci-low": "" if measured is None else f"{measured.low:.6g}",
        "ci-high": "" if measured is None else f"{measured.high:.6g}",
        "decision": "" if verdict is None else verdict.decision,
        "report": "" if report is None else str(report),
    }
    return "".join(f"{name}={_output(name, value)}\n" for name, value in values.items())


def _output(name: str, value: str) -> str:
    return exact(value, f"the step's output {name}", "Rename the file, and rank again.")


def _append(path: str, text: str) -> None:
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        say(f"warning: {path} cannot be written: {error.strerror or error}. All else is written.")
