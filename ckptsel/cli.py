"""The command line: parses, calls, prints. Nothing else knows typer.

Results go to stdout, progress and messages to stderr. Heavy imports happen inside the commands, so
that help is instant.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ckptsel.errors import CkptselError, UsageError, did_you_mean

app = typer.Typer(
    name="ckptsel",
    help="Which checkpoint of a pre-training run to use on your data, how sure that is, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_INTERRUPTED = 130
FORMATS = ("table", "json", "csv", "md")
PICK_FORMATS = ("path", "json")

FormatOption = Annotated[
    str | None, typer.Option("--format", "-f", help="table, json, csv or md. [default: table]")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file of options. [default: ckptsel.toml, or [tool.ckptsel] of pyproject.toml]",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def main() -> None:
    """Run the command line."""
    app()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command of `app` whose expected errors end in one message and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except CkptselError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print(
                "interrupted: what was finished is kept; the same command goes on from there.",
                file=sys.stderr,
            )
            sys.exit(EXIT_INTERRUPTED)

    return app.command()(guarded)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ckptsel.common.environment import package_version

        print(package_version("ckptsel") or "unknown (not installed)")
        raise typer.Exit


@command
def rank(
    checkpoints: Annotated[
        Path | None, typer.Argument(help="Folder of the checkpoints of one run (or one file).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Labelled images: an image folder, a folder of parquet files, a CSV file of path "
            "and label, a timm dataset name (hfds/..., torch/..., wds/...), or a target of the paper "
            "(paper/flowers102, ...).",
        ),
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="fe (frozen features) or ft (fine-tuning). [default: fe]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="timm name, or package.module:function. [default: what the files record]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="auto (averaged or teacher weights where there are any), raw, ema, teacher, "
            "student, or the key in the file. [default: auto]"
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Pooling of the features, timm's global_pool (avg, token).")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side. [default: the model's own]")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Channel means, as in 0.5,0.5,0.5. [default: the model's]")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Channel deviations. [default: the model's own]")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Folder that relative data and timm datasets lie below.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of images or paths.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of labels.")] = None,
    train_split: Annotated[
        str | None, typer.Option(help="Split that is fitted on. [default: train]")
    ] = None,
    eval_split: Annotated[
        str | None,
        typer.Option(
            help="Split that is evaluated on. [default: validation where there is one, else "
            "cross-validation on the training split]"
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Evaluate on this part of the training split, held out once."),
    ] = None,
    max_train_samples: Annotated[
        int | None, typer.Option(help="At most this many training images, stratified.")
    ] = None,
    max_eval_samples: Annotated[
        int | None, typer.Option(help="At most this many evaluation images, stratified.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="Scores, separated by commas. [default: all built in]")
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="logistic (converged) or paper (50 epochs of Adam). [default: logistic]"),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Part of the singular values' sum that is main. [default: 0.8]"),
    ] = None,
    n_resamples: Annotated[
        int | None, typer.Option(help="Bootstrap resamples. [default: 2000]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of folds and resamples. [default: 0]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ... [default: cuda where there is one]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16. [default: bfloat16 on a GPU, else float32]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a batch. [default: found by itself]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode images. [default: all cores]")
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="Where features are kept. [default: the user's cache]")
    ] = None,
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Keep features. [default: cache]")
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", help="Exit 3 where any checkpoint cannot be used."),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(help="Train so many of the best for real, as `ckptsel confirm` does."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for ranking.json and the rest.")
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate", help="Hold the ranking against the policy of the configuration file."
        ),
    ] = False,
    format: FormatOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Rank checkpoints for a target.

    Example: ckptsel rank ckpts/ --data my_images/ --model resnet50 --out ranking/
    """
    options = _given(locals(), "config", "quiet", "gate")
    options = {**_read_config(config, quiet), **options}
    policy_options = options.pop("gate", {})
    junit = policy_options.pop("junit", None)
    for name in ("mean", "std"):
        if isinstance(options.get(name), str):
            options[name] = _numbers(options[name], name)
    if isinstance(options.get("scores"), str):
        options["scores"] = tuple(name.strip() for name in options["scores"].split(","))
    folder = options.pop("checkpoints", None)
    source = options.pop("data", None)
    form = _check_format(options.pop("format", "table"))
    out_folder = options.pop("out", None)
    n_confirm = options.pop("confirm", None)
    if folder is None:
        raise UsageError("no checkpoints given: ckptsel rank CHECKPOINTS --data DATA.")
    if source is None:
        raise UsageError("no data given: ckptsel rank CHECKPOINTS --data DATA.")

    from ckptsel.settings.options import make_confirm_settings, make_policy, make_settings

    settings = make_settings(options)
    policy = make_policy(policy_options) if gate else None
    confirm_settings = None
    if n_confirm is not None:
        shared = ("model", "device", "precision", "workers", "cache_dir", "cache", "seed")
        same = {name: getattr(settings, name) for name in shared}
        confirm_settings = make_confirm_settings({"n_candidates": n_confirm, **same})

    from ckptsel.confirmation.confirm import confirm_ranking
    from ckptsel.confirmation.confirm import write as write_confirmation
    from ckptsel.ranking.rank import rank_with_predictions
    from ckptsel.results.files import (
        check_writable,
        read_ranking,
        write_ranking,
    )

    if out_folder is not None:
        check_writable(Path(out_folder))
    if policy is not None and policy.baseline is not None:
        read_ranking(Path(policy.baseline))  # what is missing is said before the work
    ranking, predictions = rank_with_predictions(folder, source, settings, quiet)
    if out_folder is not None:
        write_ranking(Path(out_folder), ranking, predictions)
    if confirm_settings is not None:
        confirmation = confirm_ranking(ranking, predictions, confirm_settings, quiet)
        ranking = confirmation.ranking
        if out_folder is not None:
            write_confirmation(Path(out_folder), confirmation)
    run = None if out_folder is None else Path(out_folder)
    if run is not None:
        _draw(run, ranking, predictions)
    _end(ranking, predictions, policy, run, form, junit)


