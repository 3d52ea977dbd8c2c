"""`ckptsel gate`."""

from pathlib import Path

from ckptsel.cli.checks import read_own_config
from ckptsel.cli.command import command
from ckptsel.cli.ending import end
from ckptsel.settings.option import Given
from ckptsel.settings.policy import GateCall, GateFiles, GateInput, Policy


@command(GateInput, Policy, GateFiles, GateCall)
def gate(given: Given) -> None:
    """Hold a ranking against a policy: exit 0 for pass, 4 for fail, 5 for cannot tell.

    A policy can also lie below [gate] of the configuration file; options overrule it.

    Example: ckptsel gate ranking/ --min-accuracy 0.85
    """
    call = given.make(GateCall)
    given = given.over(read_own_config(given, quiet=False).gate)
    _run(given.make(GateInput).run, given.make(Policy), call.format, given.make(GateFiles).junit)


def _run(run: Path, policy: Policy, form: str, junit: Path | None) -> None:
    """Everything that computes and writes."""
    from ckptsel.results.files import read_ranking

    ranking, arrays = read_ranking(run)
    folder = run if run.is_dir() else run.parent
    end(ranking, arrays, policy, folder, form, junit, show_ranking=False)
