"""The guarded process: reads what it is told to, and answers.

A request and a reply are each a line of JSON; after the reply to `load` follow the bytes of the tensors.
It writes no file, opens no connection, and imports neither torch nor timm.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from ckptsel.checkpoints.choosing import NotWeightsError, OptimizerError, UndecidedError
from ckptsel.checkpoints.reading import check_all, inspect_checkpoint, read_checkpoint
from ckptsel.checkpoints.walk import size_of
from ckptsel.errors import reason_of

AT_LEAST, TIMES_FILE = 512 << 20, 16
"""Memory that reading a file may take: this, and so many times its size. A file of a few bytes that
names the billionth place of a table would get all that there is."""


def main(memory: int) -> None:
    """Answers until stdin ends. memory: bytes that it may use beyond what it maps of files."""
    requests, replies = _take_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asker's
    for kind in ("RLIMIT_FSIZE", "RLIMIT_CORE"):
        _limit(kind, 0, 0)
    for line in requests:
        _answer(json.loads(line), replies, memory)
        replies.flush()


def _answer(request: dict[str, Any], replies: IO[bytes], memory: int) -> None:
    path, root = (Path(os.fsdecode(bytes(request[name]))) for name in ("path", "root"))
    _limit("RLIMIT_DATA", min(memory, AT_LEAST + TIMES_FILE * size_of(path)), memory)
    _limit_computing(request["seconds"])
    try:
        if request["do"] == "inspect":
            found = inspect_checkpoint(path, root, request["weights"])
            _reply(replies, {"found": _plain(found)})
        else:
            _, tensors = read_checkpoint(path, root, request["weights"])
            check_all(tensors)  # before the first is sent
            table = [[name, t.dtype, list(t.shape), t.n_bytes] for name, t in tensors.items()]
            _reply(replies, {"tensors": table})
            for tensor in tensors.values():
                replies.write(tensor.values().reshape(-1).view("u1").data)
    except MemoryError:
        _reply(replies, {"memory": True})
    except Exception as error:  # a damaged file can lead anywhere
        _reply(replies, {"problem": _valid(reason_of(error)), **_about(error)})


def _about(error: Exception) -> dict[str, Any]:
    """What the asker needs of an error besides its message."""
    if isinstance(error, UndecidedError):
        return {"choices": _valid(error.choices)}
    if isinstance(error, OptimizerError):
        return {"is_other": True, "is_optimizer": True}
    return {"is_other": True} if isinstance(error, NotWeightsError) else {}


def _plain(found: Any) -> dict[str, Any]:
    """A checkpoint's fields without those that the asker has."""
    known = ("name", "path", "root")
    return {k: _valid(v) for k, v in dataclasses.asdict(found).items() if k not in known}


def _valid(value: Any) -> Any:
    """Text without halves of characters, which no file of results could hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return [_valid(each) for each in value] if isinstance(value, tuple) else value


def _reply(replies: IO[bytes], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """stdin and stdout for this module alone: nothing that a library prints gets in between."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, replies


def _limit_computing(seconds: float) -> None:
    """From now on; SIGXCPU ends the process then. A limit that its user is under stays."""
    with contextlib.suppress(ImportError, AttributeError):  # not on Windows
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = math.ceil(time.process_time() + seconds)
        is_free = hard == resource.RLIM_INFINITY
        _limit("RLIMIT_CPU", soft if is_free else min(soft, hard), hard)


def _limit(kind: str, soft: int, hard: int) -> None:
    """Has no effect where the system has no such limit."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(getattr(resource, kind), (soft, hard))
