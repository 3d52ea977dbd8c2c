"""The ranking's order, ties, references, copies, and its JSON."""

import dataclasses
import json

import numpy as np
import pytest

from ckptsel.errors import InputError
from ckptsel.ranking.order import order_rows
from ckptsel.report.tables import format_ranking
from ckptsel.results.ranking import Ranking, Row
from ckptsel.results.scores import ScoreResult
from ckptsel.results.summary import summary
from tests.conftest import ABOUT


def make_row(name: str, order: int, **more) -> Row:
    values = {
        "path": f"/ckpts/{name}.pth",
        "digest": name,
        "epoch": order + 1,
        "step": None,
        "epoch_from": "file",
        "source_accuracy": None,
        "format": "timm",
        "status": "ok",
        **more,
    }
    return Row(name=name, order=order, **values)


def make_results(accuracies: dict[str, float], logliks: dict[str, float], n: int = 2000):
    """Nested correctness, so that differences are as sure as they can be."""
    hard = np.random.default_rng(0).permutation(n) / n
    return {
        name: {
            "linear_probe": ScoreResult(float((hard < a).mean()), (hard < a).astype(float)),
            "linear_probe_loglik": ScoreResult(logliks[name], np.full(n, logliks[name])),
        }
        for name, a in accuracies.items()
    }


@pytest.fixture
def ranked() -> Ranking:
    rows = [
        make_row("a", 0, source_accuracy=0.5),
        make_row("b", 1, source_accuracy=0.7),
        make_row("c", 2, source_accuracy=0.6),
        make_row("c-copy", 3, copy_of="c"),
        make_row("broken", 4, status="failed", reason="the file is empty"),
    ]
    results = make_results({"a": 0.9, "b": 0.8, "c": 0.9005}, {"a": -0.3, "b": -0.6, "c": -0.4})
    units = {"linear_probe": "accuracy", "linear_probe_loglik": "nats", "logme": "nats"}
    ordered = order_rows(rows, results, units, "linear_probe", 500, 0)
    return Ranking(
        goal="fe",
        score="linear_probe",
        checkpoints=tuple(ordered.rows),
        best=ordered.rows[0].name,
        tie_set=("a", "c"),
        references=ordered.references,
        expected=ordered.expected,
        notes=("the trajectory has a gap",),
        **ABOUT,
        environment={},
        time_s={},
        created="2026-01-01T00:00:00+00:00",
        version="0.1.0",
        units=units,
    )


def test_the_log_likelihood_decides_inside_the_tie_set(ranked: Ranking) -> None:
    assert [(row.name, row.rank, row.in_tie_set) for row in ranked] == [
        ("a", 1, True),
        ("c", 2, True),
        ("c-copy", 2, True),
        ("b", 3, False),
        ("broken", None, False),
    ]


def test_copies_carry_the_scores_of_their_original(ranked: Ranking) -> None:
    assert ranked["c-copy"].scores == ranked["c"].scores
    assert ranked["c-copy"].copy_of == "c"


def test_references_are_the_last_and_the_best_by_source_accuracy(ranked: Ranking) -> None:
    assert ranked.references["last"].name == "c"
    source = ranked.references["source_accuracy"]
    assert source.name == "b"
    # Behind the highest, c, not behind a, which the log-likelihood put first.
    assert source.difference == pytest.approx(0.1005)
    assert 0.08 < source.ahead.low < 0.1 < source.ahead.high < 0.12


def test_the_summary_is_a_sentence_with_numbers(ranked: Ranking) -> None:
    expected, last, source, tied = summary(ranked).split("; ")
    assert expected == "a is recommended, 90.0 % [88.3, 91.3] expected on new images"
    assert (
        last == "the last is 0.0 points behind the best [0.0, 0.2], which does not tell them apart"
    )
    assert source.startswith("the best by source accuracy is 10.0 points behind the best [")
    assert tied == "1 other can be the best too, at 95 % (c)."


def test_the_summary_says_why_the_first_is_not_the_highest(ranked: Ranking) -> None:
    row = ranked["c"]
    higher = dataclasses.replace(row.scores["linear_probe"], value=0.91)
    row = dataclasses.replace(row, scores={**row.scores, "linear_probe": higher})
    rows = tuple(row if one.name == "c" else one for one in ranked)
    assert summary(dataclasses.replace(ranked, checkpoints=rows)).endswith(
        "of these c has the highest accuracy, by 1.0 points: among those that cannot be told apart the "
        "log-likelihood decides."
    )


