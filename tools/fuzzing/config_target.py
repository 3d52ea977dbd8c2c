"""Configuration files, read and made into options."""

import random
import re
from pathlib import Path

from ckptsel.settings.policy import GateFiles, Policy
from ckptsel.settings.rank import RankFiles, RankInputs, RankSettings
from ckptsel.settings.toml import find_config, read_config
from tools.fuzzing.mutate import mutate_bytes
from tools.fuzzing.targets import Target

WHOLE = """\
checkpoints = "ckpts"
data = "images"
model = "resnet18"
image-size = 64
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 1]
holdout = 0.2
scores = "logme, linear_probe"
seed = 1
device = "cuda:1"
workers = 0
cache = false
read-memory = "2GiB"
out = "out"
[gate]
current = "a"
max-regret = 0
min-accuracy = 0.9
strict = true
junit = "junit.xml"
"""

ODD = (
    *(
        "nan",
        "inf",
        "-1",
        "1e400",
        "9" * 5000,
        "true",
        '""',
        '" "',
        "[]",
        "{}",
        "[[1]]",
        '"\\u0000"',
    ),
    *("2020-01-01", "10:00:00", '"{0}"', "[1, 'a']", "0x10", "'x'", '"""a\nb"""', "{a = {b = 1}}"),
    "[" * 2000,
)


def make() -> Target:
    seeds = {"ckptsel.toml": WHOLE.encode(), "pyproject.toml": _project().encode()}
    return Target(seeds, read, mutate_toml)


def read(where: Path, name: str) -> object:
    found = find_config(where)
    if found is None:
        return None
    config = read_config(found)
    for cls in (RankInputs, RankSettings, RankFiles):
        config.rank.make(cls)
    for other in (Policy, GateFiles):
        config.gate.make(other)
    return config


def mutate_toml(data: bytes, r: random.Random) -> bytes:
    """Values and names replaced by odd ones; or bytes."""
    if r.random() < 0.4:
        return mutate_bytes(data, r)
    lines = data.decode().split("\n")
    for _ in range(r.randint(1, 3)):
        i = r.randrange(len(lines))
        name, _, value = lines[i].partition("=")
        kind = r.randrange(5)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines[i] = f"{r.choice(['x', 'gate', name.upper(), name + '.a', '[gate]'])} = {value}"
        elif kind == 2:
            lines.insert(r.randrange(len(lines) + 1), lines[i])
        else:
            lines[i] = f"{name} = {r.choice(ODD)}"
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _project() -> str:
    return "[tool.ckptsel]\n" + re.sub(r"\[gate\]", "[tool.ckptsel.gate]", WHOLE)
