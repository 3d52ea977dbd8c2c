"""The gate: decisions on made rankings, further images, references; the command line and its codes."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import save_file

from ckptsel.errors import InputError, UsageError
from ckptsel.gating.baseline import compare_with_stored
from ckptsel.gating.gate import CANNOT_TELL, FAIL, PASS, further_images, hold_against
from ckptsel.gating.junit import junit_text
from ckptsel.results.estimate import Measured
from ckptsel.results.files import RANKING_NAME
from ckptsel.results.ranking import Ranking, Reference, Row, ScoreValue
from ckptsel.results.search import SearchRecord, Unseen
from ckptsel.settings.policy import Policy
from tests.conftest import ABOUT


def make_ranking(n: int = 1000, **changes: object) -> Ranking:
    """`new` at 90 % [88, 92] on new images, `old` 3 points [1, 5] behind it, and one that failed."""
    made = {
        "new": (0.90, Measured(0.0, 0.0, 0.0, by="linear_probe")),
        "old": (0.87, Measured(0.03, 0.01, 0.05, by="linear_probe")),
    }
    rows = [
        Row(
            name=name,
            path=f"ckpts/{name}.pt",
            digest=name * 8,
            order=i,
            epoch=float(i + 1),
            step=None,
            epoch_from="file",
            source_accuracy=None,
            format="timm",
            status="ok",
            rank=i + 1,
            behind_best=behind,
            scores={"linear_probe": ScoreValue(value, value - 0.01, value + 0.01)},
        )
        for i, (name, (value, behind)) in enumerate(made.items())
    ]
    failed = dataclasses.replace(
        rows[1],
        name="broken",
        path="ckpts/broken.pt",
        status="failed",
        reason="it is empty",
        rank=None,
        behind_best=None,
    )
    target = ABOUT["target"] | {"evaluation": ABOUT["target"]["evaluation"] | {"n_eval": n}}
    ranking = Ranking(
        goal="fe",
        score="linear_probe",
        checkpoints=(*rows, dataclasses.replace(failed, scores={})),
        best="new",
        tie_set=("new",),
        references={"last": Reference("old")},
        notes=(),
        **(ABOUT | {"target": target}),
        environment={},
        time_s={},
        created="now",
        version="0",
        units={"linear_probe": "accuracy"},
        expected=Measured(0.90, 0.88, 0.92, n=n, by="linear_probe"),
    )
    return dataclasses.replace(ranking, **changes)


@pytest.mark.parametrize(
    ("policy", "decision"),
    [
        (Policy(current="old", max_regret=0.05), PASS),  # the interval's end lies on the limit
        (Policy(current="old", max_regret=0.04), CANNOT_TELL),
        (Policy(current="old", max_regret=0.009), FAIL),
        (Policy(current="old"), CANNOT_TELL),  # its low end lies on one point, which is allowed
        (Policy(current="new", max_regret=0.0), PASS),  # nobody else can be the best
        (Policy(current="ckpts/new.pt"), PASS),
        (Policy(current="old.pt", max_regret=0.0), FAIL),
        (Policy(current="broken"), CANNOT_TELL),
        (Policy(min_accuracy=0.88), PASS),
        (Policy(min_accuracy=0.89), CANNOT_TELL),
        (Policy(min_accuracy=0.93), FAIL),
        (Policy(strict=True), FAIL),
        (Policy(min_accuracy=0.88, current="old", max_regret=0.009), FAIL),
        (Policy(min_accuracy=0.89, current="old", max_regret=0.05), CANNOT_TELL),
        (Policy(min_accuracy=0.89, strict=True), FAIL),  # no is stronger than cannot tell
    ],
)
def test_decisions(policy: Policy, decision: str) -> None:
    assert hold_against(make_ranking(), policy).decision == decision


@pytest.mark.parametrize(
    ("ahead", "decision"),
    [((0.0, -0.01, 0.01), PASS), ((-0.02, -0.03, -0.011), FAIL), ((0.0, -0.02, 0.02), CANNOT_TELL)],
)
def test_a_baseline_may_be_ahead_by_the_tolerance(ahead, decision: str) -> None:
    policy = Policy(baseline="stored.json", tolerance=0.01)
    verdict = hold_against(make_ranking(), policy, Measured(*ahead, by="linear_probe"))
    assert verdict.decision == decision


def test_nothing_measured_cannot_be_told() -> None:
    """Fine-tuning that nobody tried: only the order of training is known."""
    row = dataclasses.replace(make_ranking().checkpoints[0], behind_best=None)
    old = dataclasses.replace(make_ranking().checkpoints[1], behind_best=None)
    ranking = make_ranking(goal="ft", score="epoch", checkpoints=(row, old), expected=None)
    policy = Policy(current="old", min_accuracy=0.5, baseline="b")
    verdict = hold_against(ranking, policy, None)
    assert [check.decision for check in verdict.checks] == [CANNOT_TELL] * 3
    assert all("ckptsel confirm RUN --goal ft" in check.text for check in verdict.checks)


def test_one_seed_is_said() -> None:
    rows = list(make_ranking().checkpoints)
    behind = Measured(0.03, 0.01, 0.05, by="confirmed", random="images")
    rows[1] = dataclasses.replace(rows[1], behind_best=behind)
    (check,) = hold_against(make_ranking(checkpoints=tuple(rows)), Policy(current="old")).checks
    assert "behind the best (by confirmed, one seed: over images only)" in check.text


def test_a_ranking_that_recommends_nothing_passes_no_check() -> None:
    ranking = make_ranking(no_winner="labels are wrong", doubts=("labels are wrong",))
    policy = Policy(current="old", max_regret=1, min_accuracy=0, baseline="b", tolerance=1)
    verdict = hold_against(ranking, policy, Measured(0.5, 0.4, 0.6, by="linear_probe"))
    assert [check.decision for check in verdict.checks] == [CANNOT_TELL] * 3
    assert all("no checkpoint is recommended: labels are wrong" in c.text for c in verdict.checks)


@pytest.mark.parametrize(
    ("chance", "decision"), [(0.4, CANNOT_TELL), (None, CANNOT_TELL), (0.04, PASS)]
)
def test_what_was_not_looked_at_may_be_better(chance, decision: str) -> None:
    search = SearchRecord("4", 0.01, 7, 4, chance, (Unseen("far", 1, None, None),))
    ranking = make_ranking(search=search)
    (check,) = hold_against(ranking, Policy(current="old", max_regret=0.05)).checks
    assert check.decision == decision and "4 of 7 were looked at" in check.text
    failing = hold_against(ranking, Policy(current="old", max_regret=0.009))
    assert failing.decision == FAIL, "another can only be better"
    with pytest.raises(UsageError, match="far was not looked at: the ranking has 4 of 7"):
        hold_against(ranking, Policy(current="far"))


def test_where_all_are_right_the_interval_shrinks_with_their_number() -> None:
    """10 of 10 right and 0.99 asked for: 368 are enough by Clopper and Pearson's interval."""
    low = 0.025 ** (1 / 10)
    more = further_images(0.01, low - 0.99, 0.01, 10, all_alike=True)
    assert more is not None and 250 < more + 10 < 500


