"""The paper's claims, each beside what a run shows: holds, fails, undecided, or not tested.

Everything is computed from the raw numbers of a run, with intervals at 95 %. A claim is judged by all
pre-training seeds together: their mean, over held-out images and over the seeds, whose scatter counts
(`ckptsel.ranking.judgement`). It holds where that interval lies on the paper's side, fails where it
lies on the other, and is undecided otherwise. What each seed shows is given beside it, over images and
transfer seeds; it alone decides where a run has one.

The paper's epochs 5 and 200 are stood for by the run's epoch 5 (or the nearest) and its last.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.ranking.correlation import kendall_tau
from ckptsel.ranking.intervals import LEVEL, Values
from ckptsel.ranking.judgement import Readings, compare_groups, judge, resample_means
from ckptsel.reproduce.clusters import neighbour_purity
from ckptsel.reproduce.results import Results, prediction_key
from ckptsel.results.estimate import Estimate

HOLDS, FAILS, UNDECIDED, NOT_TESTED = "holds", "fails", "undecided", "not tested"

EARLY_EPOCH = 5

EARLY_PART = 0.1
"""Epochs up to this part of a run are early: the paper's fifth of 200 is."""

MIDDLE = "neither the first nor the last epoch"

UNCHANGED = 0.02
"""A difference that lies within this, with its interval, is none (an accuracy, as a fraction)."""

N_TREND_RESAMPLES = 500

MAX_SEEDS = 1000
"""More would not be run: an effect that takes so many is none that matters."""


@dataclass(frozen=True)
class Finding:
    """What pre-training seeds show.

    seeds: one, or all of a run.
    text: for people.
    interval: what decides, where there is one.
    n_seeds: how many would decide it, were value and scatter to stay; None where it is decided, or
    no number would.
    """

    seeds: tuple[int, ...]
    text: str
    verdict: str
    interval: Estimate | None = None
    n_seeds: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    where: in the paper.
    paper: its numbers.
    ours: one finding a seed.
    pooled: of all seeds, where there are several.
    """

    name: str
    where: str
    target: str
    claim: str
    paper: str
    ours: tuple[Finding, ...]
    verdict: str
    why: str
    pooled: Finding | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Seeds = tuple[int, ...]

Find = Callable[[Results, str, Seeds], Finding | None]
"""(results, target, pre-training seeds) -> finding; None where the run lacks the numbers."""


def check(
    results: Results,
    name: str,
    where: str,
    target: str,
    claim: str,
    paper: str,
    find: Find,
    why: str = "",
) -> Claim:
    """The claim beside what the pre-training seeds of the run show. why: what a reader must know to
    judge it."""
    found = [find(results, target, (seed,)) for seed in results.values("source", "seed")]
    ours = tuple(finding for finding in found if finding is not None)
    if not ours:
        absent = "; ".join(part for part in ("was not run", why) if part)
        return Claim(name, where, target, claim, paper, (), NOT_TESTED, absent)
    pooled = None
    if len(ours) > 1:
        pooled = find(results, target, tuple(finding.seeds[0] for finding in ours))
    verdict = (pooled or ours[0]).verdict
    return Claim(name, where, target, claim, paper, ours, verdict, why, pooled)


def early_and_last(results: Results, target: str, seeds: Seeds) -> tuple[int, int]:
    """The run's epochs that stand for the paper's 5 and 200."""
    rows = results.rows("scores", target=target, seed=seeds[0])
    epochs = sorted({row["epoch"] for row in rows})
    early = min(epochs[:-1] or epochs, key=lambda epoch: abs(epoch - EARLY_EPOCH))
    return early, epochs[-1]


def rises(kind: str) -> Find:
    """Accuracy at the last epoch is above that at the early one. kind: as for `prediction_key`."""
    return lambda results, target, seeds: _difference(results, target, seeds, kind, sign=1)


def falls(kind: str) -> Find:
    """Accuracy at the last epoch is below that at the early one."""
    return lambda results, target, seeds: _difference(results, target, seeds, kind, sign=-1)


def stays(kind: str) -> Find:
    """Accuracy at the last epoch differs from that at the early one by at most `UNCHANGED`."""
    return lambda results, target, seeds: _difference(results, target, seeds, kind, sign=0)


def trend(kind: str, sign: int) -> Find:
    """Kendall's tau of accuracy with the epoch, from the early epoch on, has this sign.

    The interval is over images and runs: it says whether the accuracies truly rose or fell. What
    neighbouring epochs share by their images is in it, since all are read on the same. The epochs are
    all there are, not a sample of a longer run, so nothing is drawn along them, and no effective
    number of them (as in `agrees`) enters. Of one seed it says what that run did: a run of random
    steps has a trend too. Of several it is the mean of their taus, with Student's interval over seeds
    and, since all are read on the same images, what these may add to all of them alike.
    """

    def find(results: Results, target: str, seeds: Seeds) -> Finding | None:
        taus, draws, n_epochs = [], [], 0
        for seed in seeds:
            series = _series(results, target, (seed,), kind)
            if series is None:
                return None
            keep = series[0] >= early_and_last(results, target, seeds)[0]
            n_epochs = int(keep.sum())
            if n_epochs < 3:
                return None
            readings = Readings(series[1][keep])
            taus.append(float(_taus(readings.means[:, None])[0]))
            draws.append(_taus(resample_means(readings, N_TREND_RESAMPLES)))
        if len(seeds) == 1:
            low, high = np.quantile(draws[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found = Estimate(taus[0], float(low), float(high))
            text = f"tau {_plain(found)} over {n_epochs} epochs"
        else:
            # The same random numbers for each seed: as if their errors were the same altogether.
            found = mean_of_seeds(taus, float(np.mean(draws, axis=0).std()))
            text = f"tau {_plain(found)} over {n_epochs} epochs, mean of {len(seeds)} seeds"
        return _decide(seeds, text, found, sign)

    return find


def _taus(accuracy: Values) -> Values:
    """Kendall's tau-b of each column of accuracy (n, m) with its order, (m,); 0 where all are equal."""
    earlier, later = np.triu_indices(len(accuracy), k=1)
    signs = np.sign(accuracy[later] - accuracy[earlier])
    n_untied = (signs != 0).sum(axis=0)
    return signs.sum(axis=0) / np.sqrt(len(signs) * np.maximum(n_untied, 1))


