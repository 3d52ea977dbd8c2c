"""`ckptsel demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ckptsel.cli.command import command
from ckptsel.cli.ending import draw
from ckptsel.common.streams import put, say
from ckptsel.settings.kinds import QuietOption
from ckptsel.settings.option import Given, Option, Options


@dataclass(frozen=True)
class DemoOptions(Options):
    """The options of `ckptsel demo`."""

    out: Annotated[
        Path | None,
        Option(
            "Keep checkpoints, images and ranking in this folder, to try other commands on.",
            ("--out", "-o"),
        ),
    ] = None
    quiet: QuietOption = False


@command(DemoOptions)
def demo(given: Given) -> None:
    """Rank three checkpoints on 1,300 images that lie in the package: shows what a ranking looks like,
    without any data of your own.

    Example: ckptsel demo
    """
    _run(given.make(DemoOptions))


def _run(options: DemoOptions) -> None:
    """Everything that computes and writes."""
    import tempfile

    if options.out is not None:
        _rank(options.out, options)
        return
    with tempfile.TemporaryDirectory(prefix="ckptsel-demo-") as folder:
        _rank(Path(folder), options)


def _rank(folder: Path, options: DemoOptions) -> None:
    from ckptsel.demo.unpack import unpack
    from ckptsel.ranking.rank import rank_with_predictions
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import write_ranking

    checkpoints, images = unpack(folder)
    ranking, arrays = rank_with_predictions(checkpoints, str(images), quiet=options.quiet)
    put(format_ranking(ranking, "table"))
    if options.out is None:
        say("yours: ckptsel rank CHECKPOINTS --data IMAGES --out ranking/")
        return
    write_ranking(folder / "ranking", ranking, arrays)
    draw(folder / "ranking", ranking, arrays)
    say(
        f"the same: ckptsel rank {checkpoints} --data {images} --out {folder / 'ranking'}",
        f"see {folder / 'ranking' / 'report.html'}",
    )
