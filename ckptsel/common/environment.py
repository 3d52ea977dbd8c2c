"""What a result was computed with: versions, hardware, time. Recorded beside every number."""

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("ckptsel", "torch", "torchvision", "timm", "numpy", "scipy")


def describe_environment(device: str) -> dict[str, Any]:
    """Versions of Python and the packages that numbers depend on, and the hardware."""
    import torch

    environment: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "device": device,
        "cpu": _cpu_name(),
        "n_cpus": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        environment["gpu"] = torch.cuda.get_device_name(device)
        environment["cuda"] = torch.version.cuda
    return environment


def package_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed (a bare checkout)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def utc_now() -> str:
    """The present time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
