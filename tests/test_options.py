"""Options: declared once, checked alike wherever they come from, said plainly where they are wrong."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from timm.data.transforms import str_to_pil_interp

import ckptsel
from ckptsel.cli.arguments import help_text
from ckptsel.cli.report import ReportOptions
from ckptsel.common.devices import PRECISIONS
from ckptsel.confirmation import protocols
from ckptsel.errors import UsageError
from ckptsel.ranking.order import GOALS
from ckptsel.report import page, tables
from ckptsel.settings import effect
from ckptsel.settings.confirm import ConfirmCall, ConfirmSettings, make_confirm_settings
from ckptsel.settings.option import Argument, Given, declared
from ckptsel.settings.policy import GateCall, GateFiles, Policy, make_policy
from ckptsel.settings.rank import RankCall, RankFiles, RankInputs, RankSettings, make_settings
from ckptsel.settings.schema import config_schema
from ckptsel.settings.toml import find_config, read_config
from ckptsel.settings.watch import WatchCall, WatchSettings
from tests.conftest import save_images
from tools import reference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SEED = "it must be a whole number from 0 to 4294967295"
CROP = "it must be a fraction above 0, at most 1 (0.875)"
INSIDE = "it must be a number between 0 and 1, both excluded"
DEVICE = "it must be cpu, cuda, cuda:N (such as cuda:1) or mps"
FRACTION = "it is a fraction between 0 and 1 (0.85 for 85 %)"
RATES = "it must be one or more numbers above 0"
AT_LEAST_ONE = "it must be a whole number, at least 1"

COMMANDS = {
    "rank": (RankInputs, RankSettings, RankFiles, RankCall),
    "gate": (Policy, GateFiles, GateCall),
    "confirm": (ConfirmSettings, ConfirmCall),
    "watch": (RankInputs, RankSettings, RankFiles, WatchSettings, WatchCall),
}

ON_THE_COMMAND_LINE = [
    ("rank --seed -1", f"--seed is -1; {SEED}."),
    ("rank --seed 4294967296", f"--seed is 4294967296; {SEED}."),
    ("rank --seed many", f"--seed is the text 'many'; {SEED}."),
    ("rank --seed 1.5", f"--seed is the text '1.5'; {SEED}."),
    ("rank --device gpu", f"--device is 'gpu'; {DEVICE}."),
    ("rank --device cuda:", f"--device is 'cuda:'; {DEVICE}."),
    ("rank --workers -2", "--workers is -2; it must be a whole number, at least 0."),
    ("rank --image-size 4", "--image-size is 4; it must be a whole number, at least 8."),
    ("rank --std 0", f"--std is 0; {RATES}."),
    ("rank --std 0.5,-1,0.5", f"--std is 0.5, -1, 0.5; {RATES}."),
    ("rank --std inf", f"--std is inf (not a finite number); {RATES}."),
    ("rank --std a,{b}", "--std 'a,{b}' is not a list of numbers such as 0.5,0.5,0.5."),
    ("rank --mean grey", "--mean 'grey' is not a list of numbers such as 0.5,0.5,0.5."),
    (
        "rank --mean 0.5,nan",
        "--mean is 0.5, nan (not a finite number); it must be one or more numbers.",
    ),
    ("rank --scores=", "--scores is ''; it must be one or more names, separated by commas."),
    (
        "rank --scores logme,",
        "--scores is 'logme,'; it must be one or more names, separated by commas.",
    ),
    ("rank --energy nan", f"--energy is nan (not a finite number); {INSIDE}."),
    ("rank --energy 1", f"--energy is 1; {INSIDE}."),
    ("rank --holdout inf", f"--holdout is inf (not a finite number); {INSIDE}."),
    ("rank --holdout 0", f"--holdout is 0; {INSIDE}."),
    ("rank --crop-pct 1.01", f"--crop-pct is 1.01; {CROP}."),
    ("rank --crop-pct 0", f"--crop-pct is 0; {CROP}."),
    ("rank --crop-pct nan", f"--crop-pct is nan (not a finite number); {CROP}."),
    (
        "rank --interpolation bicubik",
        "--interpolation is 'bicubik'; it must be one of nearest, bilinear, bicubic, box, hamming, "
        "lanczos. Did you mean bicubic?",
    ),
    ("rank --n-resamples 99", "--n-resamples is 99; it must be a whole number, at least 100."),
    ("rank --batch-size 0", f"--batch-size is 0; {AT_LEAST_ONE}."),
    ("rank --max-train-samples 0", f"--max-train-samples is 0; {AT_LEAST_ONE}."),
    ("rank --max-eval-samples -3", f"--max-eval-samples is -3; {AT_LEAST_ONE}."),
    ("rank --confirm 0", f"--confirm is 0; {AT_LEAST_ONE}."),
    # Near to fe, and the other was meant.
    ("rank --goal fine", "--goal is 'fine'; it must be one of fe, ft."),
    ("rank --goal tf", "--goal is 'tf'; it must be one of fe, ft."),
    (
        "rank --probe logistics",
        "--probe is 'logistics'; it must be one of logistic, paper. Did you mean logistic?",
    ),
    ("rank --model=", "--model is ''; it must be a text that is not empty."),
    ("rank --out=", "--out is ''; it must be a path."),
    (
        "rank -f jsn",
        "--format is 'jsn'; it must be one of table, json, csv, md. Did you mean json?",
    ),
    ("confirm --lr 0", f"--lr is 0; {RATES}."),
    ("confirm --lr 0.1,nan", f"--lr is 0.1, nan (not a finite number); {RATES}."),
    ("confirm --lr fast", "--lr 'fast' is not a list of numbers such as 0.001,0.01."),
    ("confirm --candidates 0", f"--candidates is 0; {AT_LEAST_ONE}."),
    ("confirm --seeds 0", f"--seeds is 0; {AT_LEAST_ONE}."),
    ("confirm --seed -1", f"--seed is -1; {SEED}."),
    (
        "confirm --epochs inf",
        "--epochs is inf (not a finite number); it must be a number above 0.",
    ),
    ("confirm --ema 1", f"--ema is 1; {INSIDE}."),
    ("confirm --tolerance 1", "--tolerance is 1; it must be a number from 0 to below 1."),
    ("confirm --weight-decay -1", "--weight-decay is -1; it must be a number, at least 0."),
    (
        "confirm --augment flip,flop",
        "--augment is 'flop'; it must be one of flip, crop, resized_crop, small_resized_crop, "
        "colour_jitter, grey, none. Did you mean flip?",
    ),
    (
        "confirm --steps 5 --epochs 1",
        "--steps and --epochs are both given; they say the same thing: give one.",
    ),
    ("watch --poll 0", "--poll is 0; it must be a number above 0."),
    ("watch --nice 20", "--nice is 20; it must be a whole number from 0 to 19."),
    ("watch --stop-after -1", "--stop-after is -1; it must be a number, at least 0."),
    ("confirm --device gpu", f"--device is 'gpu'; {DEVICE}."),
    ("gate --min-accuracy 85", f"--min-accuracy is 85; {FRACTION}."),
    ("gate --min-accuracy nan", f"--min-accuracy is nan (not a finite number); {FRACTION}."),
    (
        "gate --max-regret 0.1",
        "--max-regret is given without --current, which it is about.",
    ),
    ("pick --format jsn", "--format is 'jsn'; it must be one of path, json. Did you mean json?"),
    (
        "report --figures gif",
        "--figures is 'gif'; it must be one of svg, png, pdf.",
    ),
    ("inspect --weights=", "--weights is ''; it must be a text that is not empty."),
    ("reproduce --seeds 0", f"--seeds is 0; {AT_LEAST_ONE}."),
    ("reproduce --seed -1", f"--seed is -1; {SEED}."),
    ("reproduce --device gpu", f"--device is 'gpu'; {DEVICE}."),
]

IN_A_FILE = [
    (
        'n_resamples = "many"',
        "n_resamples is the text 'many'; it must be a whole number, at least 100.",
    ),
    (
        'n-resamples = "500"',
        "n-resamples is the text '500'; it must be a whole number, at least 100, without quotes.",
    ),
    ('energy = "0.8"', f"energy is the text '0.8'; {INSIDE}, without quotes."),
    ("energy = 1.5", f"energy is 1.5; {INSIDE}."),
    ("energy = nan", f"energy is nan (not a finite number); {INSIDE}."),
    ("holdout = inf", f"holdout is inf (not a finite number); {INSIDE}."),
    ("energy = true", f"energy is true; {INSIDE}."),
    ("seed = -1", f"seed is -1; {SEED}."),
    ("seed = true", f"seed is true; {SEED}."),
    ("seed = 1.0", f"seed is 1; {SEED}."),
    ("seed = [1]", f"seed is 1; {SEED}."),
    ("seed = {}", f"seed is a table; {SEED}."),
    ("seed = 2024-01-01", f"seed is 2024-01-01; {SEED}."),
    ('device = "gpu"', f"device is 'gpu'; {DEVICE}."),
    ("device = 0", f"device is 0; {DEVICE}."),
    ("workers = -2", "workers is -2; it must be a whole number, at least 0."),
    ("image-size = 4", "image-size is 4; it must be a whole number, at least 8."),
    ("std = [0.5, 0, 0.5]", f"std is 0.5, 0, 0.5; {RATES}."),
    ("std = 0.5", f"std is 0.5; {RATES}."),
    ("std = []", f"std is an empty list; {RATES}."),
    (
        'mean = "0.5,0.5"',
        "mean is the text '0.5,0.5'; it must be one or more numbers, as the list [0.5,0.5,0.5].",
    ),
    ('mean = ["a"]', "mean is 'a'; it must be one or more numbers."),
    ('scores = ""', "scores is ''; it must be one or more names, separated by commas."),
    (
        "scores = []",
        "scores is an empty list; it must be one or more names, separated by commas.",
    ),
    ("scores = [1]", "scores is 1; it must be one or more names, separated by commas."),
    ("goal = 1", "goal is 1; it must be one of fe, ft."),
    ("model = 5", "model is 5; it must be a text that is not empty."),
    ("out = 5", "out is 5; it must be a path."),
    ("cache = 1", "cache is 1; it must be true or false."),
    ('cache = "true"', "cache is the text 'true'; it must be true or false, without quotes."),
    ('strict = "yes"', "strict is the text 'yes'; it must be true or false."),
    ("gate = 3", "gate is 3; it must be a table: [gate]."),
    ("[[gate]]\nstrict = true", "; it must be a table: [gate]."),
]

BELOW_GATE = [
    ("min-accuracy = 85", f"min-accuracy is 85; {FRACTION}."),
    (
        'min_accuracy = "0.9"',
        f"min_accuracy is the text '0.9'; {FRACTION}, without quotes.",
    ),
    ("strict = 1", "strict is 1; it must be true or false."),
    ("max-regret = 0.1", "max-regret is given without current, which it is about."),
    ("stric = true", "unknown option 'stric'. Did you mean strict?"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs, and finds its configuration."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "sentence"), ON_THE_COMMAND_LINE)
def test_a_wrong_value_on_the_command_line(run, folder: Path, words: str, sentence: str) -> None:
    command, *options = words.split(" ")
    places = {"rank": ("ckpts", "-d", "images"), "reproduce": ("cifar10-mnist",)}
    code, out, err = run(command, *places.get(command, ("ranking",)), *options)
    assert (code, out, err) == (2, "", f"error: {sentence}\n")


@pytest.mark.parametrize(("text", "sentence"), IN_A_FILE)
def test_a_wrong_value_in_a_file(run, folder: Path, text: str, sentence: str) -> None:
    (folder / "ckptsel.toml").write_text(text)
    code, out, err = run("rank", "ckpts", "-d", "images", "-q")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {folder / 'ckptsel.toml'}: ") and err.count("\n") == 1
    assert err.endswith(f"{sentence}\n")
    if "nan" not in text and "inf" not in text and "1.0" not in text:  # JSON knows none of them
        assert not fits_the_schema(text)


@pytest.mark.parametrize(("text", "sentence"), BELOW_GATE)
@pytest.mark.parametrize("command", [("gate", "ranking"), ("rank", "c", "-d", "i", "--gate", "-q")])
def test_a_wrong_policy_in_a_file(run, folder: Path, command, text: str, sentence: str) -> None:
    (folder / "ckptsel.toml").write_text(f"[gate]\n{text}\n")
    code, out, err = run(*command)
    err = err.removeprefix("options from ckptsel.toml\n")
    assert (code, out) == (2, "")
    if command[0] == "gate":  # what a policy lacks is named as it can be given there
        sentence = sentence.replace("without current", "without --current")
    assert err == f"error: {folder / 'ckptsel.toml'}, below gate: {sentence}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool]\nckptsel = 3\n", "ckptsel is 3; it must be a table"),
        ("tool = 3\n", "tool is 3; it must be a table"),
        ("[tool.ckptsel]\nseed = -1\n", "pyproject.toml: seed is -1"),
    ],
)
def test_a_wrong_pyproject(run, folder: Path, text: str, message: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    code, _, err = run("rank", "ckpts", "-d", "images", "-q")
    assert code == 2
    assert message in err


def test_a_file_that_is_no_text(run, folder: Path) -> None:
    (folder / "ckptsel.toml").write_bytes(b"goal = '\xff'")
    code, _, err = run("rank", "ckpts", "-d", "images", "-q")
    assert code == 2
    assert "is not valid TOML" in err
    code, _, err = run("rank", "--config", folder / "nowhere.toml")
    assert (code, err) == (
        2,
        f"error: cannot read --config {folder / 'nowhere.toml'}: No such file or directory.\n",
    )


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (make_settings, {"seed": -1}, f"seed is -1; {SEED}."),
        (make_settings, {"seed": True}, f"seed is true; {SEED}."),
        (make_settings, {"energy": "0.8"}, f"energy is the text '0.8'; {INSIDE}, without quotes."),
        (make_settings, {"std": (0.0,)}, f"std is 0; {RATES}."),
        (make_settings, {"goal": "{0}"}, "goal is '{0}'; it must be one of fe, ft."),
        (make_settings, {"sed": 3}, "unknown option 'sed'. Did you mean seed, std?"),
        (make_settings, {"device": "x" * 999}, f"device is '{'x' * 79}...; {DEVICE}."),
        (make_confirm_settings, {"lr": [0]}, f"lr is 0; {RATES}."),
        (
            make_confirm_settings,
            {"steps": 1, "epochs": 1},
            "steps and epochs are both given; they say the same thing: give one.",
        ),
        (
            make_policy,
            {"tolerance": 0.1},
            "tolerance is given without baseline, which it is about.",
        ),
    ],
)
def test_a_wrong_keyword(make, options: dict, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        make(options)
    assert str(raised.value) == sentence


def test_the_python_function_says_the_same(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers is -2"):
        ckptsel.rank(tmp_path, "images", workers=-2)
    with pytest.raises(UsageError, match="seed is -1"):
        RankSettings(seed=-1)


def test_unknown_options_give_near_names(run, folder: Path) -> None:
    code, _, err = run("rank", "ckpts", "--n-resample", "500")
    assert code == 2
    assert "No such option" in err and "--n-resamples" in err
    for name, near in (("n-resample", "n-resamples"), ("n_resample", "n_resamples")):
        (folder / "ckptsel.toml").write_text(f"{name} = 500\n")
        code, _, err = run("rank", "ckpts", "-q")
        assert code == 2
        assert f"unknown option '{name}'. Did you mean {near}" in err
    (folder / "ckptsel.toml").write_text("n-resamples = 500\nn_resamples = 600\n")
    assert "n_resamples is given twice" in run("rank", "ckpts", "-q")[2]


# ---- one declaration -----------------------------------------------------------------------------


def test_the_reference_shows_every_option_with_its_help_and_default() -> None:
    sections = reference.cli_page().split("\n## ")
    for command, groups in COMMANDS.items():
        section = next(text for text in sections if text.startswith(f"ckptsel {command}\n"))
        for option in (o for group in groups for o in declared(group).values()):
            if isinstance(option.option, Argument):
                assert option.option.help in section
                continue
            names = ", ".join(f"`{n}`" for flag in option.flags for n in flag.split("/"))
            rows = [line for line in section.splitlines() if line.startswith(f"| {names} |")]
            assert rows == [f"| {names} | {option.default_text} | {option.option.help} |"]


def test_help_shows_what_an_option_comes_to() -> None:
    options = declared(RankSettings)
    assert help_text(options["seed"]) == "Seed of folds and resamples. [default: 0]"
    assert help_text(options["cache"]).endswith("[default: cache]")
    assert help_text(options["strict"]) == "Exit 3 where any checkpoint cannot be used."
    assert help_text(options["image_size"]) == "Pixels a side. [default: the model's own]"


def test_defaults_in_words_are_those_of_the_protocols() -> None:
    said = {name: option.default_text for name, option in declared(ConfirmSettings).items()}
    fe, ft = protocols.FE, protocols.FT
    assert said["steps"] == f"{fe.n_steps} for fe, {ft.n_steps} for ft"
    assert said["weight_decay"] == f"{fe.weight_decay:g} for fe, {ft.weight_decay:.4f} for ft"
    assert said["lr"] == ",".join(f"{lr:g}" for lr in fe.lrs) and fe.lrs == ft.lrs
    for name in ("batch_size", "optimizer", "schedule"):
        assert said[name] == str(getattr(fe, name)) == str(getattr(ft, name))


def test_choices_are_those_of_the_modules_that_take_them() -> None:
    """Which are too heavy to import where options are declared."""
    report, rank = declared(ReportOptions), {**declared(RankSettings), **declared(RankFiles)}
    assert report["figures"].schema["enum"] == list(page.FIGURE_FORMATS)
    assert rank["format"].schema["enum"] == list(tables.TEXT_FORMATS)
    assert rank["goal"].schema["enum"] == list(GOALS)
    assert rank["precision"].schema["enum"] == list(PRECISIONS)
    for name in rank["interpolation"].schema["enum"]:
        assert str_to_pil_interp(name).name.lower() == name


def test_defaults_fit_their_own_fields() -> None:
    for option in (o for groups in COMMANDS.values() for g in groups for o in declared(g).values()):
        assert option.check(option.default) == option.default


def test_a_file_holds_exactly_what_rank_and_the_policy_have() -> None:
    top = (RankInputs, RankSettings, RankFiles)
    names = {f.name for cls in top for f in dataclasses.fields(cls)}
    policy = {f.name for cls in (Policy, GateFiles) for f in dataclasses.fields(cls)}
    properties = config_schema()["properties"]
    assert {name.replace("-", "_") for name in properties} == {*names, "gate", "target"}
    assert {n.replace("-", "_") for n in properties["gate"]["properties"]} == policy
    for name in ("confirm", "config", "quiet"):
        assert name not in properties


def test_the_reader_knows_every_option_of_the_schema(folder: Path) -> None:
    path = folder / "ckptsel.toml"
    path.write_text(WHOLE)
    assert find_config(folder) == path
    config = read_config(path)
    top, below = (RankInputs, RankSettings, RankFiles), (Policy, GateFiles)
    excluded = {"budget", "devices", "ray_address"}  # by others that are given
    assert set(config.rank.values) == {n for cls in top for n in declared(cls)} - excluded
    assert set(config.gate.values) == {n for cls in below for n in declared(cls)}
    settings = config.rank.make(RankSettings)
    assert settings.std == (0.25, 0.25, 1.0) and settings.scores == ("logme", "linear_probe")
    assert settings.average == (2, 3)
    assert config.gate.make(Policy).min_accuracy == 0.9
    assert config.gate.make(GateFiles).junit == Path("junit.xml")
    assert fits_the_schema(WHOLE)


WHOLE = """
checkpoints = "ckpts"
tolerance = 0.02
data = "images"
goal = "ft"
by = "knn"
model = "resnet18"
weights = "ema"
order = "mtime"
epoch-regex = "ep([0-9]+)"
average = [2, 3]
average-across-drops = true
layers = "auto"
pool = "avg"
image-size = 64
channels = 3
skip-unreadable = true
crop-pct = 1
interpolation = "lanczos"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 1]
data-root = "data"
image_column = "image"
label_column = "label"
train-split = "train"
eval-split = "test"
holdout = 0.2
max-train-samples = 10
max-eval-samples = 10
duplicates = "exact"
scores = "logme, linear_probe"
probe = "paper"
energy = 0.7
n-resamples = 100
seed = 1
device = "cuda:1"
precision = "float16"
batch-size = 8
workers = 0
memory = "64GiB"
processes = 2
engine = "local"
cache-dir = "cache"
cache-size = "9GB"
verify = true
cache = false
read-memory = "2GiB"
read-timeout = 30.5
max-file-size = "1TB"
strict = true
out = "out"
format = "md"
log-to = ["mlflow", "wandb"]
[gate]
current = "a"
max-regret = 0
min-accuracy = 0.9
baseline = "b"
tolerance = 0.02
strict = true
junit = "junit.xml"
"""


def fits_the_schema(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(config_schema())
    return validator.is_valid(tomllib.loads(text))


def test_settings_stay_values() -> None:
    """Frozen and hashable, and other forms of a value mean the same."""
    settings = RankSettings(
        scores=["logme"], cache_dir=Path("c"), seed=np.int64(3), energy=np.float32(0.5)
    )
    assert settings == RankSettings(scores=("logme",), cache_dir="c", seed=3, energy=0.5)
    assert type(settings.seed) is int and type(settings.energy) is float
    assert hash(settings) == hash(dataclasses.replace(settings))
    assert dataclasses.replace(settings, scores="a, b").scores == ("a", "b")
    assert dataclasses.asdict(settings)["seed"] == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 4  # type: ignore[misc]
    with pytest.raises(UsageError, match="seed is -1"):
        dataclasses.replace(settings, seed=-1)
    assert make_settings({"seed": None}) == RankSettings()


def test_nothing_heavy_is_imported_for_options_and_commands() -> None:
    code = (
        "import pkgutil, sys\n"
        "import ckptsel.cli, ckptsel.settings\n"
        "for package in (ckptsel.cli, ckptsel.settings):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        __import__(module.name)\n"
        "print({'torch', 'timm', 'altair', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "rank ckpts -d images",
        "watch ckpts -d images -o o",
        "confirm ranking",
        "reproduce cifar10-mnist",
    ],
)
@pytest.mark.parametrize(
    ("device", "n_gpus", "reason"),
    [
        ("cuda", 0, "torch finds no CUDA device here: give cpu."),
        ("cuda:3", 2, "the last that torch finds here is cuda:1."),
        ("mps", 0, "torch finds no Apple GPU here: give cpu."),
    ],
)
def test_a_device_that_is_not_there_is_said_before_the_work(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, device, n_gpus, reason
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    code, out, err = run(*words.split(), "--device", device)
    assert (code, out, err) == (2, "", f"error: --device is '{device}'; {reason}\n")


def test_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptsel.common.devices import why_missing

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [why_missing(device) for device in ("cpu", "cuda", "cuda:1")] == [None] * 3


# ---- options without effect ----------------------------------------------------------------------


def given(**values: object) -> Given:
    return Given(values, {name: f"--{name.replace('_', '-')}" for name in values})


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        (
            effect.idle_in_rank(given(holdout=0.2, eval_split="val")),
            ["--holdout has no effect: --eval-split names what is evaluated."],
        ),
        (effect.idle_in_rank(given(holdout=0.2)), []),
        (effect.idle_in_rank(given(eval_split="val")), []),
        (
            effect.idle_in_evaluation(given(max_eval_samples=5), "cross-validation"),
            ["--max-eval-samples has no effect: the training split is cross-validated."],
        ),
        (
            effect.idle_in_evaluation(given(max_eval_samples=5), "holdout"),
            ["--max-eval-samples has no effect: a part of the training split is held out."],
        ),
        (effect.idle_in_evaluation(given(max_eval_samples=5), "validation split"), []),
        (effect.idle_in_evaluation(given(), "cross-validation"), []),
        (
            effect.idle_in_confirm(given(augment=("flip",), ema=0.9), ("fe",)),
            [
                "--augment has no effect: it is for fine-tuning, and the goal is fe.",
                "--ema has no effect: it is for fine-tuning, and the goal is fe.",
            ],
        ),
        (effect.idle_in_confirm(given(augment=("flip",), ema=0.9), ("fe", "ft")), []),
        (
            effect.idle_in_confirm(given(full=True, tolerance=0.1), ("fe",)),
            ["--tolerance has no effect: with --full there is no race."],
        ),
        (effect.idle_in_confirm(given(full=True), ("fe",)), []),
        (
            effect.idle_in_confirm(given(lr=(0.1,), lr_per_candidate=True), ("fe",)),
            [
                "--lr-per-candidate has no effect: --lr gives one learning rate, there is none to "
                "choose."
            ],
        ),
        (effect.idle_in_confirm(given(lr=(0.1, 1.0), lr_per_candidate=True), ("fe",)), []),
        (effect.idle_in_confirm(given(lr_per_candidate=True), ("fe",)), []),
        (effect.idle_in_confirm(given(tolerance=0.1), ("fe",)), []),
    ],
)
def test_what_has_no_effect(notes: list[str], expected: list[str]) -> None:
    assert notes == expected


def test_rank_says_what_has_no_effect(run, folder: Path, trajectory: Path, images: Path) -> None:
    (folder / "ckptsel.toml").write_text("holdout = 0.3\n")
    fast = ("rank", trajectory, "--scores", "logme,linear_probe", "-q")
    code, _, err = run(*fast, "-d", images, "--eval-split", "validation", "--max-eval-samples", 9)
    assert (code, err) == (
        0,
        f"note: {folder / 'ckptsel.toml'}: holdout has no effect: --eval-split names what is "
        "evaluated.\n",
    )
    (folder / "ckptsel.toml").unlink()
    save_images(folder / "flat", 5)
    code, _, err = run(*fast, "-d", folder / "flat", "--max-eval-samples", 9)
    assert code == 0
    assert "note: --max-eval-samples has no effect: the training split is cross-validated." in err


def test_confirm_asks_the_ranking_for_its_goal(
    run, folder: Path, trajectory: Path, images: Path
) -> None:
    assert (
        run("rank", trajectory, "-d", images, "-o", "r", "-q", "--scores", "linear_probe")[0] == 0
    )
    small = ("--steps", 4, "--seeds", 1, "--lr", 0.1, "--candidates", 2, "-q")
    code, _, err = run("confirm", "r", *small, "--ema", 0.9, "--full", "--tolerance", 0.02)
    assert code == 0
    assert err == (
        "note: --ema has no effect: it is for fine-tuning, and the goal is fe.\n"
        "note: --tolerance has no effect: with --full there is no race.\n"
    )
