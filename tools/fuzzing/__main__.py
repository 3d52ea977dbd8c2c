"""Broken inputs for every reader: `python -m tools.fuzzing --target checkpoints -n 100000`.

A reader may end in an error of this package, within ten seconds. What ends otherwise is kept, with the
number of the input that made it, in build/fuzz/; the same seed gives the same inputs. It goes on where
it was stopped.
"""

import argparse
import collections
import contextlib
import json
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ckptsel.errors import CkptselError
from tools.fuzzing.targets import Target, make_targets

MOST_SECONDS = 10
"""Of the processor; ten times as many by the clock, since others may want the processor too."""

MEMORY = 512 << 20
"""What reading a small file may take besides what this process has, as the guarded process does."""


class TooLong(BaseException):
    """An input took too long. No reader may catch it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="all", help="a name, or all")
    parser.add_argument("-n", type=int, default=1000, help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    arguments = parser.parse_args()
    makers = make_targets()
    names = list(makers) if arguments.target == "all" else [arguments.target]
    for name in names:
        fuzz(name, makers[name](), arguments.n, arguments.seed, arguments.out)


def fuzz(name: str, target: Target, n: int, seed: int, out: Path) -> int:
    """Feeds `n` broken inputs; the number that ended otherwise than they may, which are kept below
    `out`, one file a place in the code."""
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"{name}-{seed}.json"
    state = (
        json.loads(log.read_text()) if log.is_file() else {"done": 0, "endings": {}, "slowest": 0}
    )
    endings = collections.Counter(state["endings"])
    limited = _limited_memory() if target.is_limited else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as temporary, limited:
        for i in range(state["done"], n):
            file, data = target.broken(random.Random(f"{seed} {i}"))
            start = time.process_time()
            ending = run(target, Path(temporary), file, data)
            state["slowest"] = max(state["slowest"], round(time.process_time() - start, 2))
            endings[ending] += 1
            if ending not in ("read", "refused") and endings[ending] == 1:
                place = "".join(c if c.isalnum() else "_" for c in ending)[:100]
                (out / f"{name}-{place}-{file}").write_bytes(data)
                print(f"{name} input {i}: {ending}", flush=True)
            if i % 1000 == 999 or i == n - 1:
                state |= {"done": i + 1, "endings": dict(endings)}
                log.write_text(json.dumps(state, indent=1))
    n_foreign = sum(count for end, count in endings.items() if end not in ("read", "refused"))
    print(
        f"{name}: {n:,} inputs: {endings['read']:,} read, {endings['refused']:,} refused, {n_foreign:,} "
        f"otherwise; slowest {state['slowest']} s"
    )
    return n_foreign


def run(target: Target, folder: Path, file: str, data: bytes) -> str:
    """How a reader ends: `read`, `refused`, or the type and place of what it may not end in."""
    path = folder / file
    path.write_bytes(data)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, _too_long)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.alarm(10 * MOST_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder, file)
        return "read"
    except CkptselError:
        return "refused"
    except TooLong:
        return f"more than {MOST_SECONDS} s"
    except BaseException as error:  # what is looked for
        own = [f for f in traceback.extract_tb(error.__traceback__) if "/ckptsel/" in f.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
        return f"{type(error).__name__} at {place}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        path.unlink(missing_ok=True)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """A pickle of a few bytes may ask for all that there is."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    lines = Path("/proc/self/status").read_text().splitlines()
    (used,) = (int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


if __name__ == "__main__":
    main()
