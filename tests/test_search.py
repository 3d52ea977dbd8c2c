"""`rank --budget`: which checkpoints are looked at, and what is said of the others."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import pytest

import ckptsel
from ckptsel.checkpoints.checkpoint import Checkpoint
from ckptsel.errors import InputError, NothingToRank
from ckptsel.features.candidate import Candidate
from ckptsel.ranking import passes, processes
from ckptsel.ranking.scoring import Outcome, score_candidates
from ckptsel.ranking.search import Seen, choose, draw, find_hits, first_places, make_path
from ckptsel.ranking.turns import Search, path_of
from ckptsel.report.command import rank_command
from ckptsel.results.scores import ScoreResult
from ckptsel.results.summary import summary
from ckptsel.settings.rank import RankSettings
from tools.growing import GrowingSearch, is_below

N = 100

EPOCHS = np.arange(1, N + 1)

X = np.log(EPOCHS) / np.log(N)


def a_path(drop_at: int | None = None, rates: list | None = None):
    return make_path(EPOCHS, [i == drop_at for i in range(N)], rates or [None] * N)


def seen_of(values: np.ndarray, places: list[int], error: float) -> Seen:
    return Seen(np.array(places), values[places], error**2 * np.eye(len(places)))


def looked_at(values: np.ndarray, n: int, error: float = 0.001) -> list[int]:
    """The first n places of a search that reads values (N,)."""
    path = a_path()
    tried = first_places(path)
    while len(tried) < n:
        seen = seen_of(values, tried, error)
        draws = draw(path, seen)
        tried += choose(draws, find_hits(draws, seen.best, tried, 0.0), tried, 1)
    return tried


@pytest.mark.parametrize("peak", [0.3, 0.7, 0.93])
def test_it_finds_the_peak_of_a_curve(peak: float) -> None:
    values = 0.8 - 0.2 * (X - peak) ** 2 / 0.1
    tried = looked_at(values, 20)
    assert len(set(tried)) == 20
    assert max(values[tried]) > values.max() - 0.001


def test_a_search_that_found_the_peak_has_little_left() -> None:
    values = 0.8 - 0.2 * (X - 0.6) ** 2
    path, tried = a_path(), looked_at(values, 20)
    seen = seen_of(values, tried, 0.001)
    chance = find_hits(draw(path, seen), seen.best, tried, 0.01).any(axis=0).mean()
    assert chance < 0.05
    assert find_hits(draw(path, seen), seen.best, tried, 0.0).any(axis=0).mean() > 0.3


def test_what_lies_behind_a_drop_is_less_known() -> None:
    """Where values jumped at one drop, what follows another is not read off what was before."""
    values = np.where(EPOCHS > 40, 0.9, 0.7)
    places = [0, 5, 12, 20, 30, 38, 39, 40, 41, 45, 60, 70]
    seen = seen_of(values, places, 0.002)
    drops = [i in (40, 75) for i in range(N)]
    without = draw(make_path(EPOCHS, [i == 40 for i in range(N)], [None] * N), seen)
    with_drop = draw(make_path(EPOCHS, drops, [None] * N), seen)
    assert with_drop[80].std() > 3 * without[80].std()
    assert with_drop[72].std() < 1.5 * without[72].std()


def test_a_checkpoint_has_less_of_its_own_where_the_rate_is_low() -> None:
    random = np.random.default_rng(0)
    rates = [0.1] * 50 + [0.001] * 50
    values = 0.8 + 0.02 * random.standard_normal(N) * (np.array(rates) > 0.01)
    seen = seen_of(values, list(range(0, N, 4)), 0.001)
    draws = draw(a_path(50, rates), seen)
    assert draws[41].std() > 3 * draws[89].std()


def test_values_without_spread_or_noise() -> None:
    values = np.full(N, 0.5)
    path, tried = make_path([1, 1, 1, *range(2, N - 1)], [False] * N, [None] * N), [0, 1, 50, 99]
    seen = Seen(np.array(tried), values[tried], np.zeros((4, 4)))
    draws = draw(path, seen)
    assert np.isfinite(draws).all() and abs(draws[tried] - 0.5).max() < 0.01


def test_the_first_are_the_ends_the_drops_and_a_dozen() -> None:
    path = a_path(60)
    first = first_places(path, always=[33])
    assert first[:5] == [99, 0, 33, 60, 59]
    assert len(first) <= 17 and {1, 2}.issubset(first)
    assert first_places(make_path([3.0], [False], [None])) == [0]


def test_those_of_one_turn_are_not_likely_for_one_reason() -> None:
    draws = np.array([[1.0, 0, 0], [0.9, 0, 0], [0, 0.5, 0], [0, 0, 0]])
    hits = draws > 0
    assert choose(draws, hits, [3], 2) == [0, 2]
    assert choose(draws, hits, [0, 1, 2, 3], 2) == []


def test_what_was_seen_is_not_ahead_of_itself() -> None:
    draws = np.array([[0.5, 0.5], [0.7, 0.4], [0.51, 0.9]])
    assert find_hits(draws, 0, [0, 1], 0.1).tolist() == [[False] * 2, [False] * 2, [False, True]]


def checkpoints(n: int, **known) -> list[Checkpoint]:
    return [Checkpoint(f"c{i}", File(f"c{i}"), **known) for i in range(n)]


def search_all(search: Search, values: np.ndarray, failing: int = -1) -> list[str]:
    """Names in the order of the search. values: (n, n_images)."""
    names = []
    for turn in search:
        for candidate in turn:
            names.append(candidate.checkpoint.name)
            row = values[int(names[-1][1:])]
            result = ScoreResult(float(row.mean()), row)
            problem = "broken" if failing in (N, len(names)) else None
            search.hear(Outcome(candidate.name, {"linear_probe": result}, problem))
    return names


def search_for(budget: str, n: int = 40, n_at_once: int = 1, layers: tuple = ("last",)) -> Search:
    found = [Candidate(c, layer) for c in checkpoints(n) for layer in layers]
    return Search(found, RankSettings(budget=budget), n_at_once, 0.0)


def flips(n: int, n_images: int = 500) -> np.ndarray:
    hard = np.random.default_rng(0).random(n_images)
    right = hard < 0.5 + 0.2 * np.sin(np.arange(n) / 7)[:, None]
    return right.astype(float)


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_a_number_is_kept_and_the_same_each_time(n_at_once: int) -> None:
    one, other = (search_all(search_for("20", 40, n_at_once), flips(40)) for _ in range(2))
    assert one == other and len(set(one)) == 20


def test_two_checkpoints_are_both_looked_at() -> None:
    search = search_for("auto", 2)
    assert sorted(search_all(search, flips(2))) == ["c0", "c1"]
    record = search.record({"c0": 0, "c1": 1})
    assert record.chance == 0 and record.unseen == ()


def test_where_all_fail_all_are_tried_or_the_number() -> None:
    assert len(search_all(search_for("auto"), flips(40), failing=N)) == 40
    search = search_for("15")
    assert len(search_all(search, flips(40), failing=N)) == 15
    record = search.record({f"c{i}": i for i in range(40)})
    assert record.chance is None and record.unseen[0].expected is None and len(record.unseen) == 25


def test_one_that_fails_costs_itself_alone() -> None:
    search = search_for("20")
    names = search_all(search, flips(40), failing=3)
    assert len(set(names)) == 20 and search.record({f"c{i}": i for i in range(40)}).n_seen == 20


def test_a_checkpoint_counts_by_its_best_layer() -> None:
    search = search_for("auto", 2, layers=("layer1", "last"))
    for turn in search:
        for i, candidate in enumerate(turn):
            row = np.array([0.2 + 0.5 * i, 0.3 + 0.5 * i])
            search.hear(Outcome(candidate.name, {"linear_probe": ScoreResult(row.mean(), row)}))
    seen = search._seen()
    assert seen is not None and np.allclose(seen.means, 0.75)


def test_of_a_loss_the_lowest_is_looked_for() -> None:
    losses = 1 - flips(40)
    search, same = search_for("20"), search_for("20")
    search._score = replace(search._score, higher_is_better=False)
    assert search_all(search, losses) == search_all(same, flips(40))
    expected = search.record({f"c{i}": i for i in range(40)}).unseen[0].expected
    assert expected is not None and 0.2 < expected.value < 0.8 and expected.low < expected.high


def test_a_time_ends_it(monkeypatch) -> None:
    """At two seconds each, ten seconds are enough for five, and one is always looked at."""
    now = iter(range(2, 1000, 2))
    monkeypatch.setattr("ckptsel.ranking.turns.time.monotonic", lambda: float(next(now)))
    assert len(search_all(search_for("10s"), flips(40))) == 5
    assert len(search_all(search_for("1s"), flips(40))) == 1


def test_a_mean_is_seldom_called_below_zero_where_it_is_not() -> None:
    random, differences = np.random.default_rng(0), np.repeat([-1.0, 0.0, 1.0], [30, 240, 30])
    orders = [random.permutation(differences) for _ in range(400)]
    assert np.mean([is_below(order[:200], 300, risk=0.2) for order in orders]) < 0.2
    assert np.mean([is_below(order[:200] - 0.1, 300, risk=0.2) for order in orders]) > 0.8


def reads_of(parts: str, values: np.ndarray, tolerance: float = 0.01) -> dict[int, int]:
    """The images that a search in parts reads of each checkpoint, by its place, in its order."""
    settings = RankSettings(budget="auto", tolerance=tolerance)
    ties = flips(40).mean(axis=1) > 0.65
    search = GrowingSearch(checkpoints(40), settings, values, ties, parts)
    search.run()
    return search.n_read


def test_the_replay_of_whole_images_is_the_search() -> None:
    names = [f"c{i}" for i in reads_of("whole", flips(40))]
    assert names == search_all(search_for("auto"), flips(40))


@pytest.mark.parametrize("parts", ["behind", "not_ahead", "known"])
def test_parts_grow_for_those_that_may_be_the_best(parts: str) -> None:
    n_read, means = reads_of(parts, flips(40)), flips(40).mean(axis=1)
    assert n_read[max(n_read, key=lambda i: means[i])] == 500
    assert n_read[min(n_read, key=lambda i: means[i])] == 125
    assert n_read[39] == 125, "the first that is looked at is far behind others of the first"


def test_the_best_stays_however_wide_the_tolerance() -> None:
    assert list(reads_of("not_ahead", flips(40), tolerance=0.5).values()).count(500) == 1


def test_what_was_not_read_is_not_known() -> None:
    unknown = flips(40)
    unknown[:, 125:] = np.nan
    assert reads_of("quarter", unknown) == reads_of("quarter", flips(40))


def test_what_a_search_goes_along() -> None:
    def path(epochs: list, steps: list):
        return path_of(
            [Checkpoint("c", File(), epoch=e, step=s) for e, s in zip(epochs, steps, strict=True)]
        )

    assert np.allclose(path([0, 1, 3], [None] * 3).at, np.log1p([0, 1, 3]))
    assert np.allclose(path([None, 1, 3], [500, 1000, 4000]).at, np.log1p([1, 2, 8]))
    for epochs in ([None, 1, 3], [3, 1, 2]):
        assert np.allclose(path(epochs, [None] * 3).at, np.log1p([1, 2, 3]))


QUICK = {"scores": ("linear_probe",)}


def test_a_ranking_within_a_budget(run, run_of_six: File, images: File, tmp_path: File) -> None:
    """The ends and the best by source accuracy are looked at, and have the numbers that they have
    without a budget; the others are named, with what is expected of them."""
    out = tmp_path / "out"
    arguments = ("rank", run_of_six, "-d", images, "--scores", "linear_probe", "-q", "-o", out)
    code, said, _ = run(*arguments, "--budget", "3")
    assert code == 0
    found = ckptsel.Ranking.from_dict(json.loads((out / "ranking.json").read_text()))
    whole = ckptsel.rank(run_of_six, images, **QUICK)
    assert sorted(row.name for row in found) == ["epoch-1", "epoch-3", "epoch-6"]
    for row in found:
        assert (row.scores, row.order) == (whole[row.name].scores, whole[row.name].order)
    search = found.search
    assert search is not None and (search.budget, search.n_checkpoints, search.n_seen) == (
        "3",
        6,
        3,
    )
    assert [one.name for one in search.unseen] == ["epoch-2", "epoch-4", "epoch-5"]
    assert [one.order for one in search.unseen] == [1, 3, 4]
    assert search.unseen[0].expected is not None and 0 < search.unseen[0].expected.value < 1
    assert "all this is among the 3 of 6 that were looked at: with a chance of" in said
    assert "not looked at: 3 files (epoch-2, epoch-4, epoch-5), expected at" in said
    assert "not looked at: 3 files" in (out / "report.html").read_text()
    assert "--budget 3" in rank_command(found) and whole.search is None
    told = json.loads((out / "ranking.json").read_text())
    told["search"]["unseen"][0]["name"] = "epoch-1"
    with pytest.raises(InputError, match="'epoch-1' was looked at, and was not"):
        ckptsel.Ranking.from_dict(told)


def test_one_that_was_looked_at_is_not_all_that_there_is(run_of_six: File, images: File) -> None:
    found = ckptsel.rank(run_of_six, images, budget=1, **QUICK)
    text = summary(found)
    assert "only checkpoint" not in text and "the 1 of 6 that were looked at" in text


def test_a_score_without_values_by_image(run_of_six: File, images: File) -> None:
    found = ckptsel.rank(run_of_six, images, budget=5, by="logme", scores=("logme",))
    assert found.search is not None and found.search.unseen[0].expected is not None
    low, high = found.search.unseen[0].expected.bounds
    values = [row.scores["logme"].value for row in found]
    assert low < max(values) and high > min(values)


def test_a_checkpoint_is_looked_at_at_all_its_layers(run_of_six: File, images: File) -> None:
    found = ckptsel.rank(run_of_six, images, budget=3, layers=("layer2", "last"), **QUICK)
    assert len(found) == 6 and len(found.at_best_layer()) == 3
    assert found.search is not None
    assert [one.name for one in found.search.unseen] == ["epoch-2", "epoch-4", "epoch-5"]


def test_several_processes_keep_to_the_budget(run_of_six: File, images: File, monkeypatch) -> None:
    monkeypatch.setattr(processes, "START", "fork")
    found = ckptsel.rank(run_of_six, images, budget="5", processes=2, **QUICK)
    assert len(found) == 5 and found.search is not None and len(found.search.unseen) == 1


def test_a_search_goes_on_when_a_process_died(run_of_six: File, images: File, monkeypatch) -> None:
    def score(spec, workspace):
        if spec.candidates[0].name == "epoch-3":
            os.kill(os.getpid(), signal.SIGKILL)
        return score_candidates(spec, workspace)

    monkeypatch.setattr(processes, "START", "fork")
    monkeypatch.setattr(passes, "score_candidates", score)
    found = ckptsel.rank(run_of_six, images, budget="5", processes=2, **QUICK)
    assert len(found) == 5 and found["epoch-3"].reason == processes.DIED


def test_copies_of_what_was_not_looked_at(run_of_six: File, images: File) -> None:
    (run_of_six / "epoch-4-again.safetensors").write_bytes(
        (run_of_six / "epoch-4.safetensors").read_bytes()
    )
    found = ckptsel.rank(run_of_six, images, budget="3", **QUICK)
    assert len(found) == 3 and found.search is not None and found.search.n_checkpoints == 6


def test_where_all_that_were_looked_at_fail(run_of_six: File, images: File, monkeypatch) -> None:
    def score(spec, workspace):
        yield from (Outcome(c.name, problem="features are not finite") for c in spec.candidates)

    monkeypatch.setattr(passes, "score_candidates", score)
    with pytest.raises(NothingToRank, match="none of the 3 checkpoints can be used"):
        ckptsel.rank(run_of_six, images, budget="3", **QUICK)


def test_one_that_fails_is_a_row(run_of_six: File, images: File, monkeypatch) -> None:
    def score(spec, workspace):
        if spec.candidates[0].name == "epoch-3":
            yield Outcome("epoch-3", problem="features are not finite")
        else:
            yield from score_candidates(spec, workspace)

    monkeypatch.setattr(passes, "score_candidates", score)
    found = ckptsel.rank(run_of_six, images, budget="3", **QUICK)
    assert found["epoch-3"].status == "failed" and len(found) == 3


FORM = "it must be auto, a number of checkpoints such as 30, or a time such as 10min"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget", "0"], FORM),
        (["--budget", "soon"], FORM),
        (["--budget", "-3"], FORM),
        (["--budget", "10 years"], FORM),
        (["--budget", "4", "--average", "2"], "leave out one"),
        (["--budget", "4", "--goal", "ft"], "name a score, as in --by linear_probe"),
        (["--budget", "4", "--shard", "1/2"], "--budget chooses by what came of all before"),
        (["--budget", "4", "-d", "elsewhere"], "--budget is for one target, and 2 are given"),
    ],
)
def test_a_budget_that_does_not_fit(
    run, trajectory: File, images: File, options, said: str
) -> None:
    code, _, err = run("rank", trajectory, "-d", images, *options)
    assert code == 2 and said in err, err


def test_watch_ranks_each(run, trajectory: File, images: File, tmp_path: File) -> None:
    code, _, err = run("watch", trajectory, "-d", images, "-o", tmp_path / "o", "--budget", "auto")
    assert code == 2 and "leave out --budget" in err
