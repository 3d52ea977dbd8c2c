"""What reading in guarded processes costs: the same files read in this process and in children, in turn.

    python -m tools.measure_guard [--files 20] [--repeats 5]

Made state dicts of resnet18 (45 MB each) in a temporary folder, and the shipped checkpoints.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from ckptsel.checkpoints import guard
from ckptsel.checkpoints.reading import inspect_checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.walk import find_checkpoint_files

SHIPPED = Path(__file__).parents[1] / "reference_runs" / "cifar10-mnist-small/seed0/checkpoints"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(arguments.files):
            model = timm.create_model("resnet18")
            torch.save({"state_dict": model.state_dict(), "epoch": i}, f"{temporary}/{i}.pth")
        measure("resnet18", Path(temporary), arguments.repeats)
    measure("shipped", SHIPPED, arguments.repeats)


def measure(name: str, folder: Path, n_repeats: int) -> None:
    paths = find_checkpoint_files(folder)

    def here() -> None:
        for path in paths:
            inspect_checkpoint(path, folder, "auto")

    def one_child() -> None:
        list(guard.inspect_all(paths, folder, "auto"))

    def started_anew() -> None:
        guard.close()
        scan_checkpoints(folder)

    most = guard.MAX_CHILDREN
    here()  # the files are in the system's cache from here on
    for label, way, n_children in (
        ("one child", one_child, 1),
        ("one child, started anew", started_anew, 1),
        ("as many as pay, started anew", started_anew, most),
    ):
        guard.MAX_CHILDREN = n_children
        ratios = [seconds(way) / seconds(here) for _ in range(n_repeats)]
        low, high = min(ratios), max(ratios)
        print(
            f"{name}, {len(paths)} files: {label}: {statistics.median(ratios):.2f} of reading here "
            f"({low:.2f} to {high:.2f}, n = {n_repeats}; {seconds(here):.2f} s here)"
        )
    guard.MAX_CHILDREN = most


def seconds(way: Callable[[], None]) -> float:
    start = time.monotonic()
    way()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