def peak(kind: str, part: Callable[[int, Sequence[int]], bool]) -> Find:
    """The best epoch lies in a part of the run: (epoch, all epochs) -> whether. All of the tie set
    must lie there, or none of it."""

    def find(results: Results, target: str, seeds: Seeds) -> Finding | None:
        series = _series(results, target, seeds, kind)
        if series is None or len(series[0]) < 3:
            return None
        epochs, correct = series
        readings = Readings(correct)
        accuracy, ties = readings.means, judge(readings).in_tie_set
        best = int(epochs[accuracy.argmax()])
        tied = [int(epoch) for epoch in epochs[ties]]
        inside = [part(epoch, epochs.tolist()) for epoch in tied]
        verdict = HOLDS if all(inside) else UNDECIDED if any(inside) else FAILS
        others = [str(epoch) for epoch in tied if epoch != best]
        also = f", tied with {', '.join(others)}" if others else ""
        text = f"best at epoch {best} ({100 * accuracy.max():.2f} %){also}"
        return Finding(seeds, text, verdict)

    return find


def is_early(epoch: int, epochs: Sequence[int]) -> bool:
    return epoch <= EARLY_PART * epochs[-1]


def is_middle(epoch: int, epochs: Sequence[int]) -> bool:
    return epoch not in (epochs[0], epochs[-1])


def ft_peaks_later(results: Results, target: str, seeds: Seeds) -> Finding | None:
    """The best FT epoch is later than the best FE epoch: by the share of resamples."""
    both = [_series(results, target, seeds, goal) for goal in ("fe", "ft")]
    if both[0] is None or both[1] is None:
        return None
    best, resampled = [], []
    for epochs, correct in (s for s in both if s is not None):
        readings = Readings(correct)
        best.append(int(epochs[readings.means.argmax()]))
        resampled.append(epochs[resample_means(readings, seed=len(best)).argmax(axis=0)])
    later = resampled[1] > resampled[0]
    share = float(later.mean())
    verdict = HOLDS if share >= 0.95 else FAILS if share <= 0.05 else UNDECIDED
    text = f"FE epoch {best[0]}, FT epoch {best[1]}; later in {100 * share:.0f} % of resamples"
    return Finding(seeds, text, verdict)


