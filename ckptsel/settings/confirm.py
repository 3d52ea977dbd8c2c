"""The options of `ckptsel confirm`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from ckptsel.settings.engine import Engine, RayAddressOption, check_place
from ckptsel.settings.kinds import (
    Count,
    DeviceName,
    FormatOption,
    LogToOption,
    OwnModelOption,
    Positive,
    Precision,
    QuietOption,
    RunArgument,
    Seed,
    Size,
    Text,
)
from ckptsel.settings.option import Option, OptionError, Options, make

Augmentation = Literal[
    "flip", "crop", "resized_crop", "small_resized_crop", "colour_jitter", "grey", "none"
]
"""As in `ckptsel.training.loop`, which takes torch to import, and none of them."""


@dataclass(frozen=True)
class ConfirmInput(Options):
    """The ranking that is confirmed."""

    run: RunArgument


@dataclass(frozen=True)
class ConfirmSettings(Options):
    """Everything that `ckptsel confirm` can be told besides the ranking.

    What None stands for depends on the data, the preset or the machine; `confirm.json` records what
    was chosen.

    n_candidates: so many, see `ckptsel.confirmation.candidates.choose_candidates`.
    goal: fe, ft or both; None takes the ranking's.
    lr: learning rates to choose from, and no others (a single one is simply taken).
    model: a network of one's own, which a ranking may only name.
    checkpoints, data: where they lie now, if they were moved.
    """

    n_candidates: Annotated[
        Count | None,
        Option(
            "Train so many: of the best, or for ft spread over the trajectory.",
            ("--candidates",),
            default="the tie set, at least five, and the last; for ft eight",
        ),
    ] = None
    goal: Annotated[
        Literal["fe", "ft", "both"] | None, Option("fe, ft or both.", default="the ranking's")
    ] = None
    n_seeds: Annotated[Count, Option("Runs of each candidate.", ("--seeds",))] = 3
    steps: Annotated[Count | None, Option("Batches a run.", default="1000 for fe, 480 for ft")] = (
        None
    )
    epochs: Annotated[Positive | None, Option("The same in passes over the training images.")] = (
        None
    )
    preset: Annotated[
        Text | None, Option("The paper's settings: paper-cifar, paper-natural, paper-cxr.")
    ] = None
    lr: Annotated[
        tuple[Positive, ...] | None,
        MinLen(1),
        Option(
            "Learning rates to choose from, separated by commas; one is simply taken. Those of the "
            "default are widened and refined where the best lies.",
            default="0.001,0.01,0.1,1",
            example="0.001,0.01",
        ),
    ] = None
    lr_per_candidate: Annotated[
        bool, Option("Choose a learning rate for each candidate, not one for all.")
    ] = False
    batch_size: Annotated[Count | None, Option("Images a batch.", default="64")] = None
    optimizer: Annotated[
        Text | None, Option("timm's name: momentum, sgd, adam, adamw.", default="momentum")
    ] = None
    schedule: Annotated[
        Literal["cosine", "step"] | None,
        Option("cosine (once a rung) or step (by ten each third).", default="cosine"),
    ] = None
    weight_decay: Annotated[
        float | None,
        Ge(0),
        Option("Penalty on weights, not biases.", default="0 for fe, 0.0001 for ft"),
    ] = None
    augment: Annotated[
        tuple[Augmentation, ...] | None,
        MinLen(1),
        Option(
            "For ft: flip, crop, resized_crop, separated by commas, or none.",
            default="crop up to 64 pixels a side, else resized_crop,flip",
        ),
    ] = None
    ema: Annotated[
        float | None, Gt(0), Lt(1), Option("For ft: evaluate a moving average of this decay.")
    ] = None
    full: Annotated[bool, Option("No race: train every candidate to the end.")] = False
    tolerance: Annotated[
        float,
        Ge(0),
        Lt(1),
        Option("The race is over when nobody can be further ahead than this fraction."),
    ] = 0.01
    tensorboard: Annotated[bool, Option("Write learning curves as event files.")] = False
    model: OwnModelOption = None
    checkpoints: Annotated[
        Text | None, Option("Where the checkpoints are now.", default="as ranked")
    ] = None
    data: Annotated[
        Text | None, Option("Where the data is now.", ("--data", "-d"), default="as ranked")
    ] = None
    data_root: Annotated[Text | None, Option("As for rank.")] = None
    device: Annotated[DeviceName | None, Option("As for rank.")] = None
    precision: Annotated[Precision | None, Option("As for rank.")] = None
    processes: Annotated[
        Count, Option("Processes that train runs, side by side; they share the cores.")
    ] = 1
    devices: Annotated[
        tuple[DeviceName, ...] | None,
        MinLen(1),
        Option("Devices that train runs side by side, a process each: cuda:0,cuda:1."),
    ] = None
    engine: Annotated[
        Engine, Option("Where runs are trained: local (this machine) or ray (a Ray cluster).")
    ] = "local"
    ray_address: RayAddressOption = None
    workers: Annotated[int | None, Ge(0), Option("As for rank.")] = None
    cache_dir: Annotated[Text | None, Option("As for rank.")] = None
    cache: Annotated[bool | None, Option("As for rank.", ("--cache/--no-cache",))] = None
    cache_size: Annotated[Size | None, Option("As for rank.")] = None
    seed: Annotated[Seed, Option("The first seed.")] = 0

    def check_together(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise OptionError(
                "{0} and {1} are both given; they say the same thing: give one.", "steps", "epochs"
            )
        check_place(self, "runs are trained")


@dataclass(frozen=True)
class ConfirmCall(Options):
    """What holds for one call of `ckptsel confirm`."""

    format: FormatOption = "table"
    log_to: LogToOption = None
    quiet: QuietOption = False


def make_confirm_settings(options: Mapping[str, Any]) -> ConfirmSettings:
    """Settings of `confirm`, as `ckptsel.settings.rank.make_settings`."""
    return make(ConfirmSettings, options)
