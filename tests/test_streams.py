"""How a process ends whose streams break or that is told to stop: in a sentence, with its exit code."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptsel.cli.process import EXIT_TERMINATED
from ckptsel.common.streams import EXIT_READER_LEFT
from tests.test_actions import stored
from tests.test_gate import make_ranking

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and streams of POSIX")

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stored(tmp_path / "run", make_ranking())


def shell(command: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a line of sh in which $ckptsel is the command and $1 the first argument."""
    return subprocess.run(
        [
            "sh",
            "-c",
            f'ckptsel="{sys.executable} -m ckptsel"; {command}',
            "sh",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        pytest.param(
            ">/dev/full", 3, "error: the result cannot be written to stdout: ", marks=FULL
        ),
        (">&-", 3, "error: stdout is closed"),
    ],
)
def test_a_stdout_that_breaks(folder, where: str, code: int, said: str, unbuffered: str) -> None:
    for command in ("gate $1 --strict", "--help"):
        done = shell(f"$ckptsel {command} {where}", folder, PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_reader_that_left(folder, unbuffered: str) -> None:
    """The exit code is that of a program that SIGPIPE ended, not the gate's."""
    for command in ("gate $1 --strict", "--help"):
        done = shell(
            f"( $ckptsel {command}; echo $? >&2 ) | true", folder, PYTHONUNBUFFERED=unbuffered
        )
        assert done.stderr == f"{EXIT_READER_LEFT}\n"


@pytest.mark.parametrize("where", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_a_stderr_that_breaks_changes_nothing(folder, where: str) -> None:
    done = shell(f"$ckptsel gate $1 --strict {where}", folder)
    assert done.returncode == 4
    assert done.stdout.startswith("gate: fail\n") and "error:" not in done.stdout


def test_what_the_encoding_lacks_is_written_visibly(tmp_path: Path) -> None:
    named = make_ranking(notes=())
    rows = [row if row.name != "broken" else _renamed(row) for row in named]
    folder = stored(tmp_path / "run", dataclasses.replace(named, checkpoints=tuple(rows)))
    done = shell("$ckptsel gate $1 --strict", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 4 and "cannot be used: caf\\xe9" in done.stdout
    done = shell("$ckptsel pick $1 --checkpoint c.pt", folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (3, "")
    assert "the path cannot be written in ascii" in done.stderr
    done = shell("$ckptsel pick $1 --checkpoint c.pt", folder, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (0, "café/c.pt\n")


def _renamed(row):
    return dataclasses.replace(row, name="café", path="café/c.pt")


def test_without_docstrings(folder) -> None:
    assert shell("$ckptsel gate $1 --strict", folder, PYTHONOPTIMIZE="2").returncode == 4
    assert shell("$ckptsel --help", PYTHONOPTIMIZE="2").returncode == 0
    done = shell("$ckptsel report $1", folder, PYTHONOPTIMIZE="2")
    assert done.returncode == 3 and done.stderr.startswith("error: report.html cannot be drawn")


def test_no_home(folder) -> None:
    done = shell("unset HOME; $ckptsel gate $1 --strict", folder)
    assert done.returncode == 4 and done.stderr == "error: the gate says no: strict.\n"


# ---- signals -------------------------------------------------------------------------------------

MARKED = """
import sys, time
from ckptsel import cli
{setting}
sys.argv = ["ckptsel", "inspect", "x"]
cli.main()
"""

IN_A_COMMAND = """
from ckptsel.cli import inspect
def waiting(options):
    try:
        print("ready", file=sys.stderr, flush=True)
        time.sleep(30)
    finally:
        {at_the_end}
inspect._run = waiting
"""

IN_AN_IMPORT = """
import builtins
real = builtins.__import__
def slow(name, *rest):
    if name == "typer":
        print("ready", file=sys.stderr, flush=True)
        try:
            time.sleep(30)
        except BaseException as error:
            raise ImportError("it turned into this") from error
    return real(name, *rest)
builtins.__import__ = slow
"""

IN_A_FINALISER = """
from ckptsel.cli import inspect
class Held:
    def __del__(self):
        print("ready", file=sys.stderr, flush=True)
        time.sleep(30)
def waiting(options):
    held = Held()
    del held
    time.sleep(30)
inspect._run = waiting
"""


def stopped(setting: str, *signals: int) -> tuple[int, str]:
    """(exit code, stderr) of a process that gets signals when it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", MARKED.format(setting=setting)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for number in signals:
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
    _, err = process.communicate(timeout=20)
    return process.returncode, err


@pytest.mark.parametrize(
    "setting",
    [IN_A_COMMAND.format(at_the_end="pass"), IN_AN_IMPORT, IN_A_FINALISER],
    ids=["command", "import", "finaliser"],
)
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, EXIT_TERMINATED, "terminated")],
)
def test_a_signal_ends_in_a_sentence(setting: str, number: int, code: int, word: str) -> None:
    sentence = f"{word}: what was finished is kept; the same command goes on from there.\n"
    assert stopped(setting, number) == (code, sentence)


def test_a_second_signal_ends_at_once() -> None:
    waiting = 'print("ready", file=sys.stderr, flush=True); time.sleep(30)'
    code, err = stopped(IN_A_COMMAND.format(at_the_end=waiting), signal.SIGINT, signal.SIGINT)
    assert (code, err) == (-signal.SIGINT, "")


def test_a_signal_that_is_ignored_stays_ignored(folder) -> None:
    """As under nohup, and for what a script starts with &."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + IN_A_COMMAND.format(
        at_the_end="pass"
    ).replace("time.sleep(30)", "time.sleep(0.3)")
    assert stopped(code, signal.SIGINT) == (0, "")


FORKING = """
import os, signal
from ckptsel.cli import inspect
def forking(options):
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    ended = os.waitpid(child, 0)[1]
    print("ready" if ended == signal.SIGTERM else ended, file=sys.stderr, flush=True)
    time.sleep(30)
inspect._run = forking
"""


def test_a_forked_worker_says_nothing() -> None:
    code, err = stopped(FORKING, signal.SIGTERM)
    assert code == EXIT_TERMINATED and err.count("\n") == 1


def test_an_interrupt_at_the_very_start() -> None:
    """While typer and all else is imported; the interpreter's own start is not ours to guard."""
    process = subprocess.Popen(
        [sys.executable, "-v", "-m", "ckptsel", "--help"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "cli/commands" in line:  # the first that is imported by `main`
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted: what was finished" in err and "Traceback" not in err
