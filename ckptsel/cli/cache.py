"""`ckptsel cache`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ckptsel.cli.command import command
from ckptsel.common.outlets import shown
from ckptsel.common.streams import put
from ckptsel.settings.kinds import Age, FormatOption, Size
from ckptsel.settings.option import Argument, Given, Option, OptionError, Options


@dataclass(frozen=True)
class CacheOptions(Options):
    """The options of `ckptsel cache`."""

    action: Annotated[Literal["info", "prune", "clear"], Argument("info, prune or clear.")]
    older_than: Annotated[
        Age | None, Option("For prune: what was not used for so long, as in 30d or 12h.")
    ] = None
    max_size: Annotated[
        Size | None,
        Option("For prune: then what was used longest ago, until so much is left, as in 5GiB."),
    ] = None
    cache_dir: Annotated[Path | None, Option("Its folder.", default="the user's cache")] = None
    format: FormatOption = "table"

    def check_together(self) -> None:
        for name in ("older_than", "max_size"):
            if self.action != "prune" and getattr(self, name) is not None:
                raise OptionError(f"{{0}} is for prune, not for {self.action}.", name)


@command(CacheOptions)
def cache(given: Given) -> None:
    """Show what the cache holds (info), remove what was not used of late (prune), or all (clear).

    Without options prune removes what killed processes left behind. All are safe while others run.

    Example: ckptsel cache prune --older-than 30d --max-size 5GiB
    """
    _run(given.make(CacheOptions))


def _run(options: CacheOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.common import cache_files
    from ckptsel.common.quantities import bytes_of, seconds_of, size_text
    from ckptsel.errors import InputError

    folder = options.cache_dir or cache_files.default_cache_folder()
    if folder is None:
        raise InputError("this user has no home folder, and so no cache. Name one: --cache-dir.")
    if options.action == "info":
        from ckptsel.report.kept import cache_text

        put(cache_text(folder, options.format))
        return
    if options.action == "clear":
        gone = cache_files.clear(folder)
    else:
        size, age = options.max_size, options.older_than
        gone = cache_files.prune(
            folder,
            None if size is None else bytes_of(size),
            None if age is None else seconds_of(age),
        )
    n_bytes = sum(entry.n_bytes for entry in gone)
    what = "entry" if len(gone) == 1 else "entries"
    put(f"{len(gone)} {what} removed from {shown(str(folder))}, {size_text(n_bytes)}.\n")
