"""The paper's claims, each beside what a run shows: holds, fails, undecided, or not tested.

Everything is computed from the raw numbers of a run. Intervals are at 95 %, over held-out images and
transfer seeds together (`ckptsel.ranking.uncertainty.seed_and_image_means`; those of a score's agreement
with accuracy are over checkpoints), for each pre-training seed by itself: two seeds tell nothing about
their spread. A claim holds where every seed's interval lies on the paper's side, fails where every
seed's lies on the other, and is undecided otherwise.

The paper's epochs 5 and 200 are stood for by the run's epoch 5 (or the nearest) and its last.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.ranking.correlation import kendall_tau
from ckptsel.ranking.uncertainty import (
    Values,
    find_tie_set,
    interval,
    seed_and_image_means,
)
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

AGREEMENT_VERSION = 2
"""Of the intervals of `agrees`; `claims.json` has it. Version 1 took checkpoints for independent."""


@dataclass(frozen=True)
class Finding:
    """What one pre-training seed shows.

    text: for people.
    interval: what decides, where there is one.
    verdict: of this seed.
    """

    seed: int
    text: str
    verdict: str
    interval: Estimate | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    where: in the paper.
    paper: its numbers.
    ours: one finding a seed.
    """

    name: str
    where: str
    target: str
    claim: str
    paper: str
    ours: tuple[Finding, ...]
    verdict: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Find = Callable[[Results, str, int], Finding | None]
"""(results, target, pre-training seed) -> finding; None where the run lacks the numbers."""


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
    """The claim beside what every pre-training seed of the run shows. why: what a reader must know
    to judge it."""
    seeds = results.values("source", "seed")
    found = [find(results, target, seed) for seed in seeds]
    findings = tuple(finding for finding in found if finding is not None)
    if not findings:
        absent = "; ".join(part for part in ("was not run", why) if part)
        return Claim(name, where, target, claim, paper, (), NOT_TESTED, absent)
    verdicts = {finding.verdict for finding in findings}
    verdict = verdicts.pop() if len(verdicts) == 1 else UNDECIDED
    return Claim(name, where, target, claim, paper, findings, verdict, why)


def early_and_last(results: Results, target: str, seed: int) -> tuple[int, int]:
    """The run's epochs that stand for the paper's 5 and 200."""
    epochs = sorted({row["epoch"] for row in results.rows("scores", target=target, seed=seed)})
    early = min(epochs[:-1] or epochs, key=lambda epoch: abs(epoch - EARLY_EPOCH))
    return early, epochs[-1]


def rises(kind: str) -> Find:
    """Accuracy at the last epoch is above that at the early one. kind: as for `prediction_key`."""
    return lambda results, target, seed: _difference(results, target, seed, kind, sign=1)


def falls(kind: str) -> Find:
    """Accuracy at the last epoch is below that at the early one."""
    return lambda results, target, seed: _difference(results, target, seed, kind, sign=-1)


def stays(kind: str) -> Find:
    """Accuracy at the last epoch differs from that at the early one by at most `UNCHANGED`."""
    return lambda results, target, seed: _difference(results, target, seed, kind, sign=0)


def trend(kind: str, sign: int) -> Find:
    """Kendall's tau of accuracy with the epoch, from the early epoch on, has this sign.

    The interval is over images and transfer seeds: it says whether the accuracies of this run truly
    rose or fell. What neighbouring epochs share by their images is in it, since all are read on the
    same. The epochs are all there are, not a sample of a longer run, so that nothing is drawn along
    them, and no effective number of them (as in `agrees`) enters. Whether another run would do the
    same only other pre-training seeds tell: a single run of random steps has a trend too.
    """

    def find(results: Results, target: str, seed: int) -> Finding | None:
        series = _series(results, target, seed, kind)
        if series is None:
            return None
        epochs, correct = series
        early, _ = early_and_last(results, target, seed)
        keep = epochs >= early
        if keep.sum() < 3:
            return None
        accuracy = correct[keep].mean(axis=(1, 2))
        resampled = seed_and_image_means(correct[keep], N_TREND_RESAMPLES)
        taus = np.array([kendall_tau(epochs[keep], column) for column in resampled.T])
        found = interval(kendall_tau(epochs[keep], accuracy), taus)
        text = f"tau {_plain(found)} over {keep.sum()} epochs"
        return Finding(seed, text, _side(found, sign), found)

    return find