def clusters_better(stage: str, later: bool) -> Find:
    """Neighbours in the t-SNE embedding share their class more often at the last epoch (`later`), or
    at the early one."""

    def find(results: Results, target: str, seeds: Seeds) -> Finding | None:
        found = [_purities(results, target, seed, stage) for seed in seeds]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(seeds):
            return None
        (early, last), _ = pairs[0]
        # (2, seeds, images)
        purities = np.stack([both for _, both in pairs], axis=1)
        lead = _lead_of_second(purities[0], purities[1])
        first, second = 100 * purities.mean(axis=(1, 2))
        names = f"epochs {early} and {last}"
        text = f"10-NN purity {first:.1f} and {second:.1f} % at {names}: {_points(lead)}"
        return _decide(seeds, text, lead, 1 if later else -1)

    return find


def _purities(
    results: Results, target: str, seed: int, stage: str
) -> tuple[tuple[int, int], Values] | None:
    """(early epoch, last epoch), and their purities image by image (2, images)."""
    rows = results.rows("embedding", target=target, seed=seed, stage=stage)
    epochs = sorted({row["epoch"] for row in rows})
    if len(epochs) != 2:
        return None
    purities = []
    for epoch in epochs:
        chosen = [row for row in rows if row["epoch"] == epoch]
        points = np.array([[row["x"], row["y"]] for row in chosen])
        purities.append(neighbour_purity(points, np.array([row["label"] for row in chosen])))
    return (epochs[0], epochs[1]), np.stack(purities)


def agrees(score: str, goal: str, sign: int) -> Find:
    """Kendall's tau of a score with accuracy after training has this sign, over checkpoints.

    The interval of one seed is over checkpoints, as many as the two curves are worth
    (`measure_agreement`): two smooth curves agree or disagree by chance. Of several seeds it is
    Student's, of the mean of their taus: each is a trajectory of its own.
    """

    def find(results: Results, target: str, seeds: Seeds) -> Finding | None:
        series = [_score_and_accuracy(results, target, seed, score, goal) for seed in seeds]
        known = [pair for pair in series if pair is not None]
        if len(known) < len(seeds):
            return None
        if len(known) > 1:
            found = mean_of_seeds([kendall_tau(*pair) for pair in known])
            text = f"tau {_plain(found)}, mean of {len(known)} seeds"
            return _decide(seeds, text, found, sign)
        values, accuracy = known[0]
        agreement = measure_agreement({score: values}, accuracy).get(score)
        if agreement is None or agreement.kendall_tau is None or agreement.pearson_r is None:
            return None
        tau, r = agreement.kendall_tau, agreement.pearson_r
        text = (
            f"tau {_plain(tau)}, r {_plain(r)} over {agreement.n} checkpoints, worth "
            f"{agreement.n_effective:.1f}"
        )
        return _decide(seeds, text, tau, sign)

    return find


def _score_and_accuracy(
    results: Results, target: str, seed: int, score: str, goal: str
) -> tuple[Values, Values] | None:
    rows = results.rows("scores", target=target, seed=seed, score=score)
    series = _series(results, target, (seed,), goal)
    if series is None or not rows:
        return None
    by_epoch = {row["epoch"]: float(row["value"]) for row in rows}
    epochs, correct = series
    return np.array([by_epoch[epoch] for epoch in epochs.tolist()]), correct.mean(axis=(1, 2))


def mean_of_seeds(
    values: Sequence[float], shared: float = 0.0, lowest: float = -1.0, highest: float = 1.0
) -> Estimate:
    """The mean of values of two seeds or more, with Student's interval over seeds.

    shared: standard error of the mean from what all seeds share, which their scatter does not show.
    lowest, highest: that there can be.
    """
    n, mean = len(values), float(np.mean(values))
    over_seeds = _reach(n) * float(np.std(values, ddof=1))
    half = float(np.hypot(over_seeds, stats.norm.ppf((1 + LEVEL) / 2) * shared))
    low, high = max(mean - half, lowest), min(mean + half, highest)
    return Estimate(mean, low, high, n=n, random="seeds")


