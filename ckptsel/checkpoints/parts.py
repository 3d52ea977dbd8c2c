"""Files that hold a part of a network's weights, which cannot be used alone; with what to do."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptsel.checkpoints.tensors import SHARE
from ckptsel.errors import CheckpointError

ZERO = (
    "a shard of DeepSpeed ZeRO. Join them: in the folder that holds zero_to_fp32.py, run for t in "
    "global_step*; do python zero_to_fp32.py . joined/$t --tag $t; done, and give the folder joined."
)

PARALLEL = (
    "a part of a network that was trained in parallel parts (tensor or pipeline). Join them: Megatron's "
    "tools/checkpoint/convert.py with --target-tensor-parallel-size 1 and "
    "--target-pipeline-parallel-size 1."
)

SHARDS = (
    (re.compile(r"\.rank_\d+\.pth$"), f"it {SHARE}"),
    (re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt$"), ZERO),
)
"""Names of files that hold a part of a checkpoint, with what to do."""

RANK = re.compile(r"mp_rank_\d+(_\d+)?")
"""In the name of a file or folder of each parallel part, by Megatron and DeepSpeed."""

ADAPTED = re.compile(r"\.(lora_(A|B|embedding_A|embedding_B|magnitude_vector)|ia3_l)(\.|$)")

ADAPTERS = (
    "an adapter (LoRA and the like), which holds none of the network's own weights. Put it into the "
    "network with peft, and save that: model.merge_and_unload().save_pretrained(FOLDER)."
)


def check_whole(path: Path) -> None:
    """Raises CheckpointError where a file's name, or names beside it, say that it is a part."""
    for pattern, said in SHARDS:
        if pattern.search(path.name):
            raise CheckpointError(said)
    for part in (path, path.parent):
        if RANK.search(part.name):
            names = [RANK.sub("", each.name) for each in part.parent.iterdir()]
            if names.count(RANK.sub("", part.name)) > 1:
                raise CheckpointError(PARALLEL)


def check_own(tensors: Mapping[Any, Any]) -> None:
    """Raises CheckpointError where most is an adapter; its classifier may lie beside it."""
    n_adapters = sum(isinstance(n, str) and ADAPTED.search(n) is not None for n in tensors)
    if tensors and 2 * n_adapters >= len(tensors):
        raise CheckpointError(ADAPTERS)
