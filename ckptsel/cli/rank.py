"""`ckptsel rank`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ckptsel.cli.checks import check_devices, print_notes, read_own_config, say_own_code
from ckptsel.cli.command import command
from ckptsel.cli.ending import draw, draw_overall, end
from ckptsel.cli.tracking import check_trackers, track
from ckptsel.common.outlets import shown
from ckptsel.common.places import is_url
from ckptsel.common.streams import put
from ckptsel.errors import UsageError
from ckptsel.settings.confirm import ConfirmSettings, make_confirm_settings
from ckptsel.settings.effect import idle_in_evaluation, idle_in_rank
from ckptsel.settings.option import Given, OptionError
from ckptsel.settings.policy import GateFiles, Policy
from ckptsel.settings.rank import RankCall, RankFiles, RankInputs, RankSettings
from ckptsel.settings.targets import WantedTarget, check_for_several, wanted_targets
from ckptsel.settings.toml import Config

SHARED = (
    *("model", "data_root", "device", "precision", "workers", "cache_dir", "cache", "cache_size"),
    *("processes", "devices", "engine", "ray_address"),
    "seed",
)
"""Options of the ranking that its confirmation gets too."""


@dataclass(frozen=True)
class _Job:
    """All that one call asks for."""

    checkpoints: Path
    targets: tuple[WantedTarget, ...]
    confirm: ConfirmSettings | None
    policy: Policy | None
    junit: Path | None
    out: Path | None
    form: str
    log_to: tuple[str, ...] | None
    explain: bool
    quiet: bool

    @property
    def data(self) -> str:
        return self.targets[0].data

    @property
    def settings(self) -> RankSettings:
        """Of the first target; those of others differ in what they say of the data."""
        return self.targets[0].settings


@command(RankInputs, RankSettings, RankFiles, RankCall)
def rank(given: Given) -> None:
    """Rank checkpoints for a target.

    Example: ckptsel rank ckpts/ --data my_images/ --model resnet50 --out ranking/
    """
    call = given.make(RankCall)
    config = read_own_config(given, call.quiet)
    targets = wanted_targets(given, config.rank, config.targets)
    given = given.over(config.rank)
    job = _make_job(given, config, call, targets)
    check_devices(job.settings, given)
    check_trackers(job.log_to, job.out)
    print_notes(
        dict.fromkeys(note for t in targets for note in idle_in_rank(t.given, len(targets)))
    )
    say_own_code(job.settings.model, given)
    if len(targets) > 1:
        _run_for_each(job)
    elif call.shard is None:
        _deliver(job)
    else:
        _score_part(job, call.shard)


def _score_part(job: _Job, shard: str) -> None:
    from ckptsel.ranking.rank import score_part

    number, n = map(int, shard.split("/"))
    part = score_part(job.checkpoints, job.data, job.settings, (number, n), job.quiet)
    print_notes(f"{shown(name)} failed: {reason}" for name, reason in part.problems.items())
    n_scored = len(part.names) - len(part.problems)
    put(
        f"part {number} of {n}: the scores of {n_scored} of {len(part.names)} candidates are in "
        f"{shown(part.cache)}; once all parts are, the same command without --shard ranks them.\n"
    )


def _make_job(
    given: Given, config: Config, call: RankCall, targets: Sequence[WantedTarget]
) -> _Job:
    inputs, files = given.make(RankInputs), given.make(RankFiles)
    if inputs.checkpoints is None:
        raise UsageError("no checkpoints given: ckptsel rank CHECKPOINTS --data DATA.")
    if not targets:
        raise UsageError("no data given: ckptsel rank CHECKPOINTS --data DATA.")
    if len(targets) > 1:
        check_for_several(given, [target.name for target in targets])
    settings, data = targets[0].settings, targets[0].data
    confirm = None
    if call.confirm is not None:
        same = {name: getattr(settings, name) for name in SHARED}
        confirm = make_confirm_settings({"n_candidates": call.confirm, "data": data, **same})
    return _Job(
        checkpoints=inputs.checkpoints,
        targets=tuple(targets),
        confirm=confirm,
        policy=config.gate.make(Policy) if call.gate else None,
        junit=config.gate.make(GateFiles).junit,
        out=files.out,
        form=files.format,
        log_to=files.log_to,
        explain=call.explain,
        quiet=call.quiet,
    )


def _run_for_each(job: _Job) -> None:
    """As `_run`, for several targets: a folder each, and what they say together."""
    from ckptsel.ranking.overall import over_targets
    from ckptsel.ranking.rank import rank_for_each
    from ckptsel.report.overall import format_targets
    from ckptsel.results.files import check_room_for_targets, write_ranking
    from ckptsel.results.targets import write_targets

    if job.out is not None:
        if is_url(job.out):
            raise OptionError(
                "{0} may be an address for one target; for several it must be a folder here.", "out"
            )
        check_room_for_targets(job.out, [target.name for target in job.targets])
    wanted = [(target.data, target.settings) for target in job.targets]
    found = rank_for_each(job.checkpoints, wanted, job.quiet)
    for target, (ranking, _) in zip(job.targets, found, strict=True):
        print_notes(idle_in_evaluation(target.given, ranking.target["evaluation"]["method"]))
    ranked = {target.name: each for target, each in zip(job.targets, found, strict=True)}
    rankings = {name: ranking for name, (ranking, _) in ranked.items()}
    record = over_targets(rankings, job.settings.tolerance)
    if job.out is not None:
        for name, (ranking, predictions) in ranked.items():
            write_ranking(job.out / name, ranking, predictions)
        write_targets(job.out, record)
        draw_overall(job.out, record, ranked)
    put(format_targets(record, rankings, job.form, job.explain))


def _deliver(job: _Job) -> None:
    """Run it with a folder for the results, here or elsewhere."""
    from ckptsel.results.sending import open_outbox

    with open_outbox(job.out) as outbox:
        _run(replace(job, out=outbox.folder), outbox.send)


def _run(job: _Job, send: Callable[[], None]) -> None:
    """Everything that computes and writes."""
    from ckptsel.ranking.again import rank_again
    from ckptsel.results.files import is_written, read_ranking, with_confirmed, write_ranking

    if job.policy is not None and job.policy.baseline is not None:
        read_ranking(Path(job.policy.baseline))  # what is missing is said before the work
    ranking, predictions = rank_again(job.checkpoints, job.data, job.settings, job.quiet)
    given = job.targets[0].given
    print_notes(idle_in_evaluation(given, ranking.target["evaluation"]["method"]))
    is_new = job.out is None or not is_written(job.out, ranking, predictions)
    if job.out is not None and is_new:
        write_ranking(job.out, ranking, predictions)
    if job.confirm is not None:
        from ckptsel.confirmation.confirm import confirm_ranking, write_confirmation_of

        confirmation = confirm_ranking(ranking, job.confirm, job.quiet)
        ranking = confirmation.ranking
        predictions |= with_confirmed(confirmation.predictions())
        if job.out is not None:
            write_confirmation_of(job.out, confirmation)
    if job.out is not None:
        send()
        if is_new or job.confirm is not None:
            draw(job.out, ranking, predictions)
        track(job.log_to, job.out)
        send()
    end(ranking, predictions, job.policy, job.out, job.form, job.junit, explain=job.explain)