@pytest.mark.parametrize("limit", [0.46, 0.485, 0.52])
def test_so_many_further_images_decide(limit: float) -> None:
    """With them, and a tenth fewer, by the normal interval of a share: 500 of 1000 images right."""

    def bounds(n: int) -> tuple[float, float]:
        half = 1.96 * np.sqrt(0.25 / n)
        return 0.5 - half - limit, 0.5 + half - limit

    low, high = bounds(100)
    more = further_images(0.5 - limit, low, high, 100)
    assert low < 0 < high
    enough, too_few = bounds(100 + more), bounds(int(0.9 * (100 + more)))
    assert not enough[0] < 0 < enough[1]
    assert too_few[0] < 0 < too_few[1]


def test_on_the_limit_no_number_of_images_decides() -> None:
    assert further_images(0.0, -0.1, 0.1, 1000) is None
    check = hold_against(make_ranking(), Policy(min_accuracy=0.9)).checks[0]
    assert (check.decision, check.n_more_images) == (CANNOT_TELL, None)
    decided = hold_against(make_ranking(), Policy(min_accuracy=0.85)).checks[0]
    assert decided.n_more_images is None
    open_ = hold_against(make_ranking(), Policy(min_accuracy=0.89)).checks[0]
    assert open_.n_more_images == 3000  # half the width takes four times the images
    assert "about 3,000 more evaluation images would tell" in open_.text


