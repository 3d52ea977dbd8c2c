"""The race between candidates, on candidates whose true accuracies are known."""

import numpy as np
import pytest

from ckptsel.confirmation.race import Race, race

RUNGS = (10, 30, 90)


def made_candidates(truth: dict[str, float], n_images: int = 1000, seed: int = 0):
    """`advance` of candidates that are right with these probabilities, the images shared."""
    random = np.random.default_rng(seed)
    ease = random.random(n_images)

    def advance(name: str, run_seed: int, step: int) -> np.ndarray | None:
        noise = np.random.default_rng((seed, run_seed, step, *name.encode()))
        # Half of what decides is the image, which is the same for all.
        return (ease + noise.random(n_images)) / 2 < truth[name]

    return advance


def one_by_one(advance):
    """The race asks for all runs of a rung at once."""
    return lambda runs, step: [advance(*run, step) for run in runs]


def run(truth: dict[str, float], **options) -> Race:
    return race(list(truth), range(3), RUNGS, one_by_one(made_candidates(truth)), **options)


TRUTH = {"early": 0.55, "middle": 0.80, "late": 0.70, "last": 0.72}


def test_the_truly_best_wins_and_the_others_leave_early() -> None:
    ended = run(TRUTH)
    assert ended.winner == "middle"
    assert ended.tie_set == ("middle",)
    # One is left after the first rung, so nothing is left to win.
    assert ended.n_steps == 4 * 3 * 10
    assert ended.n_steps_full == 4 * 3 * 90


def test_full_runs_everyone_to_the_end() -> None:
    ended = run(TRUTH, full=True)
    assert ended.winner == "middle"
    assert ended.n_steps == ended.n_steps_full
    assert {s.step for s in ended.standings} == {90}
    assert [s.state for s in ended.standings] == ["behind", "won", "behind", "behind"]


def test_only_those_behind_leave() -> None:
    truth = {"a": 0.75, "b": 0.75, "c": 0.6}
    seen = []
    ended = run(truth, tolerance=0, on_standing=seen.append)
    states = {(s.name, s.rung): s.state for s in seen}
    assert states["c", 1] == "out" and ("c", 2) not in states
    assert states["a", 1] == states["b", 1] == "racing"
    assert set(ended.tie_set) == {"a", "b"}
    assert ended.n_steps == 3 * (3 * 10 + 2 * 80)


def test_it_is_over_when_nobody_can_be_far_ahead() -> None:
    truth = {"a": 0.75, "b": 0.75}
    early = run(truth, tolerance=0.05)
    # Not after the first rung, where curves still cross.
    assert {s.step for s in early.standings} == {30}
    assert set(early.tie_set) == {"a", "b"}
    assert {s.step for s in run(truth, tolerance=0.0001).standings} == {90}


def test_a_diverged_candidate_is_marked_and_the_race_goes_on() -> None:
    advance = made_candidates(TRUTH)

    def with_divergence(name: str, seed: int, step: int) -> np.ndarray | None:
        return None if name == "middle" and seed == 1 else advance(name, seed, step)

    ended = race(list(TRUTH), range(3), RUNGS, one_by_one(with_divergence), tolerance=0)
    states = {s.name: s.state for s in ended.standings}
    assert states["middle"] == "diverged"
    assert ended.winner in ("late", "last")


def test_nobody_wins_where_all_diverge() -> None:
    ended = race(["a", "b"], range(2), RUNGS, one_by_one(lambda *key: None))
    assert ended.winner is None
    assert ended.tie_set == ()
    assert {s.state for s in ended.standings} == {"diverged"}


def test_of_equals_the_first_wins() -> None:
    right = np.arange(100) < 80
    ended = race(["a", "b"], range(2), RUNGS, one_by_one(lambda *key: right))
    assert ended.winner == "a"
    assert ended.tie_set == ("a", "b")


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_the_truly_best_is_rarely_lost(n_seeds: int) -> None:
    """With differences between training runs besides those between images."""
    random = np.random.default_rng(n_seeds)
    truth = np.array([0.80, 0.79, 0.78, 0.70])
    kept = 0
    for _ in range(200):
        ease = random.random(400)
        runs = truth[:, None] + 0.015 * random.standard_normal((4, n_seeds))
        correct = {
            (str(c), s): (ease + random.random(400)) / 2 < runs[c, s]
            for c in range(4)
            for s in range(n_seeds)
        }
        advance = one_by_one(lambda *key, c=correct: c[key[:2]])
        ended = race("0123", range(n_seeds), (1,), advance, n_resamples=400)
        kept += "0" in ended.tie_set
    assert kept >= 0.93 * 200
