"""kill -9 at random moments, and again on resume: the numbers at the end are those of a run in peace.

    python -m tools.faults --what rank -n 200 --log build/faults/rank.json

Each trial is a process forked from this one, so that it need not import; it is killed once in nine
parts of ten of a whole run's time, in two trials of three again while it goes on, and then left in
peace. It goes on where it was stopped.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from ckptsel.checkpoints import guard
from ckptsel.reproduce.registry import find_recipe
from ckptsel.reproduce.run import run_recipe
from ckptsel.settings.engine import Where
from tools.made import confirm_made, make_inputs, rank_made

PASSING = ("created", "time_s", "environment", "ranking_created", "files")
"""What may differ between two runs: when, how long, where."""

Trial = Callable[[Path], None]
"""Does the work in a folder, going on from what is there."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=["rank", "confirm", "reproduce"], required=True)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument(
        "--data-root", type=Path, help="for reproduce: cifar10/ and mnist/ below it"
    )
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = json.loads(arguments.log.read_text()) if arguments.log.is_file() else []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        start, work = prepare(arguments.what, base, arguments.data_root)
        times = []
        for n in range(3):  # the first is slow: files are not in the system's cache yet
            peace = base / f"peace-{n}"
            start(peace)
            first = time.monotonic()
            _wait(_fork(work, peace))
            times.append(time.monotonic() - first)
        whole_s, expected = min(times), numbers(peace)
        for i in range(len(state), arguments.n):
            state.append(try_once(i, base, start, work, whole_s, expected))
            if state[-1]["problem"]:
                print(f"trial {i}: {state[-1]}", flush=True)
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            arguments.log.write_text(json.dumps(state))
    n_killed = sum(trial["n_killed"] for trial in state)
    n_wrong = sum(trial["problem"] is not None for trial in state)
    print(
        f"{arguments.what}: {len(state)} trials, {n_killed} kills, {n_wrong} that ended otherwise"
    )


def prepare(what: str, base: Path, data_root: Path | None) -> tuple[Trial, Trial]:
    """(makes the folder of a trial, does its work)."""
    if what == "reproduce":
        recipe = find_recipe("cifar10-mnist", "smoke")

        def reproduce(folder: Path) -> None:
            os.environ["CKPTSEL_CACHE"] = str(folder / "cache")
            assert data_root is not None
            run_recipe(recipe, folder / "run", data_root, range(1), Where("cpu"), quiet=True)

        return lambda folder: folder.mkdir(), reproduce
    make_inputs(base)
    if what == "rank":
        return lambda folder: folder.mkdir(), lambda f: rank_made(base, f / "run", f / "cache")
    rank_made(base, base / "ranked", base / "cache")

    def start(folder: Path) -> None:
        folder.mkdir()
        shutil.copytree(base / "ranked", folder / "run")

    return start, lambda f: confirm_made(f / "run", f / "cache")


def try_once(
    i: int, base: Path, start: Trial, work: Trial, whole_s: float, expected: Any
) -> dict[str, Any]:
    """One trial; `problem` says how it ended otherwise than in peace."""
    r = random.Random(i)
    folder = base / f"trial-{i}"
    start(folder)
    n_killed = 0
    for _ in range(r.choice([1, 2, 2])):
        pid = _fork(work, folder)
        time.sleep(0.9 * whole_s * r.random())
        os.kill(pid, signal.SIGKILL)
        n_killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    problem = None
    if _wait(_fork(work, folder)) != 0:
        problem = "did not go on"
    elif numbers(folder) != expected:
        problem = "other numbers"
    shutil.rmtree(folder)
    return {"n_killed": n_killed, "problem": problem}


def numbers(folder: Path) -> dict[str, Any]:
    """Everything that a run wrote, without what may differ."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "run").rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("ranking.json", "confirm.json"):
            found[name] = _without(json.loads(path.read_text()), str(folder))
        elif path.suffix == ".safetensors":
            found[name] = {k: v.tobytes() for k, v in load_file(path).items()}
        elif path.suffix == ".csv":
            rows = csv.DictReader(path.read_text().replace(str(folder), "").splitlines())
            found[name] = [{k: v for k, v in row.items() if k not in PASSING} for row in rows]
    return found


def _without(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, folder) for k, v in value.items() if k not in PASSING}
    if isinstance(value, list):
        return [_without(each, folder) for each in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def _fork(work: Trial, folder: Path) -> int:
    guard.close()  # a child of this process is none of the fork's
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