def test_of_equals_no_more_images_than_said_decide() -> None:
    equal = Measured(0.0, 0.0, 0.02, n=100, by="linear_probe")
    rows = tuple(
        dataclasses.replace(row, behind_best=equal if row.name == "old" else row.behind_best)
        for row in make_ranking()
    )
    ranking = dataclasses.replace(make_ranking(), checkpoints=rows)
    check = hold_against(ranking, Policy(current="old", max_regret=0.01)).checks[0]
    assert check.n_more_images == 300 and check.text.endswith(
        "; at most 300 more evaluation images would tell"
    )


def test_where_runs_scatter_more_images_alone_do_not_decide() -> None:
    expected = dataclasses.replace(make_ranking().expected, random="images and seeds")
    ranking = dataclasses.replace(make_ranking(), expected=expected)
    check = hold_against(ranking, Policy(min_accuracy=0.89)).checks[0]
    assert check.n_more_images is None
    assert check.text.endswith("; more training seeds, or images, would tell")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the gate has no policy"),
        (
            {"min_accuracy": 85},
            "min_accuracy is 85; it is a fraction between 0 and 1 (0.85 for 85 %)",
        ),
        ({"max_regret": 0.1}, "max_regret is given without current"),
        ({"tolerance": 0.1, "strict": True}, "tolerance is given without baseline"),
    ],
)
def test_a_policy_that_says_nothing_sensible(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Policy(**options)
    assert message in str(raised.value)


def test_a_pinned_checkpoint_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no checkpoint 'olb' in the ranking.*Did you mean old"):
        hold_against(make_ranking(), Policy(current="olb"))


# ---- references -----------------------------------------------------------------------------------


def stored(folder: Path, ranking: Ranking, correct: np.ndarray | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / RANKING_NAME).write_text(json.dumps(ranking.to_dict()))
    if correct is not None:
        save_file(arrays_of(correct), folder / "predictions.safetensors")
    return folder


def arrays_of(correct: np.ndarray) -> dict[str, np.ndarray]:
    return {"new/linear_probe/per_image": correct, "evaluated": np.arange(len(correct))}


def other_ranking() -> Ranking:
    """The same but for other weights of its best."""
    ranking = make_ranking()
    best = dataclasses.replace(ranking["new"], digest="other")
    return dataclasses.replace(ranking, checkpoints=(best, *ranking.checkpoints[1:]))


def test_on_the_same_images_the_comparison_is_paired(tmp_path: Path) -> None:
    """Two that differ on ten images of a thousand differ by one point, give or take little."""
    mine = np.random.default_rng(0).random(1000) < 0.9
    theirs = mine.copy()
    theirs[np.flatnonzero(mine)[:10]] = False
    path = stored(tmp_path / "base", other_ranking(), theirs.astype(float))
    paired = compare_with_stored(make_ranking(), arrays_of(mine.astype(float)), path)
    # Ten independent images: 0.01 with a standard error of sqrt(10) / 1000.
    assert paired.value == pytest.approx(0.01)
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * np.sqrt(10) / 1000, rel=0.15)
    assert paired.by == "linear_probe on the same images"


