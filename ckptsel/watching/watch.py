"""`watch`: a ranking that grows while a run is being trained.

look -> is anything new, lost, or to be tried again? -> one round: read it, rank all, keep copies, write
        the results, run the user's commands -> wait -> look

Each round is a `rank` of all that was ever there: what was scored before comes from the cache. The
trainer's folder is only read.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ckptsel.common.outlets import shown
from ckptsel.common.streams import say
from ckptsel.errors import InputError, NothingToRank, OutputError, listed, reason_of, subject
from ckptsel.ranking.rank import check_names, rank_found
from ckptsel.report.page import draw_report
from ckptsel.results.files import check_writable, write_ranking
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.summary import summary
from ckptsel.settings.rank import RankSettings
from ckptsel.settings.watch import WatchSettings
from ckptsel.target.sources import open_source
from ckptsel.watching.arrivals import Arrivals, Look
from ckptsel.watching.commands import check_command, run_command
from ckptsel.watching.ending import Ending
from ckptsel.watching.keeping import KEPT_NAME, keep, kept_path
from ckptsel.watching.memory import read_memory
from ckptsel.watching.peak import Peak, find_peak
from ckptsel.watching.retries import Retries

RELOAD_S = 30
"""Seconds after which the report is loaded again, while the watch goes on."""


@dataclass(frozen=True)
class Job:
    """What is watched, and where the results go. settings: as for `rank`."""

    root: Path
    data: str
    out: Path
    settings: RankSettings
    watching: WatchSettings


class Watch:
    """Watches one run.

    show: gets each ranking, and names of what is new in it. now: a clock, in seconds.
    Raises UsageError for options, and whatever `rank` raises for the data, as soon as that is known.
    """

    def __init__(
        self,
        job: Job,
        ending: Ending,
        quiet: bool = True,
        show: Callable[[Ranking, Sequence[str]], None] = lambda ranking, new: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job, self.ending = job, ending
        self._quiet, self._show, self._now = quiet, show, now
        self.ranking: Ranking | None = None
        self._arrays: dict[str, NDArray[Any]] = {}
        self._error: Exception | None = None
        # Whether a checkpoint may fail is asked at the end: until then it may be tried again.
        self._settings = dataclasses.replace(job.settings, strict=False)
        for option, command in (
            ("--on-best", job.watching.on_best),
            ("--on-peak", job.watching.on_peak),
        ):
            if command is not None:
                check_command(option, command)
        settings = job.settings
        check_names(settings)
        data_root = Path(settings.data_root) if settings.data_root else None
        open_source(job.data, data_root, settings.image_column, settings.label_column)
        check_writable(job.out)
        self._memory = read_memory(job.root, job.out)
        self._arrivals = Arrivals(job.root, job.out)
        self._retries = Retries(job.watching.poll)
        self._last_news_s = now()

    def run(self) -> Ranking:
        """Watch until the end that the options set; the last ranking.

        Raises InputError where nothing could be ranked by then, or the last round failed.
        """
        self._say_what_is_missing()
        try:
            while True:
                is_last = self.ending.is_asked  # before the look: it sees what was there by then
                look = self.step()
                if self._is_enough(look) or (is_last and look.is_settled):
                    break
                self.ending.wait(self.job.watching.poll)
        finally:
            self._draw(is_going_on=False)
        return self._result()

    def step(self) -> Look:
        """One look, and a round where there is reason for one."""
        look, now_s = self._arrivals.look(), self._now()
        if look.is_news:
            self._last_news_s = now_s
        due = self._retries.due(now_s) & look.whole
        if self._memory.differs(look) or due or self._is_started_again(look):
            self._round(look, due)
        return look

    def _is_started_again(self, look: Look) -> bool:
        """Whether all is known from an earlier watch, and was not ranked by this one."""
        if self.ranking is not None or self._error is not None:
            return False
        known = self._memory.present.keys()
        return bool(look.whole & known or (self._memory.gone and not known))

    def _is_enough(self, look: Look) -> bool:
        watching = self.job.watching
        if watching.until is not None and self.ranking is not None:
            usable = [r for r in self.ranking.at_best_layer() if r.rank and r.copy_of is None]
            if len(usable) >= watching.until:
                return True
        if watching.stop_after is None or not look.is_settled or self._retries.is_waiting:
            return False
        return self._now() - self._last_news_s >= watching.stop_after

    def _result(self) -> Ranking:
        if self._error is not None:
            raise self._error
        if self.ranking is None:
            raise InputError(f"no checkpoint came below {self.job.root} while it was watched.")
        failed = [row.name for row in self.ranking if row.status == "failed"]
        if failed and self.job.settings.strict:
            raise InputError(
                f"{len(failed)} of {len(self.ranking)} checkpoints cannot be used, and --strict asks "
                f"for all of them: {listed(failed)}. The ranking of the others is in {self.job.out}."
            )
        return self.ranking

    def _round(self, look: Look, due: Collection[Path]) -> None:
        memory, fresh = self._memory, self._memory.fresh(look)
        memory.update(look, due, self._settings)
        if not memory.there() and not memory.gone:
            return
        failed: dict[Path, str] = {}
        try:
            self._rank()
        except Exception as error:  # a run of weeks must not end by a disk that was away
            if self.ranking is None and not isinstance(error, NothingToRank):
                raise
            self._error = error
            self._warn(error)
            failed = dict.fromkeys({*fresh, *due} or memory.present, "")
        else:
            failed = self._failures()
        self._retries.update(failed, {*fresh, *due}, fresh, self._now())
        self._say_failed(failed, {*fresh, *due})
        try:
            memory.write(self.job.out)
        except OutputError as error:  # the next round writes it again
            self._warn(error)

    def _rank(self) -> None:
        """Rank, and all that comes of it."""
        job, memory = self.job, self._memory
        is_first = self.ranking is None
        ranking, arrays = rank_found(
            memory.find,
            str(job.root),
            job.data,
            self._settings,
            quiet=self._quiet or not is_first,
            known=memory.known(),
        )
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what one round took is the trainer's again
        memory.learn(ranking)
        self._settings = dataclasses.replace(self._settings, weights=ranking.settings["weights"])
        self._keep(ranking)
        peak = find_peak(ranking, arrays, self._settings.seed)
        ranking = self._with_what_happened(ranking, peak)
        write_ranking(job.out, ranking, arrays, keep_page=True)
        before, self.ranking, self._arrays, self._error = self.ranking, ranking, arrays, None
        self._draw(is_going_on=True)
        self._show(ranking, _new_in(ranking, before))
        self._tell("best", job.watching.on_best, ranking.best)
        if peak is not None and peak.is_past:
            self._tell("peak", job.watching.on_peak, peak.best)

    def _keep(self, ranking: Ranking) -> None:
        n_kept = self.job.watching.keep_best
        if n_kept is None:
            return
        best = [r for r in ranking.at_best_layer() if r.rank and r.copy_of is None][:n_kept]
        sources = {
            seen.checkpoint.digest: (path, seen.state)
            for path, seen in self._memory.present.items()
            if seen.checkpoint is not None
        }
        wanted = {row.digest: sources.get(row.digest) for row in best if row.digest is not None}
        problems = keep(self.job.out / KEPT_NAME, wanted)
        self._say(f"warning: {problem}" for problem in problems)

    def _with_what_happened(self, ranking: Ranking, peak: Peak | None) -> Ranking:
        """The ranking with what only a watch knows: whose files are gone, and whether the best lies
        behind."""
        lost = self._memory.lost()
        rows = tuple(self._of_now(row) if row.digest in lost else row for row in ranking)
        notes = list(ranking.notes)
        names = [row.name for row in rows if row.digest in lost and row.rank]
        if names:
            notes.append(
                f"{subject(names)}: deleted or written over after it was ranked; the scores stay"
            )
        if peak is not None:
            notes.append(peak.text)
        return dataclasses.replace(ranking, checkpoints=rows, notes=tuple(notes))

    def _of_now(self, row: Row) -> Row:
        """A row whose file is gone: where a copy of it lies, or why it cannot be scored again."""
        kept = kept_path(self.job.out / KEPT_NAME, row.digest or "")
        if row.status == "failed":
            reason = (
                "its file is gone, and the cache does not hold its scores: it was ranked with other "
                "options or other data, or the cache was emptied"
            )
            return dataclasses.replace(row, reason=reason)
        return row if kept is None else dataclasses.replace(row, path=str(kept))

    def _failures(self) -> dict[Path, str]:
        """Reasons by path, of files that are there."""
        assert self.ranking is not None
        return {
            Path(row.path): row.reason or ""
            for row in self.ranking
            if row.status == "failed" and Path(row.path) in self._memory.present
        }

    def _tell(self, event: str, command: str | None, name: str) -> None:
        """Run a command of the user's, once for each checkpoint that it is to hear of."""
        assert self.ranking is not None
        row = self.ranking[name]
        if command is None or row.digest is None or self._memory.told.get(event) == row.digest:
            return
        self._memory.told[event] = row.digest
        if row.digest in self._memory.lost() and not Path(row.path).is_relative_to(self.job.out):
            problem: str | None = f"not run: the file of {row.name} is gone (--keep-best keeps it)"
        else:
            problem = run_command(command, str(Path(row.path).absolute()))
        if problem:
            self._say([f"warning: --on-{event}: {problem}"])

    def _draw(self, is_going_on: bool) -> None:
        if self.ranking is not None:
            reload_s = RELOAD_S if is_going_on else None
            problem = draw_report(self.job.out, self.ranking, self._arrays, reload_s)
            if problem:
                self._say([f"warning: {problem}"])

    def _say_what_is_missing(self) -> None:
        """So that who misspelled the folder does not wait for ever."""
        root, out, memory = self.job.root, self.job.out, self._memory
        if memory.present or memory.gone or Arrivals(root, out).look().states:
            return
        name = shown(str(root))
        what = f"no checkpoint lies below {name}" if root.exists() else f"{name} is not there"
        self._say([f"{what} yet: it is looked for every {self.job.watching.poll:g} s"])

    def _say_failed(self, failed: dict[Path, str], tried: Collection[Path]) -> None:
        for path in sorted(failed.keys() & set(tried)):
            reason = f" ({failed[path]})" if failed[path] else ""
            self._say([f"{path.name} failed{reason}: {self._retries.said_of(path, self._now())}"])

    def _warn(self, error: Exception) -> None:
        self._say(f"warning: {line}" for line in reason_of(error).split("\n"))

    def _say(self, lines: Collection[str] | Iterator[str]) -> None:
        if not self._quiet:
            say(*lines)


def _new_in(ranking: Ranking, before: Ranking | None) -> list[str]:
    """Names of what was ranked for the first time; of none in the first ranking."""
    if before is None:
        return []
    known = {row.digest for row in before}
    return [row.name for row in ranking if row.status == "ok" and row.digest not in known]


def news(ranking: Ranking, new: Sequence[str]) -> str:
    """A line for a log: where the new ones stand, and the summary."""
    places = [f"{name} is {ranking[name].rank}" for name in new]
    said = f"new: {listed(places, 3)} of {len(ranking)}; " if places else ""
    return said + summary(ranking)
