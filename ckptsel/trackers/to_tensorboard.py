"""A ranking as TensorBoard's event files."""

import shutil
from pathlib import Path

from ckptsel.common.event_files import open_events
from ckptsel.common.outlets import markdown
from ckptsel.trackers.entry import PREFIX, Entry


def log(entry: Entry, folder: Path) -> str:
    """Write event files into `tensorboard/ranking` below the folder, in place of those that were
    there; gives where. Steps are those of the entry's axis.

    The ends of an interval are curves of their own. TensorBoard keeps no files: the sentence and the
    tags are texts.
    """
    own = folder / "tensorboard" / "ranking"
    shutil.rmtree(own, ignore_errors=True)
    with open_events(own) as writer:
        for step, metrics in entry.points:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
        writer.add_text(f"{PREFIX}/ranking", markdown(entry.sentence))
        writer.add_text(f"{PREFIX}/best", markdown(entry.best or "none is recommended"))
        for name, fact in entry.facts.items():
            writer.add_text(f"{PREFIX}/{name}", markdown(fact))
    return str(own)