def peak(kind: str, part: Callable[[int, Sequence[int]], bool]) -> Find:
    """The best epoch lies in a part of the run: (epoch, all epochs) -> whether. All of the tie set
    must lie there, or none of it."""

    def find(results: Results, target: str, seed: int) -> Finding | None:
        series = _series(results, target, seed, kind)
        if series is None or len(series[0]) < 3:
            return None
        epochs, correct = series
        accuracy = correct.mean(axis=(1, 2))
        ties = find_tie_set(accuracy, seed_and_image_means(correct))
        best = int(epochs[accuracy.argmax()])
        tied = [int(epoch) for epoch in epochs[ties]]
        inside = [part(epoch, epochs.tolist()) for epoch in tied]
        verdict = HOLDS if all(inside) else UNDECIDED if any(inside) else FAILS
        others = [str(epoch) for epoch in tied if epoch != best]
        also = f", tied with {', '.join(others)}" if others else ""
        text = f"best at epoch {best} ({100 * accuracy.max():.2f} %){also}"
        return Finding(seed, text, verdict)

    return find


def is_early(epoch: int, epochs: Sequence[int]) -> bool:
    return epoch <= EARLY_PART * epochs[-1]


def is_middle(epoch: int, epochs: Sequence[int]) -> bool:
    return epoch not in (epochs[0], epochs[-1])


def ft_peaks_later(results: Results, target: str, seed: int) -> Finding | None:
    """The best FT epoch is later than the best FE epoch: by the share of resamples."""
    both = [_series(results, target, seed, goal) for goal in ("fe", "ft")]
    if both[0] is None or both[1] is None:
        return None
    best, resampled = [], []
    for epochs, correct in (s for s in both if s is not None):
        best.append(int(epochs[correct.mean(axis=(1, 2)).argmax()]))
        resampled.append(epochs[seed_and_image_means(correct, seed=len(best)).argmax(axis=0)])
    later = resampled[1] > resampled[0]
    share = float(later.mean())
    verdict = HOLDS if share >= 0.95 else FAILS if share <= 0.05 else UNDECIDED
    text = f"FE epoch {best[0]}, FT epoch {best[1]}; later in {100 * share:.0f} % of resamples"
    return Finding(seed, text, verdict)


def clusters_better(stage: str, later: bool) -> Find:
    """Neighbours in the t-SNE embedding share their class more often at the last epoch (`later`), or
    at the early one."""

    def find(results: Results, target: str, seed: int) -> Finding | None:
        purities = []
        rows = results.rows("embedding", target=target, seed=seed, stage=stage)
        epochs = sorted({row["epoch"] for row in rows})
        if len(epochs) != 2:
            return None
        for epoch in epochs:
            chosen = [row for row in rows if row["epoch"] == epoch]
            points = np.array([[row["x"], row["y"]] for row in chosen])
            purities.append(neighbour_purity(points, np.array([row["label"] for row in chosen])))
        first, last = np.stack(purities)[:, None, :]
        found = _paired(first, last)
        names = f"epochs {epochs[0]} and {epochs[1]}"
        text = (
            f"10-NN purity {100 * first.mean():.1f} and {100 * last.mean():.1f} % at {names}: "
            f"{_points(found)}"
        )
        return Finding(seed, text, _side(found, 1 if later else -1), found)

    return find


