"""Commands of the user's that are run when the best changes. None can fail the watch."""

import shlex
import shutil
import subprocess

from ckptsel.errors import UsageError

PLACE = "{path}"
LIMIT_S = 600.0


def check_command(option: str, command: str) -> None:
    """Raises UsageError for a command that cannot be parted into words, or whose program is not there:
    the best may come in hours."""
    try:
        program, *_ = shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"{option} is {command!r}; it cannot be parted into words: {error}."
        ) from error
    if shutil.which(program) is None:
        raise UsageError(f"{option} is {command!r}; there is no program {program!r}.")


def run_command(command: str, path: str, limit_s: float = LIMIT_S) -> str | None:
    """Run a command with a checkpoint's path, without a shell; what went wrong, in a sentence.

    Its stdout goes to stderr: stdout holds the ranking alone.
    """
    words = shlex.split(command)
    if any(PLACE in word for word in words):
        words = [word.replace(PLACE, path) for word in words]
    else:
        words.append(path)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"{words[0]} was ended after {limit_s:.0f} s"
    except (OSError, ValueError) as error:  # not there; a name that no command line can hold
        return f"{words[0]} could not be run: {error}"
    return f"{words[0]} ended with exit code {done.returncode}" if done.returncode else None
