"""For a training loop of one's own, and for timm's `train.py`.

with rank_beside("runs/now", data="my_images/"):
    train()
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptsel.common.outlets import shown
from ckptsel.common.streams import say

OUT_NAME, LOG_NAME = "ranking", "watch.log"
WAIT_S = 600.0
"""Seconds that the end of a training waits for the last round."""


class Beside:
    """A watch that goes on in another process. process: None where it could not be started.

    When this process ends, however that comes, the watch makes a last round and ends too.
    """

    def __init__(self, process: subprocess.Popen[bytes] | None, out: Path) -> None:
        self.process, self.out = process, out

    def end(self, wait_s: float = WAIT_S) -> None:
        """Ask for the last round, and wait for it so many seconds at most. Raises nothing."""
        process, self.process = self.process, None
        if process is None:
            return
        try:
            _ask_to_end(process)
            code = process.wait(wait_s) if wait_s else None
        except subprocess.TimeoutExpired:
            code = None
        except Exception as error:  # nothing of this may end a training
            say(f"ckptsel: warning: {type(error).__name__}: {error}")
            return
        self._say_how(code)

    def check(self) -> None:
        """Say it, once, where the watch has ended by itself: the images are not where they were said to
        be, perhaps. Raises nothing, and costs nothing."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            self.process = None
            self._say_how(code)

    def _say_how(self, code: int | None) -> None:
        """code: None while the last round goes on."""
        if code:
            say(f"ckptsel: the watch ended with exit code {code}: see {self.out / LOG_NAME}")
        else:
            going = " (its last round goes on)" if code is None else ""
            say(f"ckptsel: the ranking is in {shown(str(self.out))}{going}")

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(WAIT_S if kind is None else 0)


def rank_beside(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Beside:
    """Rank the checkpoints that a training writes into the folder `run`, each as soon as it is written.

    data: as for `ckptsel rank`. out: folder of the results, `run/ranking` by default; `watch.log` in it
    holds what the watch says. options: those of `ckptsel watch`, with underscores; the device is `cpu`
    where none is named, since the training needs the other. Of a distributed training only the process
    of rank 0 starts it. Raises nothing: what goes wrong is said on stderr.
    """
    folder = Path(run) / OUT_NAME if out is None else Path(out)
    if os.environ.get("RANK", "0") != "0":
        return Beside(None, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ckptsel", "watch", os.fspath(run), "--attached"]
        given = {"data": data, "out": folder, "device": "cpu", **options}
        with (folder / LOG_NAME).open("ab") as log:
            process = subprocess.Popen(
                [*command, *_words(given)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is the trainer's
            )
    except Exception as error:  # nothing of this may end a training
        say(f"ckptsel: warning: the watch was not started: {type(error).__name__}: {error}")
        return Beside(None, folder)
    say(f"ckptsel: ranks beside the training: {shown(str(folder))}/report.html")
    return Beside(process, folder)


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """By a word, since workers that were forked may hold the pipe open."""
    assert process.stdin is not None
    try:
        process.stdin.write(b"end\n")
        process.stdin.close()
    except BrokenPipeError:  # it has ended already
        pass


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """Options of the command line, by their names in Python."""
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            yield flag if value else flag.replace("--", "--no-", 1)
        elif isinstance(value, list | tuple):
            yield f"{flag}={','.join(map(str, value))}"
        elif value is not None:
            yield f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}"
