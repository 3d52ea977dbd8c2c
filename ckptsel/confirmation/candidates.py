"""Who is trained: candidates of a ranking, and their checkpoints where they are now."""

import dataclasses
from collections.abc import Mapping, Sequence

from ckptsel.checkpoints.averages import average_of
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.checkpoints.scan import scan_checkpoints
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common.remote import kept_path, local_path
from ckptsel.confirmation.learning_rate import spread
from ckptsel.errors import CheckpointError, InputError
from ckptsel.features.encoder import LAST
from ckptsel.features.store import Cache
from ckptsel.results.ranking import EPOCH, Ranking, Row
from ckptsel.settings.confirm import ConfirmSettings

MIN_CANDIDATES = 5
N_SPREAD = 8


def choose_candidates(ranking: Ranking, goal: str, n: int | None = None) -> list[Row]:
    """The best `n` by score, in the order of training.

    None takes the tie set, at least MIN_CANDIDATES, and the last checkpoint (at its last layer where
    that was read), which is what one would use without a ranking. Where the epoch decided, whose
    neighbours are much alike, and for `ft`, which no score was found to foretell, they are spread over
    the trajectory instead, by default N_SPREAD. Fine-tuning trains a checkpoint as a whole: for `ft` its
    row at the last layer stands for it; its best, where the last layer was not read.
    Raises InputError where that is fewer than two.
    """
    ranked = [row for row in ranking if row.score_rank is not None and row.copy_of is None]
    ranked.sort(key=lambda row: row.score_rank or 0)
    if goal == "ft":
        at_last = {row.checkpoint: row for row in ranked if row.layer == LAST}
        best: dict[str, Row] = {}
        for row in ranked:
            best.setdefault(row.checkpoint, at_last.get(row.checkpoint, row))
        ranked = list(best.values())
    if goal == "ft" or ranking.score == EPOCH:
        chosen = spread(sorted(ranked, key=lambda row: row.order), n or N_SPREAD)
    else:
        n_tied = sum(row.score_tie for row in ranked)
        chosen = ranked[: n or max(MIN_CANDIDATES, n_tied)]
    files = [row for row in ranked if not row.average_of] or ranked
    last = max(files, key=lambda row: (row.order, row.layer == LAST))
    if n is None and last not in chosen:
        chosen.append(last)
    if len(chosen) < 2:
        raise InputError(
            f"there are {len(chosen)} candidates ({', '.join(row.name for row in chosen)}); a race "
            "needs two. Ask for more with --candidates, or rank more checkpoints."
        )
    return sorted(chosen, key=lambda row: row.order)


def find_checkpoints(
    ranking: Ranking, rows: Sequence[Row], settings: ConfirmSettings, quiet: bool
) -> dict[str, Checkpoint]:
    """The candidates' checkpoints, by their names, in the order of training; averages of what files
    there hold. Raises CheckpointError where one has moved or changed."""
    if settings.checkpoints is not None:
        root = local_path(settings.checkpoints, settings.cache_dir, quiet, NOT_NEEDED)
    else:
        root = kept_path(ranking.settings["checkpoints"], settings.cache_dir)
    if not root.exists():
        raise CheckpointError(
            f"the ranking's checkpoints are no longer at {root}. Name where they are now with "
            "--checkpoints."
        )
    cache = Cache.open(settings.cache is not False, settings.cache_dir, settings.cache_size)
    scanned = scan_checkpoints(root, ranking.settings["weights"], quiet=quiet, cache=cache)
    found = {c.name: c for c in scanned}
    rows = sorted(rows, key=lambda row: row.order)
    wanted = dict(file for row in rows for file in _files_of(row))
    problems = []
    for name, ranked in wanted.items():
        if name not in found:
            problems.append(f"  {name}: not there any more")
        elif found[name].digest != ranked:
            digest = found[name].digest
            problems.append(
                f"  {name}: has changed (digest {(digest or 'none')[:12]}, ranked "
                f"{(ranked or 'none')[:12]})"
            )
    if problems:
        raise CheckpointError(
            f"{len(problems)} of {len(wanted)} checkpoints are not what was ranked, in {root}:",
            *problems,
            "Rank again, or name where they are now with --checkpoints.",
        )
    return {row.checkpoint: _found_of(row, found) for row in rows}


def _files_of(row: Row) -> list[tuple[str, str | None]]:
    """(name, digest) of each checkpoint that a candidate is made of."""
    if row.average_of:
        return [(part.name, part.digest) for part in row.average_of]
    return [(row.checkpoint, row.digest)]


def _found_of(row: Row, found: Mapping[str, Checkpoint]) -> Checkpoint:
    """A candidate's checkpoint, of those that were found."""
    if not row.average_of:
        return found[row.checkpoint]
    average = average_of([found[part.name] for part in row.average_of])
    return dataclasses.replace(average, name=row.checkpoint)
