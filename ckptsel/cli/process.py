"""How a process begins and ends: its streams, its signals, its exit code.

Nothing heavy is imported here, so that an interrupt finds this in charge from the start on.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from ckptsel.common.places import as_urls
from ckptsel.common.streams import EXIT_READER_LEFT, ReaderLeft, open_streams, say, say_text
from ckptsel.errors import CkptselError

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
"""As a shell says it of a program that a signal ended: 128 + its number."""

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


SPINS = "10000"
"""How often a thread of libgomp (torch's, on Linux) looks for work before it sleeps; by itself it is
thirty times as often. Alone that is as fast; beside other programs a thread that spins takes the core
that the one it waits for needs (docs/performance.md)."""


class Stopped(BaseException):
    """A signal asked to stop. No KeyboardInterrupt: the interpreter and typer have ends of their own for
    those, with other exit codes."""


class _Stop:
    """The signal that asked to stop, 0 before it came; owner: the process that it asks."""

    number = 0
    owner = 0


def end_process(work: Callable[[], int]) -> NoReturn:
    """Do the work of a command line, and end with its exit code or that of what went wrong.

    Every end but a crash has at most one message, on stderr. Once it ends, a further signal ends the
    process at once.
    """
    try:
        _begin()
        code = work()
        sys.stdout.flush()
        _let_signals_end()
    except BaseException as error:
        _let_signals_end()
        code = _told(error)
    sys.exit(code)


def _begin() -> None:
    _Stop.number, _Stop.owner = 0, os.getpid()
    for number in WORDS:
        # What was started to ignore a signal (nohup, & in scripts) goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # in a thread: there the program around decides
                signal.signal(number, _stop)
    sys.unraisablehook = _unraisable
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    open_streams()


def _stop(number: int, frame: FrameType | None) -> None:
    _let_signals_end()
    if os.getpid() != _Stop.owner:  # a worker process that was forked has nothing to say
        signal.raise_signal(number)
    _Stop.number = number
    raise Stopped


def _let_signals_end() -> None:
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):
                signal.signal(number, signal.SIG_DFL)


def _unraisable(unraisable: Any) -> None:
    """An interrupt in a place that raises nothing (a finaliser) must not be lost."""
    if isinstance(unraisable.exc_value, Stopped):
        os._exit(_stopped())
    sys.__unraisablehook__(unraisable)


def _told(error: BaseException) -> int:
    """Says what ended the work; gives the exit code."""
    # An import may turn an interrupt into an error of its own: the signal says what it was.
    if isinstance(error, Stopped | KeyboardInterrupt) or _Stop.number:
        return _stopped()
    if isinstance(error, CkptselError):
        first, *more = map(as_urls, error.lines or ("",))
        say(f"error: {first}", *more)
        return error.exit_code
    if isinstance(error, ReaderLeft):
        return EXIT_READER_LEFT
    # The parser of options makes an exit of a pipe that broke somewhere else: that is a crash.
    if isinstance(error, SystemExit) and not isinstance(error.__context__, OSError):
        return _code_of_exit(error)
    return _crashed(error)


def _code_of_exit(error: SystemExit) -> int:
    """As Python reads it, of code that was called and ended the process itself."""
    if isinstance(error.code, str):
        say(error.code)
        return 1
    return error.code or 0


def _stopped() -> int:
    number = signal.Signals(_Stop.number or signal.SIGINT)
    say(f"{WORDS[number]}: what was finished is kept; the same command goes on from there.")
    return 128 + number


def _crashed(error: BaseException) -> int:
    import traceback

    say_text("".join(traceback.format_exception(error)))
    return 1
