"""`ckptsel watch`."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ckptsel.cli.checks import (
    check_devices,
    print_notes,
    read_own_config,
    say_own_code,
    why_not_drawn,
)
from ckptsel.cli.command import command
from ckptsel.cli.tracking import check_trackers, track
from ckptsel.common.places import is_url, place_text
from ckptsel.common.streams import put, say
from ckptsel.errors import OutputError, UsageError
from ckptsel.settings.effect import idle_in_rank
from ckptsel.settings.option import Given
from ckptsel.settings.rank import RankFiles, RankInputs, RankSettings
from ckptsel.settings.targets import WantedTarget, wanted_targets
from ckptsel.settings.watch import WatchCall, WatchSettings

ENDED_FIRST = 1000
"""The most that Linux takes: such a process is ended before any other."""


@command(RankInputs, RankSettings, RankFiles, WatchSettings, WatchCall)
def watch(given: Given) -> None:
    """Rank the checkpoints of a run that is being trained, each as soon as it is written.

    Example: ckptsel watch ckpts/ --data my_images/ --out ranking/ --keep-best 3
    """
    call = given.make(WatchCall)
    config = read_own_config(given, call.quiet)
    targets = wanted_targets(given, config.rank, config.targets)
    if len(targets) > 1:
        raise UsageError(
            f"watch ranks for one target, and {len(targets)} are given: start one for each."
        )
    given = given.over(config.rank)
    files = given.make(RankFiles)
    settings = targets[0].settings if targets else given.make(RankSettings)
    checkpoints, data, out = _places(given.make(RankInputs), targets, files)
    if not settings.cache:
        raise UsageError(
            f"watch ranks all checkpoints again when one comes, and takes their scores from the cache: "
            f"leave out {given.name('cache')}."
        )
    if settings.average is not None:
        raise UsageError(
            "watch ranks checkpoints alone, since one that is deleted takes its averages with it: "
            f"leave out {given.name('average')}, and give it to ckptsel rank at the end."
        )
    if settings.budget is not None:
        raise UsageError(
            f"watch ranks each checkpoint as it comes: leave out {given.name('budget')}, which is for "
            "ckptsel rank."
        )
    if (reason := why_not_drawn()) is not None:
        raise OutputError(f"{reason}. Watch without.")
    check_devices(settings, given)
    print_notes(idle_in_rank(given))
    say_own_code(settings.model, given)
    check_trackers(files.log_to, out)
    _run((checkpoints, data, out), settings, given.make(WatchSettings), files, call.quiet)


def _places(
    inputs: RankInputs, targets: Sequence[WantedTarget], files: RankFiles
) -> tuple[Path, str, Path]:
    how = "ckptsel watch CHECKPOINTS --data DATA --out FOLDER"
    if inputs.checkpoints is None:
        raise UsageError(f"no checkpoints given: {how}.")
    if not targets:
        raise UsageError(f"no data given: {how}.")
    if files.out is None:
        raise UsageError(f"no folder for the results given: {how}.")
    for place in (inputs.checkpoints, files.out):
        if is_url(place):
            raise UsageError(
                f"watch reads and writes folders of this machine, and {place_text(place)} is an "
                "address: mount it, or give it to ckptsel rank."
            )
    return inputs.checkpoints, targets[0].data, files.out


def _run(
    places: tuple[Path, str, Path],
    settings: RankSettings,
    watching: WatchSettings,
    files: RankFiles,
    quiet: bool,
) -> None:
    """Everything that computes and writes. A terminal shows each ranking, all else the last alone."""
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.summary import summary
    from ckptsel.watching.ending import Ending
    from ckptsel.watching.watch import Job, Watch, news

    form = files.format
    is_live = form == "table" and not quiet and sys.stdout.isatty()
    before = ""

    def show(ranking: Any, new: Sequence[str]) -> None:
        nonlocal before
        text = format_ranking(ranking, form) if is_live else summary(ranking)
        if quiet or (text == before and not new):  # a round that tried a failure again, say
            return
        before = text
        if is_live:
            put(text + "\n")
        else:
            say(news(ranking, new))

    if watching.nice:
        step_back(watching.nice)
    job = Job(*places, settings, watching)
    ranking = Watch(job, Ending(watching.attached), quiet, show).run()
    track(files.log_to, job.out)
    if not is_live:
        put(format_ranking(ranking, form))


def step_back(n: int) -> None:
    """The trainer comes first: at the processor by `nice`; and where memory is short and Linux must end
    a process, it is this one."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(n)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(ENDED_FIRST))
