"""The options of `ckptsel rank`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import Field

from ckptsel.settings.engine import Engine, RayAddressOption, check_place
from ckptsel.settings.kinds import (
    Budget,
    ConfigOption,
    Count,
    DeviceName,
    EpochRegexOption,
    FormatOption,
    LogToOption,
    MaxFileSizeOption,
    OrderOption,
    Positive,
    Precision,
    QuietOption,
    ReadMemoryOption,
    ReadTimeoutOption,
    Seed,
    ShardName,
    Size,
    Text,
)
from ckptsel.settings.option import Argument, Option, OptionError, Options, make

MOST_PARTS = 100
"""Checkpoints that one average is made of."""


@dataclass(frozen=True)
class RankInputs(Options):
    """What is ranked, and for what."""

    checkpoints: Annotated[
        Path | None,
        Argument("Folder of the checkpoints of one run (or one file); may be an address, s3://..."),
    ] = None
    data: Annotated[
        Annotated[
            tuple[Text, ...], MinLen(1), Field(description="it must be a text that is not empty")
        ]
        | None,
        Option(
            "Labelled images: an image folder, a CSV, TSV or JSON lines file of path and label, a "
            "folder of parquet or tar files (or data-{000..003}.tar) or of datasets' save_to_disk, a "
            "timm dataset name (hfds/..., torch/..., wds/...), a target of the paper "
            "(paper/flowers102, ...), or the address of such a folder (s3://...). Given more than once: "
            "`rank` ranks for each.",
            ("--data", "-d"),
            repeats=True,
        ),
    ] = None


@dataclass(frozen=True)
class RankSettings(Options):
    """Everything that `ckptsel rank` can be told besides the checkpoints and the data.

    None stands for a choice that depends on the data, the checkpoints or the machine; the ranking
    records what was chosen.
    """

    goal: Annotated[Literal["fe", "ft"], Option("fe (frozen features) or ft (fine-tuning).")] = "fe"
    by: Annotated[
        Text | None,
        Option(
            "The score that decides the order (ckptsel scores lists them).",
            default="linear_probe for fe (ridge_probe of several layers), the epoch for ft",
        ),
    ] = None
    model: Annotated[
        Text | None,
        Option(
            "timm name, torchvision:NAME, hf:FOLDER, open_clip:NAME, or package.module:function.",
            ("--model", "-m"),
            default="what the files record",
        ),
    ] = None
    weights: Annotated[
        Text,
        Option(
            "auto (averaged or teacher weights where there are any), raw, ema, teacher, student, "
            "momentum, target, online, or the key in the file."
        ),
    ] = "auto"
    order: OrderOption = None
    epoch_regex: EpochRegexOption = None
    average: Annotated[
        tuple[Annotated[int, Ge(2), Le(MOST_PARTS)], ...] | None,
        MinLen(1),
        Option(
            "Rank means of so many neighbouring checkpoints too, beside the checkpoints: 2,3,5.",
            example="2,3,5",
        ),
    ] = None
    average_across_drops: Annotated[
        bool,
        Option(
            "Means of checkpoints before and after a drop of the learning rate too.",
            ("--average-across-drops/--no-average-across-drops",),
        ),
    ] = False
    budget: Annotated[
        Budget | None,
        Option(
            "Look at those that may be the best: auto (until others hardly can be), a number of "
            "checkpoints, or a time (10min).",
            default="all of them",
            example="auto",
        ),
    ] = None
    tolerance: Annotated[
        float,
        Ge(0),
        Lt(1),
        Option(
            "How far behind the best is still good enough (0.01: one point). Of several targets: a "
            "checkpoint that is nowhere further behind is good everywhere. With --budget: what may be "
            "further ahead is looked at."
        ),
    ] = 0.01
    layers: Annotated[
        tuple[Text, ...],
        MinLen(1),
        Option(
            "Where the network is read: last (before the classifier), all (every stage, side by side), "
            "auto (each of them, to choose from), or names of stages, separated by commas; "
            "`ckptsel inspect --layers` lists them.",
            default="last",
        ),
    ] = ("last",)
    pool: Annotated[
        Text | None, Option("Pooling of the features, timm's global_pool (avg, token).")
    ] = None
    image_size: Annotated[
        int | None,
        Ge(8),
        Option("Pixels a side.", default="the model's own"),
    ] = None
    channels: Annotated[
        Count | None,
        Option(
            "Channels of images: 1 (grey) or 3 (colour).",
            default="as the first layer's weights have",
        ),
    ] = None
    crop_pct: Annotated[
        Annotated[
            float,
            Gt(0),
            Le(1),
            Field(description="it must be a fraction above 0, at most 1 (0.875)"),
        ]
        | None,
        Option(
            "Part of the resized image that the centre crop keeps; 1 crops nothing but to a square.",
            default="the model's own, 1 for a module without",
            example="0.875",
        ),
    ] = None
    interpolation: Annotated[
        Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None,
        Option(
            "How images are resized: nearest, bilinear, bicubic, box, hamming, lanczos.",
            default="the model's own",
        ),
    ] = None
    mean: Annotated[
        tuple[float, ...] | None,
        MinLen(1),
        Option("Channel means, as in 0.5,0.5,0.5.", default="the model's", example="0.5,0.5,0.5"),
    ] = None
    std: Annotated[
        tuple[Positive, ...] | None,
        MinLen(1),
        Option("Channel deviations.", default="the model's own", example="0.5,0.5,0.5"),
    ] = None
    data_root: Annotated[
        Text | None, Option("Folder that relative data and timm datasets lie below.")
    ] = None
    image_column: Annotated[Text | None, Option("Column of images or paths.")] = None
    label_column: Annotated[Text | None, Option("Column of labels.")] = None
    train_split: Annotated[Text, Option("Split that is fitted on.")] = "train"
    eval_split: Annotated[
        Text | None,
        Option(
            "Split that is evaluated on.",
            default="validation where there is one, else cross-validation on the training split",
        ),
    ] = None
    holdout: Annotated[
        float | None,
        Gt(0),
        Lt(1),
        Option("Evaluate on this part of the training split, held out once."),
    ] = None
    max_train_samples: Annotated[
        Count | None, Option("At most this many training images, stratified.")
    ] = None
    max_eval_samples: Annotated[
        Count | None, Option("At most this many evaluation images, stratified.")
    ] = None
    duplicates: Annotated[
        Literal["near", "exact", "keep"],
        Option(
            "Which duplicates of fitted images are not held out: near (saved again, resized), exact "
            "(the same pixels); keep leaves none out."
        ),
    ] = "near"
    skip_unreadable: Annotated[
        bool,
        Option(
            "Rank without images that cannot be read, and say how many of which class.",
            ("--skip-unreadable/--no-skip-unreadable",),
        ),
    ] = False
    scores: Annotated[
        tuple[Text, ...] | None,
        MinLen(1),
        Option(
            "Scores, separated by commas (ckptsel scores lists them), or all.",
            default="linear_probe and five more; of several layers ridge_probe, and these at the last",
        ),
    ] = None
    probe: Annotated[
        Literal["logistic", "paper"],
        Option("logistic (fitted until it hardly moves) or paper (50 epochs of Adam)."),
    ] = "logistic"
    energy: Annotated[
        float, Gt(0), Lt(1), Option("Part of the singular values' sum that is main.")
    ] = 0.8
    n_resamples: Annotated[int, Ge(100), Option("Draws behind P(best) and the tie set.")] = 2000
    seed: Annotated[Seed, Option("Seed of folds and resamples.")] = 0
    device: Annotated[
        DeviceName | None, Option("cpu, cuda, cuda:1, ...", default="cuda where there is one")
    ] = None
    precision: Annotated[
        Precision | None,
        Option("float32, bfloat16, float16.", default="bfloat16 on a GPU, else float32"),
    ] = None
    batch_size: Annotated[Count | None, Option("Images in a batch.", default="found by itself")] = (
        None
    )
    workers: Annotated[
        int | None, Ge(0), Option("Processes that decode images.", default="all cores")
    ] = None
    memory: Annotated[
        Size | None,
        Option(
            "What one process may hold of its own, as in 4GiB: pixels, a batch, features, scores; not "
            "libraries (half a GiB), the network, nor mapped files.",
            default="no limit",
        ),
    ] = None
    processes: Annotated[
        Count, Option("Processes that score checkpoints, side by side; they share the cores.")
    ] = 1
    devices: Annotated[
        tuple[DeviceName, ...] | None,
        Option("Devices that score checkpoints side by side, a process each: cuda:0,cuda:1."),
    ] = None
    engine: Annotated[
        Engine,
        Option("Where checkpoints are scored: local (this machine) or ray (a Ray cluster)."),
    ] = "local"
    ray_address: RayAddressOption = None
    cache_dir: Annotated[
        Text | None, Option("Where features are kept.", default="the user's cache")
    ] = None
    cache: Annotated[bool, Option("Keep features.", ("--cache/--no-cache",))] = True
    cache_size: Annotated[
        Size | None,
        Option(
            "What the cache may take, as in 5GiB; what was used longest ago goes first, nothing that "
            "this run uses.",
            default="no limit",
        ),
    ] = None
    verify: Annotated[
        bool,
        Option(
            "Read all checkpoints and images again, those too that look as they did when they were last "
            "read (size, times, inode).",
            ("--verify/--no-verify",),
        ),
    ] = False
    read_memory: ReadMemoryOption = "4GiB"
    read_timeout: ReadTimeoutOption = 60.0
    max_file_size: MaxFileSizeOption = "256GiB"
    strict: Annotated[
        bool, Option("Exit 3 where any checkpoint cannot be used.", ("--strict/--no-strict",))
    ] = False

    def check_together(self) -> None:
        check_place(self, "checkpoints are scored")
        if self.budget is not None and self.average is not None:
            raise OptionError(
                "{0} looks at some checkpoints, and {1} is of neighbours among all: leave out one.",
                "budget",
                "average",
            )


@dataclass(frozen=True)
class RankFiles(Options):
    """What `ckptsel rank` writes and prints, of which a configuration file may say something too."""

    out: Annotated[
        Path | None,
        Option("Folder for ranking.json and the rest, or its address.", ("--out", "-o")),
    ] = None
    format: FormatOption = "table"
    log_to: LogToOption = None


@dataclass(frozen=True)
class RankCall(Options):
    """What holds for one call of `ckptsel rank`, and stands in no file."""

    confirm: Annotated[
        Count | None, Option("Train so many of the best for real, as `ckptsel confirm` does.")
    ] = None
    gate: Annotated[
        bool, Option("Hold the ranking against the policy of the configuration file.")
    ] = False
    explain: Annotated[bool, Option("Say how each number came about.")] = False
    shard: Annotated[
        ShardName | None,
        Option(
            "Score only this part of the checkpoints, 3/16 for the third of sixteen, into the cache; "
            "the same command without it then ranks all."
        ),
    ] = None
    config: ConfigOption = None
    quiet: QuietOption = False

    def check_together(self) -> None:
        if self.shard is None:
            return
        number, n = map(int, self.shard.split("/"))
        if number > n:
            raise OptionError(
                "{0} is " + f"{self.shard}: there is no part {number} of {n}.", "shard"
            )
        for name, is_given in (("confirm", self.confirm is not None), ("gate", self.gate)):
            if is_given:
                raise OptionError(
                    "{0} scores a part and ranks nothing, so there is nothing for {1}.",
                    "shard",
                    name,
                )


def make_settings(options: Mapping[str, Any]) -> RankSettings:
    """Settings of a ranking from options by name, those that are None left at their defaults.

    Raises UsageError for a name that is not known or a value that does not fit.
    """
    return make(RankSettings, options)
