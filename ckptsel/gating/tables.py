"""A verdict as text: lines, JSON, CSV, Markdown."""

import json
from typing import Any

from ckptsel.common.files import csv_text
from ckptsel.common.outlets import json_text, markdown, shown
from ckptsel.gating.gate import Check, Verdict


def format_verdict(verdict: Verdict, form: str) -> str:
    """The verdict in one of `ckptsel.report.tables.TEXT_FORMATS`, ending in a line break."""
    if form == "json":
        return json_text(verdict_dict(verdict))
    if form == "csv":
        return csv_text(verdict_dict(verdict)["checks"])
    if form == "md":
        return markdown_verdict(verdict)
    lines = [f"gate: {verdict.decision}"]
    lines += [f"  {check.decision}: {check.name}: {shown(check.text)}" for check in verdict.checks]
    return "\n".join(lines) + "\n"


def verdict_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data: decision, and checks with the fields of `ckptsel.gating.gate.Check`,
    what was measured as `value`, `low` and `high`."""
    return {"decision": verdict.decision, "checks": [_check_dict(c) for c in verdict.checks]}


def _check_dict(check: Check) -> dict[str, Any]:
    measured = check.measured
    return {
        "name": check.name,
        "decision": check.decision,
        "text": check.text,
        "value": None if measured is None else measured.value,
        "low": None if measured is None else measured.low,
        "high": None if measured is None else measured.high,
        "limit": check.limit,
        "n_more_images": check.n_more_images,
    }


def markdown_verdict(verdict: Verdict) -> str:
    lines = [
        f"**Gate: {verdict.decision}**",
        "",
        "| check | decision | why |",
        "| --- | --- | --- |",
    ]
    for check in verdict.checks:
        lines.append(f"| {check.name} | {check.decision} | {markdown(check.text)} |")
    return "\n".join(lines) + "\n"


def with_verdict(ranking_text: str, verdict: Verdict | None, form: str) -> str:
    """A formatted ranking with its verdict: as the key `gate` of the JSON, after the table; a CSV
    stays a table of checkpoints."""
    if verdict is None or form == "csv":
        return ranking_text
    if form == "json":
        merged = {**json.loads(ranking_text), "gate": verdict_dict(verdict)}
        return json_text(merged)
    return ranking_text + "\n" + format_verdict(verdict, form)
