"""Several targets at once: each ranked as alone, and what they say together."""

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file

import ckptsel
from ckptsel.checkpoints import weights
from ckptsel.errors import InputError
from ckptsel.ranking import processes
from ckptsel.ranking.overall import over_targets
from ckptsel.ranking.rank import rank_for_each
from ckptsel.results.targets import overall_summary, read_targets
from ckptsel.settings.option import Given, OptionError
from ckptsel.settings.rank import make_settings
from ckptsel.settings.targets import folder_names, wanted_targets
from ckptsel.settings.toml import read_config
from tests.conftest import save_images
from tools import reference

QUICK = ("-q", "--scores", "linear_probe")

OWN = ("created", "settings", "time_s")
"""What differs between two runs of the same ranking."""


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second target, of more noise."""
    save_images(tmp_path / "other" / "train", 12, seed=3, noise=70.0)
    save_images(tmp_path / "other" / "val", 10, seed=4, noise=70.0)
    return tmp_path / "other"


def stored(folder: Path) -> dict:
    value = json.loads((folder / "ranking.json").read_text())
    return {key: value[key] for key in value if key not in OWN}


def test_each_target_is_ranked_as_alone(
    trajectory: Path, images: Path, other: Path, tmp_path: Path, run
) -> None:
    out = tmp_path / "out"
    code, printed, _ = run(
        *("rank", trajectory, "--data", images, "--data", other, "--out", out, *QUICK, "--layers"),
        *("last,layer2", "--cache-dir", tmp_path / "together"),
    )
    assert code == 0
    for data in (images, other):
        alone, cache = tmp_path / f"alone-{data.name}", tmp_path / f"cache-{data.name}"
        arguments = ("--data", data, "--out", alone, *QUICK, "--layers", "last,layer2")
        code, one, _ = run("rank", trajectory, *arguments, "--cache-dir", cache)
        assert code == 0
        assert stored(out / data.name) == stored(alone)
        for name in ("ranking.csv", "predictions.safetensors"):
            assert (out / data.name / name).read_bytes() == (alone / name).read_bytes()
        assert f"{data.name} ({data}):\n{one}" in printed
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ("images", "other", "report.html", "targets.json")
    )
    assert sorted(p.name for p in alone.iterdir()) == sorted(
        p.name for p in (out / "other").iterdir()
    )


def test_weights_are_loaded_once_for_all(
    trajectory: Path, images: Path, other: Path, monkeypatch
) -> None:
    loaded = []
    read = weights.read_weights

    def counted(checkpoint, *rest):
        loaded.append(checkpoint.name)
        return read(checkpoint, *rest)

    monkeypatch.setattr(weights, "read_weights", counted)
    ckptsel.rank(trajectory, images, cache=False, scores=("linear_probe",))
    for_one = len(loaded)
    loaded.clear()
    settings = make_settings({"cache": False, "scores": ("linear_probe",)})
    rank_for_each(trajectory, [(str(images), settings), (str(other), settings)])
    assert for_one == 6  # audited, then read again
    assert len(loaded) <= for_one


def test_two_processes_give_the_same(
    trajectory: Path, images: Path, other: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(processes, "START", "fork")
    found = []
    for n in (1, 2):
        settings = make_settings(
            {"cache_dir": str(tmp_path / f"c{n}"), "processes": n, "scores": ("linear_probe",)}
        )
        found.append(rank_for_each(trajectory, [(str(images), settings), (str(other), settings)]))
    for (one, _), (two, _) in zip(*found, strict=True):
        assert one.checkpoints == two.checkpoints


def test_the_table_over_all_by_another_computation(
    trajectory: Path, images: Path, other: Path, tmp_path: Path, run
) -> None:
    """From the held-out values beside each ranking and from its table."""
    out = tmp_path / "out"
    assert run("rank", trajectory, "-d", images, "-d", other, "-o", out, *QUICK)[0] == 0
    record = json.loads((out / "targets.json").read_text())
    names = [f"checkpoint-{epoch:03d}" for epoch in (1, 5, 10)]
    regret = np.zeros((2, 3))
    rank = np.zeros((2, 3))
    for i, target in enumerate(("images", "other")):
        arrays = load_file(out / target / "predictions.safetensors")
        accuracy = [arrays[f"{name}/linear_probe/per_image"].mean() for name in names]
        regret[i] = max(accuracy) - np.array(accuracy)
        lines = (out / target / "ranking.csv").read_text().splitlines()[1:]
        rank[i] = [next(int(x.split(",")[0]) for x in lines if f",{n}," in x) for n in names]
    rows = {row["name"]: row for row in record["candidates"]}
    assert set(rows) == set(names)
    for i, name in enumerate(names):
        row = rows[name]
        assert row["mean_rank"] == pytest.approx(rank[:, i].mean())
        assert row["worst_regret"]["value"] == pytest.approx(regret[:, i].max())
        for j, target in enumerate(("images", "other")):
            on = row["targets"][target]
            assert on["rank"] == rank[j, i]
            assert on["regret"]["value"] == pytest.approx(regret[j, i])
            own = json.loads((out / target / "ranking.json").read_text())["checkpoints"]
            behind = next(r for r in own if r["name"] == name)["behind_best"]
            assert (on["regret"]["low"], on["regret"]["high"]) == (behind["low"], behind["high"])
    least = regret.max(axis=0)
    assert record["nearest"] == names[int(least.argmin())]
    assert record["good_everywhere"] == [
        names[i] for i in np.argsort(least) if least[i] <= record["tolerance"]
    ]
    order = [row["worst_regret"]["value"] for row in record["candidates"]]
    assert order == sorted(order)
    jsonschema.validate(record, reference.targets_schema())
    assert json.loads(json.dumps(read_targets(out).to_dict())) == record


def made(tmp_path: Path, values: dict[str, list[float]], n: int = 400, **changes):
    """Rankings by target of three checkpoints with given accuracies, from made held-out values."""
    from ckptsel.ranking.order import order_rows
    from ckptsel.results.ranking import Ranking, Row
    from ckptsel.results.scores import ScoreResult
    from tests.conftest import ABOUT

    rankings = {}
    for target, accuracies in values.items():
        rows, results = [], {}
        for i, accuracy in enumerate(accuracies):
            name = f"c{i}"
            rows.append(Row(name, f"{name}.pt", "d", i, i, None, "file", None, "x", "ok"))
            right = (np.arange(n) < round(accuracy * n)).astype(float)
            results[name] = {"linear_probe": ScoreResult(accuracy, right)}
        ordered = order_rows(rows, results, {"linear_probe": "accuracy"}, "linear_probe", 200, 0)
        rankings[target] = Ranking(
            goal="fe",
            score="linear_probe",
            checkpoints=tuple(ordered.rows),
            best=ordered.rows[0].name,
            tie_set=tuple(r.name for r in ordered.rows if r.in_tie_set),
            references=ordered.references,
            notes=(),
            environment={},
            time_s={},
            created="2026",
            version=None,
            units={"linear_probe": "accuracy"},
            **{**ABOUT, **changes.get(target, {})},
        )
    return rankings


def test_nobody_is_best_anywhere_and_one_is_good_everywhere(tmp_path: Path) -> None:
    rankings = made(tmp_path, {"a": [0.9, 0.895, 0.5], "b": [0.5, 0.7925, 0.8]})
    record = over_targets(rankings, 0.01)
    assert record.nearest == "c1" and record.good_everywhere == ("c1",)
    assert re.fullmatch(
        r"c1 is nowhere more than 0\.8 points behind the best \(b: 0\.8 \[0\.0, \d\.\d\]\), though "
        r"\d\.\d points cannot be ruled out at 95 %; no other is within 1 point\.",
        overall_summary(record),
    )


def test_none_is_within_the_tolerance(tmp_path: Path) -> None:
    rankings = made(tmp_path, {"a": [0.9, 0.85, 0.5], "b": [0.5, 0.7, 0.8]})
    record = over_targets(rankings, 0.02)
    assert record.nearest == "c1" and record.good_everywhere == ()
    assert overall_summary(record).startswith(
        "no checkpoint is within 2.0 points of the best on every target; the nearest is c1, 10.0 ["
    )
    assert overall_summary(record).endswith("points behind on b; the best of each: c0 (a), c2 (b).")


def test_a_target_without_a_winner_does_not_count(tmp_path: Path) -> None:
    doubt = {
        "no_winner": "two labels of three are wrong.",
        "doubts": ("two labels of three are wrong.",),
    }
    rankings = made(tmp_path, {"a": [0.9, 0.5, 0.4], "b": [0.5, 0.6, 0.4]}, b=doubt)
    record = over_targets(rankings, 0.01)
    assert (
        record.nearest == "c0" and record["c0"].mean_rank == 1 and record["c0"].worst_target == "a"
    )
    assert record.targets[1].not_counted == "two labels of three are wrong."
    alone = over_targets({"b": rankings["b"]}, 0.01)
    assert overall_summary(alone) == (
        "no checkpoint is recommended over all: on none of the targets is one."
    )


def test_where_nothing_measures_it(trajectory: Path, images: Path, other: Path, run) -> None:
    code, printed, _ = run("rank", trajectory, "-d", images, "-d", other, *QUICK, "--goal", "ft")
    assert code == 0
    assert (
        "over all targets:\nhow far each is behind the best is not known, since epoch decides: they "
        "stand in the order of their mean rank, the first checkpoint-010.\n" in printed
    )


def test_a_score_without_held_out_values_has_regrets_without_intervals(
    trajectory: Path, images: Path, other: Path, run
) -> None:
    arguments = ("-d", images, "-d", other, *QUICK, "--by", "logme", "--format", "json")
    code, printed, _ = run("rank", trajectory, *arguments)
    assert code == 0
    record = json.loads(printed)
    assert list(record["rankings"]) == ["images", "other"]
    assert record["unit"] == "nats"
    by_rank = sorted(record["candidates"], key=lambda row: row["targets"]["images"]["rank"])
    regrets = [row["targets"]["images"]["regret"] for row in by_rank]
    assert regrets[0]["value"] == 0 and regrets[0]["low"] is None
    assert regrets[1]["value"] > 0


def test_a_checkpoint_that_fails_is_last(
    trajectory: Path, images: Path, other: Path, run, tmp_path: Path
) -> None:
    (trajectory / "checkpoint-007.pth").write_bytes(b"nonsense")
    out = tmp_path / "out"
    code, printed, _ = run("rank", trajectory, "-d", images, "-d", other, *QUICK, "-o", out)
    assert code == 0
    row = json.loads((out / "targets.json").read_text())["candidates"][-1]
    assert row["name"] == "checkpoint-007"
    assert row["mean_rank"] is None and row["worst_regret"] is None
    assert printed.splitlines()[-1].split()[-2:] == ["failed", "failed"]


def test_a_target_of_a_file(
    trajectory: Path, images: Path, other: Path, tmp_path: Path, run, monkeypatch
) -> None:
    """Each table has options of its own, over those of all, below those of the command line."""
    monkeypatch.chdir(tmp_path)
    Path("ckptsel.toml").write_text(
        f'checkpoints = "{trajectory}"\nout = "out"\nholdout = 0.3\n'
        f'[[target]]\ndata = "{images}"\neval-split = "val"\nmax-train-samples = 30\n'
        f'[[target]]\ndata = "{other}"\nname = "own"\n'
        f'[[target]]\ndata = "{other}"\nholdout = 0.5\n'
    )
    code, _, err = run("rank", *QUICK)
    assert (code, err.count("note: ")) == (3, 1)  # of images the split is called validation
    text = Path("ckptsel.toml").read_text().replace('"val"', '"validation"')
    Path("ckptsel.toml").write_text(text)
    code, _, err = run("rank", *QUICK)
    assert code == 0
    settings = {
        name: json.loads(Path(f"out/{name}/ranking.json").read_text())["settings"]
        for name in ("images", "own", "other")
    }
    assert [settings[n]["holdout"] for n in settings] == [0.3, 0.3, 0.5]
    assert [settings[n]["max_train_samples"] for n in settings] == [30, None, None]
    assert settings["images"]["eval_split"] == "validation"
    given = Given({"holdout": 0.2, "data": ("x",)}, {"holdout": "--holdout", "data": "--data"})
    config = read_config(Path("ckptsel.toml"))
    assert [t.settings.holdout for t in wanted_targets(given, config.rank, config.targets)] == [0.2]
    del given.values["data"]
    wanted = wanted_targets(given, config.rank, config.targets)
    assert [target.settings.holdout for target in wanted] == [0.2, 0.2, 0.2]


WRONG_FILES = [
    ('data = "a"\n[[target]]\ndata = "b"', "data and [[target]] both say what is ranked for"),
    ('data = ["a", "b", "a"]', "data a is given twice."),
    ('[target]\ndata = "b"', "target is a table; it must be a list of tables: [[target]]."),
    ('[[target]]\nname = "b"', "target 1: it has no data; name the labelled images."),
    ('[[target]]\ndata = ""', "target 1: data is ''; it must be a text that is not empty."),
    ('[[target]]\ndata = "a"\n[[target]]\ndata="b"\nseed = 3', "target 2: unknown option 'seed'."),
    (
        '[[target]]\ndata = "a"\nname = "../x"',
        "target 1: name is '../x'; it must be a name for a folder",
    ),
    (
        '[[target]]\ndata = "a"\nname = "x"\n[[target]]\ndata="b"\nname = "X"',
        "two targets have the name x: give each its own.",
    ),
    (
        '[[target]]\ndata = "a"\nname = "report.html"',
        "name report.html is taken by a file: give another.",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_wrong_tables(text: str, message: str, tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ckptsel.toml").write_text(text)
    code, _, err = run("rank", "ckpts")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        (("--confirm", 2), "rank, then run `ckptsel confirm OUT/images`"),
        (("--gate",), "rank, then run `ckptsel gate OUT/images`"),
        (("--shard", "1/2"), "score the parts of one target after the other"),
        (("--log-to", "mlflow"), "rank, then run `ckptsel log OUT/images --to ...`"),
    ],
)
def test_what_is_for_one_target(option, instead, trajectory, images, other, run) -> None:
    code, _, err = run("rank", trajectory, "-d", images, "-d", other, *option)
    assert code == 2
    assert err == f"error: {option[0]} is for one target, and 2 are given: {instead}.\n"


def test_watch_is_for_one_target(trajectory, images, other, run, tmp_path) -> None:
    code, _, err = run("watch", trajectory, "-d", images, "-d", other, "-o", tmp_path / "out")
    assert code == 2
    assert err == "error: watch ranks for one target, and 2 are given: start one for each.\n"


def test_a_target_that_cannot_be_used_is_said_before_the_work(
    trajectory: Path, images: Path, tmp_path: Path, run
) -> None:
    code, _, err = run(
        "rank", trajectory, "-d", images, "-d", tmp_path / "none", "-o", tmp_path / "out"
    )
    assert code == 3
    assert "none" in err and "rank 1/" not in err
    assert not (tmp_path / "out" / "images" / "ranking.json").exists()
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "none").write_text("")
    code, _, err = run(
        *("rank", trajectory, "-d", images, "-d", tmp_path / "none", "-o", tmp_path / "file")
    )
    assert code == 3
    assert f"cannot write {tmp_path}/file/none/.writable" in err


def test_a_target_on_which_all_fail_is_named(
    trajectory: Path, images: Path, other: Path, monkeypatch
) -> None:
    from ckptsel.ranking import passes
    from ckptsel.ranking.scoring import Outcome, score_candidates

    def score(spec, workspace):
        if spec.data == str(images):
            yield from score_candidates(spec, workspace)
        else:
            yield from (Outcome(c.name, problem="features are not finite") for c in spec.candidates)

    monkeypatch.setattr(passes, "score_candidates", score)
    settings = make_settings({})
    with pytest.raises(InputError, match=f"^{other}: none of the 3 checkpoints can be used"):
        rank_for_each(trajectory, [(str(images), settings), (str(other), settings)])


def test_one_target_is_as_before(trajectory: Path, images: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    code, _, err = run("rank", trajectory, "-d", images, "-o", out, "--tolerance", 0.02, *QUICK)
    assert code == 0
    assert "--tolerance has no effect: it is for several targets or a budget, and neither is" in err
    assert sorted(path.name for path in out.iterdir()) == [
        *("predictions.safetensors", "ranking.csv", "ranking.json", "report.html"),
    ]


def test_folders(trajectory: Path, images: Path, other: Path, tmp_path: Path, run) -> None:
    """Commands take a target's folder; the one above says so, and one ranking is not overwritten."""
    out = tmp_path / "out"
    assert run("rank", trajectory, "-d", images, "-d", other, *QUICK, "-o", out)[0] == 0
    code, path, _ = run("pick", out / "other")
    assert code == 0 and path.startswith(str(trajectory))
    code, _, err = run("pick", out)
    assert code == 3
    assert (
        f"{out} holds the rankings of several targets: give the folder of one, {out}/images, "
        in err
    )
    code, _, err = run("rank", trajectory, "-d", images, "-d", other, *QUICK, "-o", out / "other")
    assert code == 3
    assert "holds the ranking of one target, whose report would be lost." in err
    code, _, err = run("rank", trajectory, "-d", images, *QUICK, "-o", out)
    assert code == 3
    assert "holds the rankings of several targets, whose report would be lost." in err