@command
def gate(
    run: Annotated[Path, typer.Argument(help="Folder that `ckptsel rank --out` wrote.")],
    current: Annotated[
        str | None, typer.Option(help="The checkpoint in use, by its name or path.")
    ] = None,
    max_regret: Annotated[
        float | None,
        typer.Option(help="How far it may be behind the best, a fraction. [default: 0.01]"),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="What the best must reach, a fraction.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A stored ranking.json, or its folder.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="How far the best may be behind the baseline's. [default: 0.01]"),
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict/--no-strict", help="No checkpoint may have failed.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Hold a ranking against a policy: exit 0 for pass, 4 for fail, 5 for cannot tell.

    A policy can also lie below [gate] of the configuration file; options overrule it.

    Example: ckptsel gate ranking/ --min-accuracy 0.85
    """
    given = _given(locals(), "run", "junit", "format", "config")
    form = _check_format(format or "table")
    options = {**_read_config(config, quiet=False).get("gate", {}), **given}
    junit = junit or options.pop("junit", None)

    from ckptsel.settings.options import make_policy

    policy = make_policy(options)

    from ckptsel.results.files import read_ranking

    ranking, arrays = read_ranking(run)
    folder = run if run.is_dir() else run.parent
    _end(ranking, arrays, policy, folder, form, junit, show_ranking=False)


@command
def pick(
    run: Annotated[Path, typer.Argument(help="Folder that `ckptsel rank --out` wrote.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Write its backbone to this safetensors file.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Another than the best, by its name or path.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="package.module:function, where it was ranked with one."
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", "-f", help="path, or json: all that is known of it.")
    ] = "path",
) -> None:
    """Print the path of the best checkpoint, and with --to export its weights.

    Example: ckptsel pick ranking/ --to best.safetensors
    """
    if format not in PICK_FORMATS:
        raise UsageError(f"unknown format {format!r}; use one of {', '.join(PICK_FORMATS)}.")

    import dataclasses
    import json

    from ckptsel.export.backbone import export
    from ckptsel.results.files import read_ranking

    ranking, _ = read_ranking(run)
    row = ranking.find(checkpoint or ranking.best)
    if to is not None:
        export(ranking, row, to, model)
        print(f"{row.name} written to {to}", file=sys.stderr)
    if not ranking.recommended:
        print(f"warning: {ranking.doubts[0]}", file=sys.stderr)
    print(row.path if format == "path" else json.dumps(dataclasses.asdict(row), indent=2))


@command
def confirm(
    run: Annotated[Path, typer.Argument(help="Folder that `ckptsel rank --out` wrote.")],
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Train so many of the best. [default: the tie set, at least five, and the last]"
        ),
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="fe, ft or both. [default: the ranking's]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each candidate. [default: 3]")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Batches a run. [default: 1000 for fe, 480 for ft]")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="The same in passes over the training images.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="The paper's settings: paper-cifar, paper-natural, paper-cxr."),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Learning rates to choose from, separated by commas; one is simply taken. "
            "[default: 0.001,0.01,0.1,1]"
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch. [default: 64]")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="timm's name: momentum, sgd, adam, adamw. [default: momentum]"),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="cosine (once a rung) or step (by ten each third). [default: cosine]"),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Penalty on weights, not biases. [default: 0 for fe, 0.0001 for ft]"),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="For ft: flip, crop, resized_crop, separated by commas, or none. [default: crop up "
            "to 64 pixels a side, else resized_crop,flip]"
        ),
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="For ft: evaluate a moving average of this decay.")
    ] = None,
    full: Annotated[
        bool | None, typer.Option("--full", help="No race: train every candidate to the end.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="The race is over when nobody can be further ahead than this fraction. "
            "[default: 0.01]"
        ),
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard", help="Write learning curves as event files.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="package.module:function, where it was ranked with one."
        ),
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="Where the checkpoints are now. [default: as ranked]")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Where the data is now. [default: as ranked]")
    ] = None,
    data_root: Annotated[str | None, typer.Option(help="As for rank.")] = None,
    device: Annotated[str | None, typer.Option(help="As for rank.")] = None,
    precision: Annotated[str | None, typer.Option(help="As for rank.")] = None,
    workers: Annotated[int | None, typer.Option(help="As for rank.")] = None,
    cache_dir: Annotated[str | None, typer.Option(help="As for rank.")] = None,
    cache: Annotated[bool | None, typer.Option("--cache/--no-cache", help="As for rank.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed. [default: 0]")] = None,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train the best candidates of a ranking for real, and reorder it by what came out.

    Example: ckptsel confirm ranking/ --goal both
    """
    options = {k: v for k, v in locals().items() if k not in ("run", "format", "quiet")}
    options["n_candidates"], options["n_seeds"] = options.pop("candidates"), options.pop("seeds")
    if lr is not None:
        options["lr"] = _numbers(lr, "lr")
    if augment is not None:
        options["augment"] = tuple(name.strip() for name in augment.split(","))
    form = _check_format(format or "table")

    from ckptsel.settings.options import make_confirm_settings

    settings = make_confirm_settings(options)

    from ckptsel.confirmation.confirm import confirm as confirm_run
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import read_ranking

    ranking = confirm_run(run, settings, quiet)
    _draw(run, ranking, read_ranking(run)[1])
    sys.stdout.write(format_ranking(ranking, form))


@command
def report(
    run: Annotated[Path, typer.Argument(help="Folder that `ckptsel rank --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.html. [default: RUN]")
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(help="Also write every chart as a file: svg, png or pdf, in figures/."),
    ] = None,
) -> None:
    """Write the report of a ranking: one HTML page that holds all it shows; prints its path.

    Example: ckptsel report ranking/ --figures pdf
    """
    from ckptsel.report.charts import draw
    from ckptsel.report.page import check_figure_format, write_figures, write_page
    from ckptsel.results.files import read_ranking

    if figures is not None:
        check_figure_format(figures)
    ranking, arrays = read_ranking(run)
    folder = out or run
    print(write_page(folder, ranking, arrays))
    if figures is not None:
        for path in write_figures(folder / "figures", draw(ranking, arrays), figures):
            print(path)


@command
def inspect(
    checkpoints: Annotated[Path, typer.Argument(help="Folder of checkpoints, or one file.")],
    weights: Annotated[str, typer.Option(help="As for rank.")] = "auto",
    format: FormatOption = None,
) -> None:
    """Show what was found: format, epoch, source accuracy, weights, parameters, digest, problems.

    Example: ckptsel inspect ckpts/
    """
    form = _check_format(format or "table")

    from ckptsel.checkpoints.scan import scan_checkpoints, trajectory_notes
    from ckptsel.report.inspection import checkpoints_text

    found = scan_checkpoints(checkpoints, weights)
    sys.stdout.write(checkpoints_text(found, form))
    for note in trajectory_notes(found):
        print(f"note: {note}", file=sys.stderr)


@command
def reproduce(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see --list), or `verify`.")
    ] = None,
    run: Annotated[Path | None, typer.Argument(help="For `verify`: the run folder.")] = None,
    preset: Annotated[str, typer.Option(help="Size of the experiment.")] = "small",
    data_root: Annotated[
        Path, typer.Option(help="Folder that holds the data sets, such as cifar10/ and mnist/.")
    ] = Path("data"),
    targets: Annotated[
        str | None, typer.Option(help="Some of the recipe's targets, separated by commas.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder. [default: runs/RECIPE-PRESET]")
    ] = None,
    seed: Annotated[int, typer.Option(help="The first seed of the pre-training.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(help="Pre-training runs. [default: the recipe's]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda. [default: what is there]")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the recipes and exit.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Run one of the paper's experiments and set its claims beside ours; goes on where it was killed.

    `ckptsel reproduce verify RUN` checks a run folder: its files, its claims, its scores.

    Example: ckptsel reproduce cifar10-mnist --preset small --data-root data/
    """
    from ckptsel.reproduce.registry import find_recipe, list_recipes

    if list_:
        for known in list_recipes():
            print(f"{known.name} --preset {known.preset}: {known.about}")
        return
    if recipe is None:
        raise UsageError("no recipe given: ckptsel reproduce RECIPE; --list shows them.")
    if recipe == "verify":
        if run is None:
            raise UsageError("no run folder given: ckptsel reproduce verify RUN.")

        from ckptsel.reproduce.verify import verify

        for line in verify(run, quiet):
            print(line)
        return
    if run is not None:
        raise UsageError(f"unexpected argument {str(run)!r}: the run folder is given with --out.")
    if seeds is not None and seeds < 1:
        raise UsageError(f"seeds is {seeds}; it must be at least 1.")
    found = find_recipe(recipe, preset)

    from ckptsel.reproduce.run import choose_targets, claims_table, run_recipe

    if targets is not None:
        found = choose_targets(found, [name.strip() for name in targets.split(",")])
    folder = out or Path("runs") / f"{recipe}-{preset}"
    claims = run_recipe(
        found, folder, data_root, range(seed, seed + (seeds or found.n_seeds)), device, quiet
    )
    if claims is not None:
        sys.stdout.write(claims_table(claims))
        print(f"written to {folder}", file=sys.stderr)


def _draw(folder: Path, ranking: Any, arrays: Any) -> None:
    from ckptsel.report.page import draw_report

    problem = draw_report(folder, ranking, arrays)
    if problem is not None:
        print(f"warning: {problem}", file=sys.stderr)


def _end(
    ranking: Any,
    arrays: Any,
    policy: Any,
    run: Path | None,
    form: str,
    junit: Path | str | None,
    show_ranking: bool = True,
) -> None:
    """Print the ranking and the verdict, tell the CI system, and exit as the gate decides."""
    from ckptsel.gating.baseline import compare_with_stored
    from ckptsel.gating.gate import enforce, hold_against
    from ckptsel.gating.github import tell_actions
    from ckptsel.gating.junit import write_junit
    from ckptsel.gating.tables import format_verdict, with_verdict
    from ckptsel.report.tables import format_ranking
    from ckptsel.results.files import PAGE_NAME

    verdict = None
    if policy is not None:
        ahead = None
        if policy.baseline is not None:
            ahead = compare_with_stored(ranking, arrays, Path(policy.baseline))
        verdict = hold_against(ranking, policy, ahead)
        if junit is not None:
            write_junit(Path(junit), verdict)
    if show_ranking:
        sys.stdout.write(with_verdict(format_ranking(ranking, form), verdict, form))
    elif verdict is not None:
        sys.stdout.write(format_verdict(verdict, form))
    page = None if run is None else run / PAGE_NAME
    tell_actions(ranking, verdict, page if page is not None and page.is_file() else None)
    if verdict is not None:
        enforce(verdict)


def _read_config(path: Path | None, quiet: bool) -> dict[str, Any]:
    from ckptsel.settings.options import find_config, read_config

    found = path or find_config(Path.cwd())
    if found is None:
        return {}
    if path is None and not quiet:
        print(f"options from {found.name}", file=sys.stderr)
    return read_config(found)


def _given(arguments: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """The options of a command that were given."""
    return {k: v for k, v in arguments.items() if v is not None and k not in left_out}


def _check_format(form: str) -> str:
    if form not in FORMATS:
        raise UsageError(
            f"unknown format {form!r}; use one of {', '.join(FORMATS)}."
            + did_you_mean(form, FORMATS)
        )
    return form


def _numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--{name} {text!r} is not a list of numbers such as 0.5,0.5,0.5."
        ) from None