def source_accuracy(low: float) -> Find:
    """The network reaches the paper's source accuracy."""

    def find(results: Results, target: str, seeds: Seeds) -> Finding | None:
        found = [results.rows("source", seed=seed) for seed in seeds]
        early = min(found[0], key=lambda row: abs(row["epoch"] - EARLY_EPOCH))["epoch"]
        last = found[0][-1]["epoch"]
        reached = {
            epoch: [
                row["source_accuracy"] for rows in found for row in rows if row["epoch"] == epoch
            ]
            for epoch in (early, last)
        }
        text = ", ".join(
            f"{100 * np.mean(values):.2f} % at epoch {epoch}" for epoch, values in reached.items()
        )
        verdicts = {HOLDS if value >= low else FAILS for value in reached[last]}
        return Finding(seeds, text, verdicts.pop() if len(verdicts) == 1 else UNDECIDED)

    return find


def _difference(
    results: Results, target: str, seeds: Seeds, kind: str, sign: int
) -> Finding | None:
    if not results.rows("scores", target=target, seed=seeds[0]):
        return None
    early, last = early_and_last(results, target, seeds)
    first = _runs(results, target, seeds, kind, early)
    second = _runs(results, target, seeds, kind, last)
    if first is None or second is None or early == last:
        return None
    found = _lead_of_second(first, second)
    text = (
        f"{100 * first.mean():.2f} % at epoch {early}, {100 * second.mean():.2f} % at {last}: "
        f"{_points(found)}"
    )
    if sign:
        return _decide(seeds, text, found, sign)
    low, high = found.bounds
    inside = abs(low) <= UNCHANGED and abs(high) <= UNCHANGED
    outside = low > UNCHANGED or high < -UNCHANGED
    return Finding(seeds, text, HOLDS if inside else FAILS if outside else UNDECIDED, found)


def _lead_of_second(first: Values, second: Values) -> Estimate:
    """The mean of second - first, both (runs, images), over the same runs and images."""
    return compare_groups(Readings(np.stack([second, first])), 1, 0, 1)


def _runs(results: Results, target: str, seeds: Seeds, kind: str, epoch: int) -> Values | None:
    """Which images are right, (runs, images): the transfer runs of one pre-training seed; of several
    seeds the mean over the runs of each."""
    found = [results.correct(prediction_key(target, seed, kind, epoch)) for seed in seeds]
    known = [correct for correct in found if correct is not None]
    if len(known) < len(seeds):
        return None
    return known[0] if len(seeds) == 1 else np.stack([runs.mean(axis=0) for runs in known])


def _series(results: Results, target: str, seeds: Seeds, kind: str) -> tuple[Values, Values] | None:
    """(epochs, which images are right (epochs, runs, images)); None where it was not run."""
    rows = results.rows("scores", target=target, seed=seeds[0])
    found = {
        epoch: _runs(results, target, seeds, kind, epoch)
        for epoch in sorted({row["epoch"] for row in rows})
    }
    known = {epoch: runs for epoch, runs in found.items() if runs is not None}
    return (np.array(list(known)), np.stack(list(known.values()))) if known else None


def _decide(seeds: Seeds, text: str, found: Estimate, sign: int) -> Finding:
    """sign: the paper's side of zero."""
    low, high = found.bounds
    if low > 0 or high < 0:
        return Finding(seeds, text, HOLDS if (low > 0) == (sign > 0) else FAILS, found)
    n = _seeds_that_tell(found, len(seeds)) if len(seeds) > 1 else None
    more = f"; about {n} seeds would tell" if n else ""
    return Finding(seeds, text + more, UNDECIDED, found, n)


def _seeds_that_tell(found: Estimate, n_seeds: int) -> int | None:
    """How many until the interval leaves out zero, were value and scatter to stay and all of its width
    to come from the seeds: Student's t falls with their number, and so does the error of their mean."""
    low, high = found.bounds
    side = found.value - low if found.value > 0 else high - found.value
    spread = side / _reach(n_seeds)
    more = range(n_seeds + 1, MAX_SEEDS + 1)
    return next((n for n in more if spread * _reach(n) < abs(found.value)), None)


def _reach(n_seeds: int) -> float:
    """Half of the interval of a mean of so many seeds, in standard deviations."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n_seeds - 1) / np.sqrt(n_seeds))


def _points(found: Estimate) -> str:
    value, low, high = (100 * x for x in (found.value, *found.bounds))
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def _plain(found: Estimate) -> str:
    low, high = found.bounds
    return f"{found.value:.2f} [{low:.2f}, {high:.2f}]"
