"""A ranking in Weights & Biases."""

import os
from pathlib import Path

from ckptsel.trackers.entry import PREFIX, Entry

TIMEOUT_S = 30

LONGEST_TAG = 64
"""Letters; a longer tag is refused."""


def log(entry: Entry, folder: Path) -> str:
    """Log to the project and run that its own environment variables name (WANDB_PROJECT,
    WANDB_RUN_ID, WANDB_MODE); gives where. A run that is named is added to, else a new one is made.

    A run's own steps only ever grow, and those of a pre-training that is over are far beyond its epochs:
    so the points have a step metric of their own.
    """
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PREFIX),
        resume="allow",
        settings=wandb.Settings(init_timeout=TIMEOUT_S, silent=True, console="off"),
    )
    try:
        run.define_metric(entry.axis, hidden=True)
        names = {name for _, metrics in entry.points for name in metrics}
        for name in sorted(names):
            run.define_metric(name, step_metric=entry.axis)
        for step, metrics in entry.points:
            run.log({entry.axis: step, **metrics})
        facts = {"best": entry.best or "none is recommended", **entry.facts}
        facts["ranking"] = entry.sentence
        run.summary.update({f"{PREFIX}/{name}": text for name, text in facts.items()})
        if entry.best is not None:
            run.tags = (*(run.tags or ()), f"best:{entry.best}"[-LONGEST_TAG:])
        artifact = wandb.Artifact(f"{PREFIX}-{run.id}", type="ranking")
        for path in entry.files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    finally:
        run.finish()
    return str(Path(run.dir).parent) if run.offline else run.url
