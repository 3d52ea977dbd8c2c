"""Many checkpoints, and many images: memory, files and progress of a whole `ckptsel rank`.

    python -m tools.load --what checkpoints --log build/load/checkpoints.json
    python -m tools.load --what images --log build/load/images.json

`checkpoints`: 2,000 of a tiny network, 2,000 images of 32 pixels. `images`: 3 checkpoints, 100,000
images of 224 pixels. Inputs are made in a temporary folder. Linux alone: memory is read from /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

MODEL = "test_convnext"
"""Of timm's: 0.2 M parameters, 64 features."""

N_CLASSES = 4

MIB = 2**20


@dataclass
class Watched:
    """What was seen of a run.

    seconds: how long it took.
    memory: MiB of all its processes, shared pages counted once, every second; without pages of files
    that are mapped, which the system drops where it needs the room.
    mapped: MiB of mapped files, at most.
    longest_silence: seconds between two lines of progress, at most.
    n_lines: lines of progress.
    cache_mib: what it keeps.
    cache_files: in how many files.
    """

    seconds: float = 0.0
    memory: list[float] = field(default_factory=list)
    mapped: float = 0.0
    longest_silence: float = 0.0
    n_lines: int = 0
    cache_mib: float = 0.0
    cache_files: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=["checkpoints", "images"], required=True)
    parser.add_argument("--checkpoints", type=int, help="how many")
    parser.add_argument("--images", type=int, help="how many")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    usual = {"checkpoints": (2_000, 2_000, 32), "images": (3, 100_000, 224)}[arguments.what]
    n_checkpoints = arguments.checkpoints or usual[0]
    n_images = arguments.images or usual[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_checkpoints(folder / "ckpts", n_checkpoints)
        make_images(folder / "images", n_images, usual[2])
        seen = watch(
            [
                *(sys.executable, "-m", "ckptsel", "rank", str(folder / "ckpts")),
                *("--data", str(folder / "images"), "--image-size", str(usual[2])),
                *("--out", str(folder / "out"), "--cache-dir", str(folder / "cache")),
                *("--scores", "linear_probe,logme"),
            ],
            folder / "cache",
        )
        ranking = json.loads((folder / "out" / "ranking.json").read_text())
    states = [row["status"] for row in ranking["checkpoints"]]
    assert states == ["ok"] * n_checkpoints, "not every checkpoint was ranked"
    about = {"checkpoints": n_checkpoints, "images": n_images, "pixels": usual[2], **asdict(seen)}
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    arguments.log.write_text(json.dumps(about))
    print(summary(n_checkpoints, n_images, seen))


def make_checkpoints(folder: Path, n: int) -> None:
    """Random weights, each a little further from the first."""
    folder.mkdir()
    torch.manual_seed(0)
    first = timm.create_model(MODEL, num_classes=N_CLASSES).state_dict()
    drift = {k: torch.randn(v.shape) * 0.02 for k, v in first.items()}
    for i in range(n):
        weights = {k: (v + i / n * drift[k]).half() for k, v in first.items()}
        about = {"state_dict": weights, "arch": MODEL, "epoch": i}
        torch.save(about, folder / f"checkpoint-{i:05d}.pth")


def make_images(folder: Path, n: int, pixels: int) -> None:
    """Half to fit, half held out; JPEG, each class of a colour and a pattern, with noise."""
    random = np.random.default_rng(0)
    colours = random.uniform(60, 200, (N_CLASSES, 1, 1, 3))
    for split in ("train", "val"):
        for label in range(N_CLASSES):
            (folder / split / f"c{label}").mkdir(parents=True)
    for i in range(n):
        label = i % N_CLASSES
        small = colours[label] + random.normal(0, 40, (8, 8, 3))
        image = Image.fromarray(small.clip(0, 255).astype(np.uint8)).resize((pixels, pixels))
        split = "train" if i % (2 * N_CLASSES) < N_CLASSES else "val"
        image.save(folder / split / f"c{label}" / f"{i:06d}.jpg", quality=90)


def watch(command: Sequence[str], cache: Path) -> Watched:
    """Run a command to its end, and look at it every second. Raises where it fails."""
    seen, start = Watched(), time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    reader = threading.Thread(target=listen, args=(process, seen))
    reader.start()
    while process.poll() is None:
        seen.memory.append(round(memory_of(process.pid, "Pss_Anon") / MIB, 1))
        seen.mapped = max(seen.mapped, round(memory_of(process.pid, "Pss_File") / MIB, 1))
        time.sleep(1)
    reader.join()
    if process.returncode != 0:
        raise RuntimeError(f"exit {process.returncode}")
    kept = [path for path in cache.rglob("*") if path.is_file()]
    seen.seconds = round(time.monotonic() - start, 1)
    seen.cache_files = len(kept)
    seen.cache_mib = round(sum(path.stat().st_size for path in kept) / MIB, 1)
    return seen


def listen(process: "subprocess.Popen[bytes]", seen: Watched) -> None:
    """Time the lines of progress, and pass them on."""
    assert process.stderr is not None
    last = time.monotonic()
    for line in process.stderr:
        now = time.monotonic()
        seen.longest_silence = round(max(seen.longest_silence, now - last), 1)
        seen.n_lines += 1
        last = now
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


def memory_of(session: int, kind: str) -> int:
    """Bytes of one kind that all processes of a session take, what they share counted once."""
    return sum(
        _proportional(pid, kind)
        for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        if _session(pid) == session
    )


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _proportional(pid: int, kind: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def summary(n_checkpoints: int, n_images: int, seen: Watched) -> str:
    """One line: the peak, and how much later memory is above earlier."""
    quarter = len(seen.memory) // 4
    middle = np.median
    second, last = seen.memory[quarter : 2 * quarter], seen.memory[3 * quarter :]
    return (
        f"{n_checkpoints:,} checkpoints x {n_images:,} images: {seen.seconds:.0f} s, at most "
        f"{max(seen.memory):.0f} MiB; {middle(second):.0f} in the second quarter, "
        f"{middle(last):.0f} in the last; {seen.mapped:.0f} MiB of mapped files; progress at least "
        f"every {seen.longest_silence:.0f} s ({seen.n_lines} lines); {seen.cache_files} files and "
        f"{seen.cache_mib:.0f} MiB kept"
    )


if __name__ == "__main__":
    main()
