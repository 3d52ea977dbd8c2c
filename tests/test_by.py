"""`rank --by`: any score decides, a plug-in's too; and the list of scores."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ckptsel
from ckptsel import scores
from ckptsel.confirmation.one_goal import _agreement
from ckptsel.gating.gate import CANNOT_TELL, PASS, hold_against
from ckptsel.report.charts import draw
from ckptsel.report.explanation import explain
from ckptsel.report.page import page
from ckptsel.report.series import agreement_records
from ckptsel.results.ranking import Ranking
from ckptsel.results.scores import ScoreResult
from ckptsel.results.summary import summary
from ckptsel.scores import Score
from ckptsel.settings.policy import Policy

UNSURE = "logme has no held-out values: how sure the order is is not known"


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package with a score `loss`, of which the lowest value is the best."""

    def install(compute, **about: object) -> None:
        about = {"unit": "nats", "higher_is_better": False, **about}
        loss = Score("as its package calls it", "made", compute=compute, **about)
        entry = SimpleNamespace(name="loss", load=lambda: loss)
        monkeypatch.setattr(scores, "entry_points", lambda group: [entry])

    return install


def spread(inputs) -> float:
    return float(inputs.fit_features.var(dim=0).mean())


def ranked(trajectory: Path, images: Path, **options: object) -> Ranking:
    return ckptsel.rank(trajectory, images, scores=options.pop("scores", ["logme"]), **options)


def test_a_score_without_held_out_values_orders_and_says_that_nothing_is_sure(
    run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranking"
    code, text, _ = run("rank", trajectory, "-d", images, "--by", "logme", "-o", out, "-q")
    assert code == 0
    ranking = Ranking.from_dict(json.loads((out / "ranking.json").read_text()))
    values = [row.scores["logme"].value for row in ranking]
    assert values == sorted(values, reverse=True) and ranking.score == "logme"
    assert ranking.tie_set == (ranking.best,) and ranking.expected is None
    assert "linear_probe" in ranking.units and ranking.settings["by"] == "logme"
    first = f"{ranking.best} is the first by logme; {UNSURE}."
    assert f"\n{first} Race them to know: ckptsel confirm RUN --goal fe.\n" in text
    assert f"\nnote: {UNSURE}\n" in text
    html = (out / "report.html").read_text()
    assert f">Not known how sure, the first by logme: {ranking.best}</h1>" in html
    assert "logme</dt>" in html and "logme, %" not in html
    assert ("order", f"by logme alone; {UNSURE}.") in explain(ranking)
    code, text, err = run("gate", out, "--current", ranking.best, "--min-accuracy", "0.1")
    assert (code, err) == (5, "error: the gate cannot tell: regret, min-accuracy.\n")
    assert "logme decided, which is no accuracy on held-out images: rank by linear_probe" in text
    assert run("pick", out)[1].strip() == str(ranking[ranking.best].path)


@pytest.mark.parametrize("score", ["knn", "main_component"])
def test_a_score_with_held_out_values_has_ties_and_intervals(
    trajectory: Path, images: Path, score: str
) -> None:
    ranking = ranked(trajectory, images, by=score)
    assert ranking.score == score and list(ranking.units) == [score, "logme"]
    assert sum(row.p_best for row in ranking) == pytest.approx(1)
    assert all(row.behind_best.by == score for row in ranking)
    assert ranking.expected.by == score and "expected on new images" in summary(ranking)
    policy = Policy(current=ranking.best, max_regret=1.0, min_accuracy=0.01)
    assert hold_against(ranking, policy).decision == PASS


def test_nats_are_not_held_against_points(trajectory: Path, images: Path) -> None:
    ranking = ranked(trajectory, images, by="linear_probe_loglik")
    assert all(row.behind_best.by == "linear_probe_loglik" for row in ranking)
    assert " nats behind the best [" in summary(ranking) or "it is the last" in summary(ranking)
    (check,) = hold_against(ranking, Policy(current=ranking.best, max_regret=1.0)).checks
    assert check.decision == CANNOT_TELL and "was not measured in points" in check.text


def test_an_accuracy_at_chance_that_decides_recommends_nothing(
    run, trajectory: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "noise" / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    rank = ("rank", trajectory, "-d", tmp_path / "noise", "--by", "knn", "--scores", "knn", "-q")
    code, text, _ = run(*rank)
    assert code == 0
    assert text.startswith("doubt: these features tell nothing about these classes: knn of ")
    assert "\nno checkpoint is recommended: these features tell nothing" in text


def test_for_fine_tuning_a_score_decides_only_where_it_is_asked_to(
    trajectory: Path, images: Path
) -> None:
    ranking = ranked(trajectory, images, goal="ft", by="linear_probe")
    assert (ranking.goal, ranking.score) == ("ft", "linear_probe")
    assert any("no score was found to foretell fine-tuning" in note for note in ranking.notes)
    assert ranked(trajectory, images, goal="ft").score == "epoch"


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("rankme", "rankme cannot decide a ranking: no labels are looked at"),
        ("alpha_req", "alpha_req cannot decide a ranking"),
        ("logne", "unknown score 'logne'"),
        ("all", "unknown score 'all'"),
    ],
)
def test_what_cannot_decide(run, trajectory: Path, images: Path, by: str, message: str) -> None:
    code, _, err = run("rank", trajectory, "-d", images, "--by", by, "-q")
    assert code == 2 and message in err