def test_without_predictions_both_intervals_count(tmp_path: Path) -> None:
    path = stored(tmp_path / "base", other_ranking()) / RANKING_NAME
    unpaired = compare_with_stored(make_ranking(), {}, path)
    assert unpaired.high == pytest.approx(0.02 * np.sqrt(2))
    assert unpaired.low == pytest.approx(-0.02 * np.sqrt(2))


def test_the_same_weights_differ_by_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path / "base", make_ranking())
    assert compare_with_stored(make_ranking(), {}, path).by == "the same weights"
    model = {**make_ranking().model, "preprocessing": {"crop_pct": 0.8}}
    otherwise = compare_with_stored(make_ranking(model=model), {}, path)
    assert otherwise.by != "the same weights", "they were read otherwise"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": "ft"}, "its goal is ft, here it is fe"),
        ({"target": {**make_ranking().target, "fingerprint": "0" * 64}}, "its target is 3 classes"),
        ({"target": make_ranking(n=9).target}, "its evaluation is"),
    ],
)
def test_a_baseline_of_something_else_is_no_baseline(tmp_path: Path, changes, message: str) -> None:
    path = stored(tmp_path / "base", make_ranking(**changes))
    with pytest.raises(InputError) as raised:
        compare_with_stored(make_ranking(), {}, path)
    assert message in str(raised.value)


# ---- the command line ----------------------------------------------------------------------------


def test_exit_codes_tell_no_from_cannot_tell(run, tmp_path: Path) -> None:
    folder = stored(tmp_path / "run", make_ranking())
    assert run("gate", folder, "--min-accuracy", "0.88")[0] == 0
    code, out, err = run("gate", folder, "--min-accuracy", "0.93")
    assert (code, err) == (4, "error: the gate says no: min-accuracy.\n")
    assert out == (
        "gate: fail\n"
        "  fail: min-accuracy: new reaches 90.0 % [88.0, 92.0] on new images (by linear_probe), at "
        "least 93 % asked for\n"
    )
    code, _, err = run("gate", folder, "--min-accuracy", "0.89")
    assert (code, err) == (5, "error: the gate cannot tell: min-accuracy.\n")
    assert run("gate", folder)[0] == 2
    assert run("gate", tmp_path / "nothing", "--strict")[0] == 3


@pytest.mark.parametrize("form", ["json", "csv", "md"])
def test_formats(run, tmp_path: Path, form: str) -> None:
    folder = stored(tmp_path / "run", make_ranking())
    code, out, _ = run("gate", folder, "--current", "old", "--min-accuracy", "0.5", "-f", form)
    assert code == 5
    if form == "json":
        verdict = json.loads(out)
        assert verdict["decision"] == "cannot-tell"
        assert verdict["checks"][0]["limit"] == 0.01
    else:
        assert out.count("cannot-tell") >= 1 and "min-accuracy" in out


def test_junit_counts_what_common_readers_count(run, tmp_path: Path) -> None:
    folder = stored(tmp_path / "run", make_ranking())
    file = tmp_path / "junit.xml"
    policy = ["--min-accuracy", "0.5", "--strict", "--current", "old"]
    assert run("gate", folder, *policy, "--junit", file)[0] == 4
    root = ElementTree.parse(file).getroot()
    suite = root.find("testsuite")
    assert root.tag == "testsuites"
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == [
        "3",
        "1",
        "0",
        "1",
    ]
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {
        "regret": ["skipped"],
        "min-accuracy": ["system-out"],
        "strict": ["failure"],
    }
    assert "1 of 3 checkpoints cannot be used: broken" in suite.find(".//failure").get("message")


