"""Trackers at the end of `rank` and `confirm`: what goes wrong there costs a warning, no result."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ckptsel.common.streams import say
from ckptsel.errors import UsageError

LIMIT_S = 180
"""A tracker that takes longer is given up."""

START = """import sys
sys.path[:], sys.argv = {path!r}, {arguments!r}
from ckptsel.cli import main
main()"""


def check_trackers(trackers: Sequence[str] | None, folder: Path | None) -> None:
    """Raises UsageError before the work for what could not be logged after it."""
    if not trackers:
        return
    if folder is None:
        raise UsageError("--log-to needs --out: what is logged is read from there.")

    from ckptsel.trackers.log import check_installed

    check_installed(trackers)


def track(trackers: Sequence[str] | None, folder: Path | None) -> None:
    """Log what lies in a folder, each tracker in a process of its own: it may hang, crash, or end the
    process that it runs in."""
    for tracker in trackers or ():
        said, problem = _log(["ckptsel", "log", str(folder), "--to", tracker])
        say(f"{tracker}: {said}" if problem is None else f"warning: {tracker}: {problem}")


def _log(arguments: list[str]) -> tuple[str, str | None]:
    """(what the command printed, what went wrong)."""
    code = START.format(path=[str(Path(p).absolute()) for p in sys.path], arguments=arguments)
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # its helpers can be ended with it
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            _end(process)
            return (
                "",
                f"no answer within {LIMIT_S:g} s. Log it again with: {shlex.join(arguments)}.",
            )
        except BaseException:
            _end(process)
            raise
    if process.returncode == 0:
        return out.strip(), None
    lines = [line for line in err.splitlines() if line.strip()]
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    ended = f"it ended with exit code {process.returncode}"
    return "", (found or lines[-1:] or [ended])[0]


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