def agrees(score: str, goal: str, sign: int) -> Find:
    """Kendall's tau of a score with accuracy after training has this sign, over checkpoints.

    The interval is over checkpoints, as many as the two curves are worth (`measure_agreement`): two
    smooth curves agree or disagree by chance.
    """

    def find(results: Results, target: str, seed: int) -> Finding | None:
        rows = results.rows("scores", target=target, seed=seed, score=score)
        series = _series(results, target, seed, goal)
        if series is None or not rows:
            return None
        values = {row["epoch"]: float(row["value"]) for row in rows}
        epochs, correct = series
        scores = np.array([values[epoch] for epoch in epochs.tolist()])
        agreement = measure_agreement({score: scores}, correct.mean(axis=(1, 2))).get(score)
        if agreement is None or agreement.kendall_tau is None or agreement.pearson_r is None:
            return None
        tau, r = agreement.kendall_tau, agreement.pearson_r
        text = (
            f"tau {_plain(tau)}, r {_plain(r)} over {agreement.n} checkpoints, worth "
            f"{agreement.n_effective:.1f}"
        )
        return Finding(seed, text, _side(tau, sign), tau)

    return find


def source_accuracy(low: float) -> Find:
    """The network reaches the paper's source accuracy."""

    def find(results: Results, target: str, seed: int) -> Finding | None:
        rows = results.rows("source", seed=seed)
        early = min(rows, key=lambda row: abs(row["epoch"] - EARLY_EPOCH))
        last = rows[-1]
        text = ", ".join(
            f"{100 * row['source_accuracy']:.2f} % at epoch {row['epoch']}" for row in (early, last)
        )
        return Finding(seed, text, HOLDS if last["source_accuracy"] >= low else FAILS)

    return find


def _difference(results: Results, target: str, seed: int, kind: str, sign: int) -> Finding | None:
    if not results.rows("scores", target=target, seed=seed):
        return None
    early, last = early_and_last(results, target, seed)
    first = results.correct(prediction_key(target, seed, kind, early))
    second = results.correct(prediction_key(target, seed, kind, last))
    if first is None or second is None or early == last:
        return None
    found = _paired(first, second)
    text = (
        f"{100 * first.mean():.2f} % at epoch {early}, {100 * second.mean():.2f} % at {last}: "
        f"{_points(found)}"
    )
    if sign:
        return Finding(seed, text, _side(found, sign), found)
    low, high = found.bounds
    inside = abs(low) <= UNCHANGED and abs(high) <= UNCHANGED
    outside = low > UNCHANGED or high < -UNCHANGED
    return Finding(seed, text, HOLDS if inside else FAILS if outside else UNDECIDED, found)


def _paired(first: Values, second: Values) -> Estimate:
    """The mean of second - first, both (runs, images), over the same runs and images."""
    resampled = seed_and_image_means(np.stack([first, second]))
    return interval(second.mean() - first.mean(), resampled[1] - resampled[0])


def _series(results: Results, target: str, seed: int, kind: str) -> tuple[Values, Values] | None:
    """(epochs, which images are right (epochs, runs, images)); None where it was not run."""
    rows = results.rows("scores", target=target, seed=seed)
    epochs = sorted({row["epoch"] for row in rows})
    kept, parts = [], []
    for epoch in epochs:
        correct = results.correct(prediction_key(target, seed, kind, epoch))
        if correct is not None:
            kept.append(epoch)
            parts.append(correct)
    return (np.array(kept), np.stack(parts)) if parts else None


def _side(found: Estimate, sign: int) -> str:
    low, high = found.bounds
    if low > 0 or high < 0:
        return HOLDS if (low > 0) == (sign > 0) else FAILS
    return UNDECIDED


def _points(found: Estimate) -> str:
    value, low, high = (100 * x for x in (found.value, *found.bounds))
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"


def _plain(found: Estimate) -> str:
    low, high = found.bounds
    return f"{found.value:.2f} [{low:.2f}, {high:.2f}]"