def test_over_all_each_checkpoint_stands_once(
    trajectory: Path, images: Path, other: Path, run
) -> None:
    both = ("rank", trajectory, "-d", images, "-d", other, "-q", "--layers", "last,layer1")
    code, text, _ = run(*both, "--scores", "ridge_probe")
    assert code == 0
    overall = text.split("over all targets:\n")[1]
    table = overall[overall.index("mean rank") :].splitlines()[1:]
    checkpoints = [line.split()[0].partition("@")[0] for line in table]
    assert len(checkpoints) == len(set(checkpoints)) > 1
    assert f"{len(checkpoints)} others are left out" in overall


def test_csv_and_markdown(trajectory: Path, images: Path, other: Path, run) -> None:
    both = ("rank", trajectory, "-d", images, "-d", other, *QUICK)
    code, table, _ = run(*both, "--format", "csv")
    assert code == 0
    assert table.startswith("target,rank,name,")
    assert [line.split(",")[0] for line in table.splitlines()[1:]] == ["images"] * 3 + ["other"] * 3
    code, text, _ = run(*both, "--format", "md", "--explain")
    assert code == 0
    assert "## over all targets\n\ncheckpoint-" in text
    assert text.count("linear_probe") > 4


def test_page(trajectory: Path, images: Path, other: Path, tmp_path: Path, run) -> None:
    """One page, in which no id stands twice and no link leads nowhere."""
    out = tmp_path / "out"
    assert run("rank", trajectory, "-d", images, "-d", other, *QUICK, "-o", out)[0] == 0
    page = (out / "report.html").read_text()
    html = page[: page.index("<script>")]
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for name in re.findall(
        r'(?:href="#|aria-controls="|data-copy="|aria-labelledby=")([^"]+)"', html
    ):
        assert name in ids
    charts = [int(i) for i in re.findall(r'data-chart="(\d+)"', html)]
    drawn = json.loads(re.search(r'id="specifications">(.*?)</script>', page, re.DOTALL).group(1))
    assert charts == list(range(len(drawn)))
    assert html.count('id="tab-') == 3


NAMES = [
    (["a/", "b/x.csv", "hfds/org/n", "paper/flowers102"], ["a", "x", "n", "flowers102"]),
    (["cats/images", "dogs/images/"], ["cats-images", "dogs-images"]),
    (["a", "./a", "A"], ["a", "a-2", "A-3"]),
    (
        ["s/my data", "v1.5", ".hidden", "/", "report.html"],
        ["my-data", "v1.5", "hidden", "target", "report.html-2"],
    ),
]


@pytest.mark.parametrize(("datas", "names"), NAMES)
def test_names_of_folders(datas: list[str], names: list[str]) -> None:
    assert folder_names(datas, [None] * len(datas)) == names


def test_a_name_with_a_comma_is_one(tmp_path: Path, run) -> None:
    assert wanted_targets(Given({"data": "a,b"}, {"data": "--data"}), Given(), ())[0].data == "a,b"
    code, _, err = run("rank", tmp_path, "--data", "a,b")
    assert code == 3 and "2 are given" not in err
    with pytest.raises(OptionError, match="^--data is ''; it must be a text that is not empty"):
        wanted_targets(Given({"data": ("",)}, {"data": "--data"}), Given(), ())
