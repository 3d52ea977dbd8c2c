"""The board of a race: a table on a terminal, plain lines elsewhere, nothing when quiet."""

import io
import re
import sys

import pytest
from rich.console import Console

from ckptsel.confirmation import board
from ckptsel.confirmation.board import Board
from ckptsel.results.confirmation import Point, Standing
from ckptsel.results.estimate import Estimate


def show(monkeypatch: pytest.MonkeyPatch, terminal: bool, quiet: bool = False) -> str:
    """What is written while one candidate wins and another leaves."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    monkeypatch.setattr(board, "Console", lambda **options: console)
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(board, "PLAIN_INTERVAL_S", 0)
    with Board("ft", ["early", "late"], 2, (10, 30), quiet) as shown:
        for seed in (0, 1):
            shown.point("early", seed, Point(10, 0.5, 0.6, 0.8))
        shown.standing(Standing("early", "out", 1, 10, Estimate(0.8, 0.75, 0.85)))
        shown.point("late", 0, Point(20, 0.25, 0.3, 0.9))
        shown.note("out of memory")
    return file.getvalue()


def test_plain_lines_say_who_where_and_how_long(monkeypatch) -> None:
    lines = show(monkeypatch, terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith("ft early seed 0 step 10/30  loss 0.500, accuracy 80.0 %, at most")
    assert lines[2] == "ft early rung 1/2 step 10  80.0 % [75.0, 85.0]  out"
    assert lines[4] == "note: out of memory"


def test_a_terminal_gets_one_table(monkeypatch) -> None:
    text = show(monkeypatch, terminal=True)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in text.splitlines()]
    header, early, late, caption = [line for line in lines if line.strip()][-4:]
    assert header.split() == ["checkpoint", "rung", "step", "loss", "accuracy", "state"]
    assert early.split() == [
        "early",
        "1/2",
        "10/30",
        "0.500",
        "80.0",
        "%",
        "[75.0,",
        "85.0]",
        "out",
    ]
    assert late.split() == ["late", "0/2", "20/30", "0.250", "90.0", "%", "racing"]
    assert "ft, 2 seeds" in caption and "at most" in caption
    assert "note: out of memory" in text


def test_quiet_is_quiet(monkeypatch) -> None:
    assert show(monkeypatch, terminal=False, quiet=True) == ""
    assert show(monkeypatch, terminal=True, quiet=True) == ""