def test_every_score_is_computed_where_all_are_asked_for(trajectory: Path, images: Path) -> None:
    ranking = ranked(trajectory, images, scores=["all"])
    assert list(ranking.units) == list(scores.known_scores())
    assert all(list(row.scores) == list(ranking.units) for row in ranking)
    default = ckptsel.rank(trajectory, images)
    assert list(default.units) == [s.name for s in scores.find_scores(None)]
    assert [row.name for row in default] == [row.name for row in ranking]
    assert ranking.best in page(ranking, draw(ranking, {}))


def test_the_lowest_of_a_plug_ins_loss_is_the_best(
    run, trajectory: Path, images: Path, plug_in, tmp_path: Path
) -> None:
    plug_in(lambda inputs: ScoreResult(spread(inputs)))
    out = tmp_path / "ranking"
    code, text, _ = run("rank", trajectory, "-d", images, "--by", "loss", "-o", out, "-q")
    assert code == 0 and "\nnote: of loss the lowest value is the best\n" in text
    ranking = Ranking.from_dict(json.loads((out / "ranking.json").read_text()))
    values = [row.scores["loss"].value for row in ranking]
    assert values == sorted(values) and values[0] < values[-1]
    assert ranking.lower_is_better == ("loss",)
    drawing = next(d for d in draw(ranking, {}) if d.title.startswith("loss"))
    assert drawing.title == "loss, nats (the lowest is the best)"
    assert f"loss: lowest {values[0]:.4g} at" in drawing.about
    code, text, _ = run("scores")
    assert code == 0 and "made (the lowest is the best)" in text and "of another package" in text


def test_a_loss_agrees_where_it_falls(trajectory: Path, images: Path, plug_in) -> None:
    plug_in(lambda inputs: ScoreResult(-spread(inputs)))
    as_loss = ranked(trajectory, images, scores=["loss", "logme"])
    plug_in(lambda inputs: ScoreResult(spread(inputs)), higher_is_better=True, version=2)
    as_score = ranked(trajectory, images, scores=["loss", "logme"])
    assert agreement_records(as_loss) == agreement_records(as_score)


def test_correlation_with_training_turns_the_sign_of_a_loss() -> None:
    values = (0.1, 0.4, 0.3, 0.9, 0.7, 0.8)
    rows = [
        SimpleNamespace(
            name=str(i),
            order=i,
            source_accuracy=None,
            scores={"loss": SimpleNamespace(value=-v), "some": SimpleNamespace(value=v)},
        )
        for i, v in enumerate(values)
    ]
    del rows[3].scores["some"]
    correct = {str(i): np.array([[v, v]]) for i, v in enumerate(values)}
    race = SimpleNamespace(standings=(), correct={10: correct})
    agreement, step = _agreement(rows, race, ("loss",))
    assert agreement["loss"].kendall_tau.value == pytest.approx(1) and step == 10
    assert set(agreement) == {"loss", "epoch"}


def raise_value_error(inputs) -> ScoreResult:
    raise ValueError("no such thing")


WRONG = [
    (raise_value_error, "unexpected ValueError: no such thing"),
    (lambda inputs: ScoreResult(float("nan")), "it is nan, which is no number to rank by."),
    (lambda inputs: ScoreResult(-1e300), "it is -1e+300, which is no number to rank by."),
    (lambda inputs: 0.5, "it gives float, and must give a ScoreResult."),
    (
        lambda inputs: ScoreResult(0.5, np.array([0.5, np.nan])),
        "its values by image must be 30 finite numbers",
    ),
]


@pytest.mark.parametrize(("compute", "reason"), WRONG)
def test_a_plug_in_that_fails_costs_itself_alone_unless_it_decides(
    run, trajectory: Path, images: Path, plug_in, compute, reason: str
) -> None:
    plug_in(compute)
    rank = ("rank", trajectory, "-d", images, "--scores", "loss,logme,linear_probe", "-q")
    code, text, _ = run(*rank)
    names = "checkpoint-001, checkpoint-005, checkpoint-010"
    assert code == 0 and f"note: loss of {names} is left out: {reason}" in text
    assert run(*rank)[1] == text  # from the cache
    code, _, err = run(*rank, "--by", "loss")
    assert code == 3 and f"loss, which decides: {reason}" in err


def test_a_plug_in_that_decides_and_fails_once_costs_one_checkpoint(
    trajectory: Path, images: Path, plug_in
) -> None:
    values = iter([1.0, float("nan"), 2.0])
    plug_in(lambda inputs: ScoreResult(next(values)))
    ranking = ranked(trajectory, images, by="loss")
    failed = ranking["checkpoint-005"]
    assert failed.reason == "loss, which decides: it is nan, which is no number to rank by."
    assert [row.name for row in ranking] == ["checkpoint-001", "checkpoint-010", "checkpoint-005"]


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_list_of_scores(run, form: str) -> None:
    code, text, _ = run("scores", "-f", form)
    assert code == 0 and all(name in text.replace("\\", "") for name in scores.known_scores())
    if form == "json":
        by_name = {row["name"]: row for row in json.loads(text)}
        assert by_name["rankme"]["cannot_decide"].startswith("no labels are looked at")
        assert by_name["linear_probe"]["by_default"] and not by_name["knn"]["by_default"]
    if form == "table":
        assert "rankme, alpha_req may not decide: no labels are looked at" in text
