"""What is fuzzed: whole inputs, how they are broken, and the reader that gets them.

A reader may end in an error of this package, and in nothing else.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.fuzzing.mutate import mutate_bytes

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """seeds: whole inputs, by the name of the file that each is written to. read: what gets the folder
    in which the broken one lies, and its name."""

    seeds: dict[str, bytes]
    read: Callable[[Path, str], object]
    mutate: Mutate | dict[str, Mutate] = mutate_bytes
    is_limited: bool = False
    """Whether memory is limited meanwhile, as it is where this is read in earnest."""

    def broken(self, r: random.Random) -> tuple[str, bytes]:
        """(name, content) of a broken input."""
        name = r.choice(sorted(self.seeds))
        how = self.mutate if callable(self.mutate) else self.mutate[name]
        return name, how(self.seeds[name], r)


def make_targets() -> dict[str, Callable[[], Target]]:
    """Functions that make each target, by name: some take a while."""
    from tools.fuzzing import (
        cache_target,
        checkpoint_target,
        config_target,
        data_target,
        extractor_target,
        results_target,
    )

    return {
        "cache": cache_target.make,
        "checkpoints": checkpoint_target.make,
        "results": results_target.make,
        "config": config_target.make,
        "data": data_target.make,
        "extractor": extractor_target.make,
    }
