"""A verdict as JUnit XML, which most CI systems show: one test case a check."""

from pathlib import Path
from xml.etree import ElementTree

from ckptsel.common.files import write_text
from ckptsel.common.outlets import shown
from ckptsel.gating.gate import CANNOT_TELL, FAIL, Verdict

SUITE = "ckptsel gate"


def write_junit(path: Path, verdict: Verdict) -> None:
    """Write the file. What fails is a `failure`; what cannot be told is `skipped`, JUnit's word for
    a test that gave no result. An `error` would say that the gate broke."""
    write_text(path, junit_text(verdict))


def junit_text(verdict: Verdict) -> str:
    decisions = [check.decision for check in verdict.checks]
    counts = {
        "tests": str(len(decisions)),
        "failures": str(decisions.count(FAIL)),
        "errors": "0",
        "skipped": str(decisions.count(CANNOT_TELL)),
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": SUITE, **counts})
    for check in verdict.checks:
        about = {"classname": "ckptsel.gate", "name": check.name}
        case = ElementTree.SubElement(suite, "testcase", about)
        text = shown(check.text, most=None)  # XML has no way to write most of what is unseen
        if check.decision == FAIL:
            ElementTree.SubElement(case, "failure", {"message": text}).text = text
        elif check.decision == CANNOT_TELL:
            ElementTree.SubElement(case, "skipped", {"message": text})
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
