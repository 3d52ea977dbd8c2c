"""The race between candidates: successive halving that drops only those known to be behind.

All candidates train to the end of a rung; those that cannot be the best at 95 % leave, the others go
on from where they are (Jamieson & Talwalkar 2016, with an interval in place of the fixed half). The
race is over when there is nothing left to win: when one is left, or at 95 % nobody is ahead of the
leader by more than a tolerance.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptsel.ranking.intervals import LEVEL
from ckptsel.ranking.judgement import N_RESAMPLES, Readings, estimate_each, judge
from ckptsel.results.confirmation import CONFIRMED, Standing
from ckptsel.results.estimate import Measured, measured

TOLERANCE = 0.01
MIN_RUNG = 2
"""The tolerance ends no race before this rung: after the first, curves still cross."""

EARLY_RISK = 0.5
"""Part of the risk to lose the best (one minus the level) that is spent before the last rung, in equal
shares: who looks often errs more often."""

Correct = NDArray[np.bool_]

Advance = Callable[[Sequence[tuple[str, int]], int], Sequence[Correct | None]]
"""((candidate, seed) of each run of a rung, step) -> which held-out images each has right after that
step, (n_images,); None where the training diverged. Runs of one candidate lie side by side."""

OnStanding = Callable[[Standing], None]


@dataclass(frozen=True)
class Race:
    """How it ended.

    standings: in the order of the candidates.
    correct: by step (the ends of rungs, rising) and candidate, (n_seeds, n_images).
    expected: accuracy of the winner on images that did not choose it; None where there is none.
    n_steps: training steps that the race called for.
    n_steps_full: those of all candidates to the end.
    """

    standings: tuple[Standing, ...]
    correct: dict[int, dict[str, Correct]]
    n_steps: int
    n_steps_full: int
    expected: Measured | None = None

    @property
    def winner(self) -> str | None:
        """None where every candidate diverged."""
        return next((s.name for s in self.standings if s.state == "won"), None)

    @property
    def tie_set(self) -> tuple[str, ...]:
        """The winner and those that cannot be told from it."""
        return tuple(s.name for s in self.standings if s.state in ("won", "tied"))


def race(
    candidates: Sequence[str],
    seeds: Sequence[int],
    rungs: Sequence[int],
    advance: Advance,
    full: bool = False,
    tolerance: float = TOLERANCE,
    on_standing: OnStanding = lambda standing: None,
    n_resamples: int = N_RESAMPLES,
) -> Race:
    """Run candidates from rung to rung; of equals the one named first wins.

    rungs: steps, rising. full: nobody leaves before the end. tolerance: a difference in accuracy that
    does not matter, a fraction; with 0 the race ends early only where one is left.
    """
    standings = {name: Standing(name) for name in candidates}
    correct: dict[int, dict[str, Correct]] = {}
    n_steps, past = 0, 0
    expected = None
    for rung, step in enumerate(rungs, start=1):
        racing = [name for name in candidates if standings[name].state == "racing"]
        ended: dict[str, Correct] = {}
        runs = [(name, seed) for name in racing for seed in seeds]
        results = dict(zip(runs, advance(runs, step), strict=True))
        n_steps += len(runs) * (step - past)
        for name in racing:
            right = [r for seed in seeds if (r := results[name, seed]) is not None]
            if len(right) == len(seeds):
                ended[name] = np.stack(right)
            else:
                standings[name] = Standing(name, "diverged", rung, step)
                on_standing(standings[name])
        correct[step] = ended
        past = step
        if not ended:
            break
        level = _level(rung, len(rungs), full)
        judged, behind, expected = _judge(ended, rung, step, level, n_resamples)
        n_left = sum(standing.state != "behind" for standing in judged)
        decided = n_left == 1 or (rung >= MIN_RUNG and behind <= tolerance)
        over = rung == len(rungs) or (decided and not full)
        for standing in _with_states(judged, over, full):
            standings[standing.name] = standing
            on_standing(standing)
        if over:
            break
    return Race(
        tuple(standings.values()),
        correct,
        n_steps,
        len(candidates) * len(seeds) * rungs[-1],
        expected,
    )


def _level(rung: int, n_rungs: int, full: bool) -> float:
    """At which candidates are judged at the end of a rung, such that the true best is lost in one
    minus LEVEL of races, over all rungs. full: nobody leaves before the last."""
    risk = 1 - LEVEL
    if full or n_rungs == 1:
        return LEVEL
    early = EARLY_RISK * risk
    return 1 - (risk - early if rung == n_rungs else early / (n_rungs - 1))


def _judge(
    ended: dict[str, Correct], rung: int, step: int, level: float, n_resamples: int
) -> tuple[list[Standing], float, Measured | None]:
    """Standings at the end of a rung (`tied` or `behind`, the leader `won`), how far anybody can be
    ahead of the leader, and what that is expected to reach on other images."""
    readings = Readings(np.stack(list(ended.values())).astype(np.float64))
    judged = judge(readings, level, n_resamples)
    by_seed = readings.values.mean(axis=2)
    standings = [
        Standing(
            name,
            "won" if i == judged.chosen else "tied" if judged.in_tie_set[i] else "behind",
            rung,
            step,
            accuracy,
            tuple(float(a) for a in by_seed[i]),
            float(judged.p_best[i]),
            measured(judged.behind_best[i], CONFIRMED, step),
        )
        for i, (name, accuracy) in enumerate(zip(ended, estimate_each(readings), strict=True))
    ]
    new = judged.on_new_images
    expected = None if new is None else measured(new, CONFIRMED, step)
    return standings, judged.behind_best[judged.chosen].bounds[1], expected


def _with_states(judged: list[Standing], over: bool, full: bool) -> list[Standing]:
    """What a judgement means while the race goes on."""
    if over:
        return judged
    return [
        dataclasses.replace(s, state="out" if s.state == "behind" and not full else "racing")
        for s in judged
    ]
