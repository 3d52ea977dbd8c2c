"""`ckptsel confirm`."""

from pathlib import Path

from ckptsel.cli.checks import check_devices, print_notes, say_own_code
from ckptsel.cli.command import command
from ckptsel.cli.ending import draw
from ckptsel.cli.tracking import check_trackers, track
from ckptsel.common.streams import put
from ckptsel.settings.confirm import ConfirmCall, ConfirmInput, ConfirmSettings
from ckptsel.settings.effect import idle_in_confirm
from ckptsel.settings.option import Given


@command(ConfirmInput, ConfirmSettings, ConfirmCall)
def confirm(given: Given) -> None:
    """Train the best candidates of a ranking for real, and reorder it by what came out.

    Example: ckptsel confirm ranking/ --goal both
    """
    run, call = given.make(ConfirmInput).run, given.make(ConfirmCall)
    settings = given.make(ConfirmSettings)
    check_devices(settings, given)
    check_trackers(call.log_to, run)
    say_own_code(settings.model, given)
    print_notes(idle_in_confirm(given, _goals(run, settings, given)))
    _run(run, settings, call)


def _goals(run: Path, settings: ConfirmSettings, given: Given) -> tuple[str, ...]:
    """What is trained for; the ranking is asked only where a note depends on it."""
    if settings.goal is not None:
        return ("fe", "ft") if settings.goal == "both" else (settings.goal,)
    if not {"augment", "ema"} & set(given.values):
        return ()

    from ckptsel.results.files import read_ranking

    return (read_ranking(run)[0].goal,)


def _run(run: Path, settings: ConfirmSettings, call: ConfirmCall) -> None:
    """Everything that computes and writes."""
    from ckptsel.confirmation.confirm import confirm as confirm_run
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import read_ranking

    ranking = confirm_run(run, settings, call.quiet)
    draw(run, ranking, read_ranking(run)[1])
    track(call.log_to, run)
    put(format_ranking(ranking, call.format))
