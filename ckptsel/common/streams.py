"""What is written to stdout (results) and stderr (all else)."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckptsel.common.outlets import harmless, shown
from ckptsel.errors import OutputError

EXIT_READER_LEFT = 141
"""As a shell says it of a program that SIGPIPE ended: 128 + 13."""


class ReaderLeft(SystemExit):
    """Whoever read stdout wants no more (`| head`): the end, without a word."""

    def __init__(self) -> None:
        super().__init__(EXIT_READER_LEFT)


def put(text: str) -> None:
    """Write a result to stdout, at once. Names in it have gone through their own outlet."""
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def say(*lines: str) -> None:
    """Write lines to stderr; each stays one line. A stderr that cannot be written ends no work."""
    _tell("".join(harmless(f"{shown(line)}\n") for line in lines))


def say_text(text: str) -> None:
    """Write a text to stderr that has lines of its own, such as a traceback."""
    say(*text.rstrip("\n").split("\n"))


def tell_runner(line: str) -> None:
    """Write a line to stderr that a CI system is to obey (`ckptsel.common.outlets.annotation`)."""
    _tell(f"{line}\n")


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _lead_nowhere(2)
    except ValueError:  # it is closed
        return


class Stdout(io.TextIOWrapper):
    """stdout, whoever writes to it: what its encoding does not have is written visibly, and what goes
    wrong is ReaderLeft or OutputError."""

    def write(self, text: str) -> int:
        if text == "":  # typer tries streams with it, and takes any error as an answer
            return 0
        with _named(self):
            return super().write(text)

    def flush(self) -> None:
        with _named(self):
            super().flush()


def open_streams() -> None:
    """Make stdout and stderr what the rest relies on. Raises OutputError where stdout is closed."""
    for number in (0, 1, 2):  # else the next file that is opened would get what is printed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:  # print would take None for stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the end
    if sys.stdout is None:
        raise OutputError(
            "stdout is closed, so that no result could be written. Send it to /dev/null where it is "
            "not wanted."
        )
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout)


def _guarded(stream: io.TextIOWrapper) -> Stdout:
    encoding, line_buffering, write_through = (
        stream.encoding,
        stream.line_buffering,
        stream.write_through,
    )
    return Stdout(
        stream.detach(),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=write_through,
    )


@contextmanager
def _named(stream: Stdout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _lead_nowhere(stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise ReaderLeft from None
        raise OutputError(
            f"the result cannot be written to stdout: {error.strerror or error}. What was written to "
            "files is kept."
        ) from None


def _lead_nowhere(number: int) -> None:
    """What a stream still holds goes nowhere: the interpreter's end would try again, and complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
