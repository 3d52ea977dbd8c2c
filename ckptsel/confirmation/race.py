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

from ckptsel.ranking.uncertainty import (
    IMAGES,
    IMAGES_AND_SEEDS,
    LEVEL,
    N_RESAMPLES,
    find_tie_set,
    interval,
    probability_best,
    seed_and_image_means,
)
from ckptsel.results.confirmation import Standing
from ckptsel.results.estimate import Estimate

TOLERANCE = 0.01
MIN_RUNG = 2
"""The tolerance ends no race before this rung: after the first, curves still cross."""

Advance = Callable[[str, int, int], NDArray[np.bool_] | None]
"""(candidate, seed, step) -> which held-out images are right after that step, (n_images,); None
where the training diverged."""

OnStanding = Callable[[Standing], None]


@dataclass(frozen=True)
class Race:
    """How it ended.

    standings: in the order of the candidates.
    correct: by step (the ends of rungs, rising) and candidate, (n_seeds, n_images).
    n_steps: training steps that the race called for.
    n_steps_full: those of all candidates to the end.
    """

    standings: tuple[Standing, ...]
    correct: dict[int, dict[str, NDArray[np.bool_]]]
    n_steps: int
    n_steps_full: int

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
    correct: dict[int, dict[str, NDArray[np.bool_]]] = {}
    n_steps, past = 0, 0
    for rung, step in enumerate(rungs, start=1):
        racing = [name for name in candidates if standings[name].state == "racing"]
        ended: dict[str, NDArray[np.bool_]] = {}
        for name in racing:
            results = [advance(name, s, step) for s in seeds]
            n_steps += len(seeds) * (step - past)
            right = [r for r in results if r is not None]
            if len(right) == len(results):
                ended[name] = np.stack(right)
            else:
                standings[name] = Standing(name, "diverged", rung, step)
                on_standing(standings[name])
        correct[step] = ended
        past = step
        if not ended:
            break
        judged, ahead = _judge(ended, rung, step, n_resamples)
        n_left = sum(standing.state != "behind" for standing in judged)
        decided = n_left == 1 or (rung >= MIN_RUNG and ahead <= tolerance)
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
    )


def _judge(
    ended: dict[str, NDArray[np.bool_]],
    rung: int,
    step: int,
    n_resamples: int,
) -> tuple[list[Standing], float]:
    """Standings at the end of a rung (`tied` or `behind`, the leader `won`), and how far anybody can
    be ahead of the leader at 95 %."""
    correct = np.stack(list(ended.values())).astype(np.float64)
    resampled = seed_and_image_means(correct, n_resamples)
    by_seed = correct.mean(axis=2)
    values = by_seed.mean(axis=1)
    ties = find_tie_set(values, resampled)
    leader = int(values.argmax())
    p_best = probability_best(resampled)
    random = IMAGES if correct.shape[1] == 1 else IMAGES_AND_SEEDS
    standings = []
    for i, name in enumerate(ended):
        low, high = interval(values[i], resampled[i]).bounds
        # With very few seeds Student's t reaches beyond what an accuracy can be.
        low, high = max(low, 0.0), min(high, 1.0)
        standings.append(
            Standing(
                name,
                "won" if i == leader else "tied" if ties[i] else "behind",
                rung,
                step,
                Estimate(float(values[i]), low, high, n=correct.shape[2], random=random),
                tuple(float(a) for a in by_seed[i]),
                float(p_best[i]),
            )
        )
    ahead = np.quantile((resampled - resampled[leader]).max(axis=0), LEVEL)
    return standings, float(ahead)


def _with_states(judged: list[Standing], over: bool, full: bool) -> list[Standing]:
    """What a judgement means while the race goes on."""
    if over:
        return judged
    return [
        dataclasses.replace(s, state="out" if s.state == "behind" and not full else "racing")
        for s in judged
    ]
