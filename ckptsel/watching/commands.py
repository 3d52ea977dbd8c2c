"""Commands of the user's that are run when the best changes. None can fail the watch."""

import shlex
import subprocess

from ckptsel.errors import UsageError

PLACE = "{path}"
LIMIT_S = 600.0


def words_of(command: str) -> list[str]:
    """The words of a command, as a shell would part them. Raises UsageError where it could not."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"the command {command!r} cannot be parted into words: {error}."
        ) from error


def run_command(command: str, path: str, limit_s: float = LIMIT_S) -> str | None:
    """Run a command with a checkpoint's path, without a shell; what went wrong, in a sentence.

    Its stdout goes to stderr: stdout holds the ranking alone.
    """
    words = words_of(command)
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