def test_json_goes_there_and_back(ranked: Ranking) -> None:
    value = json.loads(json.dumps(ranked.to_dict()))
    assert value["schema"] == "ckptsel.ranking/2"
    assert value["ckptsel"] == "0.1.0"
    assert Ranking.from_dict(value) == ranked
    value["from the future"] = 1
    value["checkpoints"][0]["new"] = 2
    assert Ranking.from_dict(value) == ranked


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match="schema 'other/9', expected 'ckptsel.ranking/2'"):
        Ranking.from_dict({"schema": "other/9"})


@pytest.mark.parametrize("form", ["table", "md", "csv"])
def test_every_format_names_every_checkpoint(ranked: Ranking, form: str) -> None:
    text = format_ranking(ranked, form)
    assert all(name in text for name in ("a", "b", "c-copy", "broken", "the file is empty"))
    assert text.endswith("\n")


def test_a_narrow_table_keeps_the_interval_of_the_deciding_score(ranked: Ranking) -> None:
    wide = format_ranking(ranked, "table", width=200)
    narrow = format_ranking(ranked, "table", width=76)
    narrower = format_ranking(ranked, "table", width=66)
    assert "linear_probe_loglik" in wide and "linear_probe_loglik" not in narrow
    for text in (wide, narrow, narrower):
        assert "c-copy (copy of c)" in text and "90.0 [" in text
    assert "(too narrow for linear_probe_loglik: see --format csv)" in narrower
    assert "too narrow" not in narrow


def test_a_ranking_as_pandas_and_html(ranked: Ranking) -> None:
    frame = ranked.to_pandas()
    assert frame.loc[0, "name"] == "a"
    assert frame.loc[0, "linear_probe"] == pytest.approx(0.9)
    assert "<table>" in ranked._repr_html_()


ROWS = [make_row(name, order) for order, name in enumerate("abc")]


@pytest.mark.parametrize(("lower", "names"), [((), "bca"), (("logme",), "acb")])
def test_a_score_without_images_decides_and_nothing_is_known_of_ties(lower, names: str) -> None:
    results = {n: {"logme": ScoreResult(v)} for n, v in zip("abc", (-1.5, 0.5, 0.25), strict=True)}
    ordered = order_rows(ROWS, results, {"logme": "nats"}, "logme", 100, 0, lower)
    assert [row.name for row in ordered.rows] == list(names)
    assert [row.in_tie_set for row in ordered.rows] == [True, False, False]
    assert (
        {row.p_best for row in ordered.rows} == {row.behind_best for row in ordered.rows} == {None}
    )
    assert ordered.expected is None and ordered.references["last"].ahead is None
    assert ordered.rows[0].scores["logme"].value == results[names[0]]["logme"].value


def test_of_equals_by_a_score_without_images_the_first_of_the_run_leads() -> None:
    results = {name: {"logme": ScoreResult(0.5)} for name in "abc"}
    ordered = order_rows(ROWS, results, {}, "logme", 100, 0)
    assert [(row.name, row.in_tie_set) for row in ordered.rows] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]


@pytest.mark.parametrize("unit", ["nats", "accuracy"])
def test_the_lowest_of_a_loss_leads_and_is_judged_as_the_highest_of_its_negative(unit: str) -> None:
    random = np.random.default_rng(0)
    losses = {
        n: np.abs(m + 0.1 * random.standard_normal(500))
        for n, m in zip("abc", (0.4, 0.2, 0.9), strict=True)
    }
    results = {n: {"loss": ScoreResult(float(v.mean()), v)} for n, v in losses.items()}
    units = {"loss": unit}
    ordered = order_rows(ROWS, results, units, "loss", 500, 0, ("loss",))
    negated = {n: {"loss": ScoreResult(float(-v.mean()), -v)} for n, v in losses.items()}
    other = order_rows(ROWS, negated, {"loss": "nats"}, "loss", 500, 0)
    assert [row.name for row in ordered.rows] == ["b", "a", "c"]
    for row, same in zip(ordered.rows, other.rows, strict=True):
        assert (row.in_tie_set, row.p_best) == (same.in_tie_set, same.p_best)
        assert row.behind_best == same.behind_best
        assert row.scores["loss"].value == -same.scores["loss"].value
        assert row.scores["loss"].low < row.scores["loss"].value < row.scores["loss"].high
    assert ordered.rows[1].behind_best.low > 0
    assert ordered.expected.value == -other.expected.value
    assert ordered.expected.low == -other.expected.high