def test_junit_takes_any_text() -> None:
    ranking = make_ranking()
    rows = [dataclasses.replace(row, name=f'<{row.name}&"') for row in ranking]
    verdict = hold_against(
        dataclasses.replace(ranking, checkpoints=tuple(rows)), Policy(strict=True)
    )
    assert '<broken&"' in ElementTree.fromstring(junit_text(verdict)).find(".//failure").text


def test_a_ci_step_is_one_line(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else lies in ckptsel.toml; the files are there whatever the gate says."""
    monkeypatch.chdir(tmp_path)
    Path("ckptsel.toml").write_text(
        'scores = ["linear_probe"]\nout = "ranking"\n'
        '[gate]\nmin-accuracy = 0.999\njunit = "junit.xml"\n'
    )
    code, out, err = run("rank", "ckpts", "--data", "images", "--gate", "--quiet")
    assert code in (4, 5)
    assert "options from" not in err
    assert "\ngate: " in out and "min-accuracy" in out
    assert {path.name for path in Path("ranking").iterdir()} >= {"ranking.json", "report.html"}
    assert Path("junit.xml").is_file()
    again = run("rank", "ckpts", "--data", "images", "--gate")
    assert again[:2] == (code, out)
    assert "options from ckptsel.toml" in again[2]
    json_code, json_out, _ = run("gate", "ranking", "-f", "json")
    assert json_code == code
    code, out, _ = run("rank", "ckpts", "--data", "images", "--gate", "-q", "-f", "json")
    assert json.loads(out)["gate"] == json.loads(json_out)


def test_pyproject_holds_options_too(run, images, trajectory, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(
        '[tool.ckptsel]\ncheckpoints = "ckpts"\ndata = "images"\nscores = ["linear_probe"]\n'
        "[tool.ckptsel.gate]\nstrict = true\n"
    )
    code, out, err = run("rank", "--gate")
    assert code == 0
    assert "pass: strict: all 3 checkpoints could be used" in out
    assert "options from pyproject.toml" in err
    Path("ckptsel.toml").write_text("[gate]\nstric = true\n")  # counts before pyproject.toml
    code, _, err = run("rank", "--gate")
    assert code == 2
    assert "ckptsel.toml, below gate: unknown option 'stric'. Did you mean strict?" in err


def test_another_checkout_has_the_same_images(
    run, images, trajectory, tmp_path, monkeypatch
) -> None:
    """A clone gives its files new times: a stored baseline must hold, and features must be found."""
    monkeypatch.chdir(tmp_path)
    one_line = ("rank", "ckpts", "--data", "images", "--scores", "linear_probe", "-q")
    assert run(*one_line, "--out", "baseline")[0] == 0
    features = sorted(tmp_path.glob("cache/v2/features/*"))
    assert features
    clone = tmp_path / "clone"
    for part in ("ckpts", "images"):
        shutil.copytree(part, clone / part, copy_function=shutil.copyfile)
        for file in (clone / part).rglob("*.*"):
            os.utime(file, (0, 0))
    monkeypatch.chdir(clone)
    assert run(*one_line, "--out", "ranking")[0] == 0
    assert sorted(tmp_path.glob("cache/v2/features/*")) == features
    code, out, _ = run("gate", "ranking", "--baseline", tmp_path / "baseline")
    assert (code, "by the same weights" in out) == (0, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gate = 3\n", "gate is 3; it must be a table"),
        ("[gate\n", "is not valid TOML"),
        ("[gate]\nmin_accuracy = 0.5\nbaseline = 'nowhere.json'\n", "nowhere.json does not exist"),
    ],
)
def test_wrong_configurations(
    run, images, trajectory, tmp_path, monkeypatch, text, message
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ckptsel.toml").write_text(text)
    code, out, err = run("rank", "ckpts", "--data", "images", "--gate", "-q")
    assert code in (2, 3) and out == ""
    assert message in err
    assert not list(tmp_path.glob("cache/v2/features/*")), (
        "work was done before the mistake was said"
    )
