"""`ckptsel reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from ckptsel.cli.checks import check_devices
from ckptsel.cli.command import command
from ckptsel.common.outlets import shown
from ckptsel.common.streams import put, say
from ckptsel.errors import UsageError
from ckptsel.settings.engine import Engine, RayAddressOption, Where, check_place
from ckptsel.settings.kinds import Count, DeviceName, QuietOption, Seed, Text
from ckptsel.settings.option import Argument, Given, Option, Options


@dataclass(frozen=True)
class ReproduceOptions(Options):
    """The options of `ckptsel reproduce`."""

    recipe: Annotated[Text | None, Argument("Name of a recipe (see --list), or `verify`.")] = None
    run: Annotated[Path | None, Argument("For `verify`: the run folder.")] = None
    preset: Annotated[Text, Option("Size of the experiment.")] = "small"
    data_root: Annotated[
        Path, Option("Folder that holds the data sets, such as cifar10/ and mnist/.")
    ] = Path("data")
    targets: Annotated[
        tuple[Text, ...] | None,
        MinLen(1),
        Option("Some of the recipe's targets, separated by commas."),
    ] = None
    out: Annotated[
        Path | None, Option("Run folder.", ("--out", "-o"), default="runs/RECIPE-PRESET")
    ] = None
    beside: Annotated[
        Path | None, Option("A finished run, whose verdicts are shown beside this one's.")
    ] = None
    seed: Annotated[Seed, Option("The first seed of the pre-training.")] = 0
    seeds: Annotated[Count | None, Option("Pre-training runs.", default="the recipe's")] = None
    device: Annotated[DeviceName | None, Option("cpu or cuda.", default="what is there")] = None
    processes: Annotated[
        Count,
        Option(
            "Processes that score and transfer checkpoints, side by side; they share the cores."
        ),
    ] = 1
    devices: Annotated[
        tuple[DeviceName, ...] | None,
        MinLen(1),
        Option("Devices that do so side by side, a process each: cuda:0,cuda:1."),
    ] = None
    engine: Annotated[
        Engine,
        Option(
            "Where they are scored and transferred: local (this machine) or ray (a Ray cluster)."
        ),
    ] = "local"
    ray_address: RayAddressOption = None
    list_: Annotated[bool, Option("Show the recipes and exit.", ("--list",))] = False
    quiet: QuietOption = False

    def check_together(self) -> None:
        check_place(self, "checkpoints are scored")


@command(ReproduceOptions)
def reproduce(given: Given) -> None:
    """Run one of the paper's experiments and set its claims beside ours; goes on where it was killed.

    `ckptsel reproduce verify RUN` checks a run folder: its files, its claims, its scores.

    Example: ckptsel reproduce cifar10-mnist --preset small --data-root data/
    """
    options = given.make(ReproduceOptions)
    if options.list_:
        _list_recipes()
        return
    if options.recipe is None:
        raise UsageError("no recipe given: ckptsel reproduce RECIPE; --list shows them.")
    if options.recipe == "verify":
        if options.run is None:
            raise UsageError("no run folder given: ckptsel reproduce verify RUN.")
        _verify(options.run, options.quiet)
        return
    if options.run is not None:
        raise UsageError(
            f"unexpected argument {str(options.run)!r}: the run folder is given with --out."
        )
    check_devices(options, given)
    _run(options.recipe, options)


def _list_recipes() -> None:
    from ckptsel.reproduce.registry import list_recipes

    for known in list_recipes():
        put(f"{known.name} --preset {known.preset}: {known.about}\n")


def _verify(run: Path, quiet: bool) -> None:
    from ckptsel.reproduce.verify import verify

    for line in verify(run, quiet):
        put(f"{shown(line)}\n")


def _run(name: str, options: ReproduceOptions) -> None:
    """Everything that computes and writes."""
    from ckptsel.reproduce.registry import find_recipe

    recipe = find_recipe(name, options.preset)

    from ckptsel.reproduce.run import choose_targets, run_recipe

    if options.targets is not None:
        recipe = choose_targets(recipe, list(options.targets))
    folder = options.out or Path("runs") / f"{name}-{options.preset}"
    seeds = range(options.seed, options.seed + (options.seeds or recipe.n_seeds))
    claims = run_recipe(
        recipe,
        folder,
        options.data_root,
        seeds,
        Where.of(options),
        options.quiet,
        options.beside,
    )
    if claims is not None:
        put((folder / "claims.md").read_text(encoding="utf-8"))
        say(f"written to {folder}")
