"""The gate: a ranking held against a policy. Pass, fail, or cannot tell.

Everything here is a pure function: no files, no environment. Each check asks whether a margin, with
its 95 % interval, is at or above zero: all of the interval passes, none of it fails, and what
straddles zero cannot be told.
"""

import dataclasses
import math
from dataclasses import dataclass

from ckptsel.errors import GateFailed, GateUndecided
from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.estimate import IMAGES, IMAGES_AND_SEEDS, Estimate, Measured, percent
from ckptsel.results.ranking import EPOCH, Ranking, Row
from ckptsel.results.search import UNLIKELY
from ckptsel.settings.policy import Policy

PASS, FAIL, CANNOT_TELL = "pass", "fail", "cannot-tell"

ROUNDING = 1e-9
"""What lies on its limit passes, also where the last digit says otherwise."""


@dataclass(frozen=True)
class Check:
    """One part of the policy.

    name: `regret`, `min-accuracy`, `baseline` or `strict`.
    measured: a fraction with its 95 % interval; null where nothing was measured.
    limit: what the policy asks for.
    n_more_images: how many more evaluation images would decide it, were the value to stay; null
    where it is decided, where no number would, and where seeds scatter too.
    """

    name: str
    decision: str
    text: str
    measured: Measured | None = None
    limit: float | None = None
    n_more_images: int | None = None


@dataclass(frozen=True)
class Verdict:
    """decision: `fail` where any check fails, else `cannot-tell` where any cannot be told, else
    `pass`."""

    decision: str
    checks: tuple[Check, ...]


def hold_against(ranking: Ranking, policy: Policy, ahead: Measured | None = None) -> Verdict:
    """The verdict of a policy on a ranking.

    ahead: how far its best is ahead of that of the policy's baseline, as
    `ckptsel.gating.baseline.compare_with_stored` measures it; null where nothing measured both.
    Raises UsageError where the policy pins a checkpoint that is not in the ranking.
    """
    checks = []
    if policy.current is not None:
        checks.append(_check_regret(ranking, policy.current, policy.regret_limit))
    if policy.min_accuracy is not None:
        checks.append(_check_accuracy(ranking, policy.min_accuracy))
    if policy.baseline is not None:
        checks.append(_check_baseline(ranking, ahead, policy.baseline_limit))
    if policy.strict:
        checks.append(_check_strict(ranking))
    decisions = {check.decision for check in checks}
    worst = next(d for d in (FAIL, CANNOT_TELL, PASS) if d in decisions)
    return Verdict(worst, tuple(checks))


def enforce(verdict: Verdict) -> None:
    """Raises GateFailed or GateUndecided, naming the checks, where the verdict is not to pass."""
    wrong = [check.name for check in verdict.checks if check.decision == verdict.decision]
    if verdict.decision == FAIL:
        raise GateFailed(f"the gate says no: {', '.join(wrong)}.")
    if verdict.decision == CANNOT_TELL:
        raise GateUndecided(f"the gate cannot tell: {', '.join(wrong)}.")


def best_accuracy(ranking: Ranking) -> Measured | None:
    """Accuracy that the best is expected to reach on images that did not choose it; null where the
    order of training decided, or a score that is no accuracy.

    Files of older versions say only what it reached on those that did.
    """
    if ranking.expected is not None:
        return ranking.expected if ranking.is_accuracy(ranking.expected.by) else None
    best = ranking[ranking.best]
    trained, score = best.trained(ranking.goal), best.scores.get(ranking.score)
    if trained is not None:
        return _measured(trained, CONFIRMED)
    if score is not None and ranking.is_accuracy(ranking.score):
        return _measured(score, ranking.score)
    return None


def _measured(estimate: Estimate, by: str) -> Measured | None:
    if estimate.low is None or estimate.high is None:
        return None
    about = {key: getattr(estimate, key) for key in ("value", "low", "high", "n", "random")}
    return Measured(**about, by=by)


def _check_regret(ranking: Ranking, current: str, limit: float) -> Check:
    row, best = ranking.find(current), ranking.best
    behind = row.behind_best
    if row.status == "failed":
        text = f"{row.name} cannot be used: {row.reason}"
        return Check("regret", CANNOT_TELL, text, limit=limit)
    if not ranking.recommended:
        return Check("regret", CANNOT_TELL, _not_recommended(ranking), limit=limit)
    if behind is None or not ranking.is_accuracy(behind.by):
        text = (
            f"how far {row.name} is behind the best was not measured in points. "
            f"{_unmeasured(ranking, row)}"
        )
        return Check("regret", CANNOT_TELL, text, limit=limit)
    who = f"{row.name}, which is recommended," if best in (row.name, row.copy_of) else row.name
    text = f"{who} is {_points(behind)} behind the best ({_by(behind)}), {_limit(limit)} allowed"
    low, high = behind.bounds
    margin = (limit - behind.value, limit - high, limit - low)
    check = _judge("regret", text, behind, limit, margin, ranking)
    return _among_those_seen(check, ranking)


def _among_those_seen(check: Check, ranking: Ranking) -> Check:
    """What a search did not look at may be better still: a regret that passes is then not known, unless
    the search stopped since that is unlikely."""
    search = ranking.search
    if search is None or not search.unseen:
        return check
    text = f"{check.text}; {search.n_seen} of {search.n_checkpoints} were looked at"
    unlikely = search.chance is not None and search.chance < UNLIKELY
    if check.decision != PASS or unlikely:
        return dataclasses.replace(check, text=text)
    chance = "" if search.chance is None else f", with a chance of {100 * search.chance:.0f} %"
    text += f", and another may be better{chance}: rank with a larger --budget"
    return dataclasses.replace(check, decision=CANNOT_TELL, text=text)


def _check_accuracy(ranking: Ranking, limit: float) -> Check:
    measured = best_accuracy(ranking)
    if not ranking.recommended:
        return Check("min-accuracy", CANNOT_TELL, _not_recommended(ranking), limit=limit)
    if measured is None:
        return Check("min-accuracy", CANNOT_TELL, _unmeasured(ranking), limit=limit)
    text = (
        f"{ranking.best} reaches {percent(measured, ' %')} on new images ({_by(measured)}), at least "
        f"{100 * limit:g} % asked for"
    )
    margin = (measured.value - limit, *(bound - limit for bound in measured.bounds))
    return _judge("min-accuracy", text, measured, limit, margin, ranking)


def _check_baseline(ranking: Ranking, ahead: Measured | None, tolerance: float) -> Check:
    if not ranking.recommended:
        return Check("baseline", CANNOT_TELL, _not_recommended(ranking), limit=-tolerance)
    if ahead is None:
        return Check("baseline", CANNOT_TELL, _unmeasured(ranking), limit=-tolerance)
    text = (
        f"{ranking.best} is {_points(ahead)} ahead of the baseline's best ({_by(ahead)}); "
        f"{_limit(tolerance)} behind allowed"
    )
    margin = (ahead.value + tolerance, *(bound + tolerance for bound in ahead.bounds))
    return _judge("baseline", text, ahead, -tolerance, margin, ranking)


def _check_strict(ranking: Ranking) -> Check:
    failed = [row.name for row in ranking if row.status == "failed"]
    if not failed:
        return Check("strict", PASS, f"all {len(ranking)} checkpoints could be used")
    text = f"{len(failed)} of {len(ranking)} checkpoints cannot be used: {', '.join(failed[:10])}"
    return Check("strict", FAIL, text)


def _judge(
    name: str,
    text: str,
    measured: Measured,
    limit: float,
    margin: tuple[float, ...],
    ranking: Ranking,
) -> Check:
    """A check from its margin: value, low and high, which must not lie below zero."""
    value, low, high = margin
    more = None
    if low >= -ROUNDING:
        decision = PASS
    elif high < -ROUNDING:
        decision = FAIL
    else:
        decision = CANNOT_TELL
        all_alike = measured.value in (0, 1) and name == "min-accuracy"
        if measured.random == IMAGES_AND_SEEDS:
            text += "; more training seeds, or images, would tell"
        elif measured.n is not None:
            more = further_images(value, low, high, measured.n, all_alike)
        if more is not None:
            # Where no image tells two checkpoints apart, intervals shrink faster than is reckoned with.
            about = "at most" if name == "regret" and measured.value == 0 else "about"
            text += f"; {about} {_rounded(more):,} more evaluation images would tell"
    return Check(name, decision, text, measured, limit, more)


def further_images(
    value: float, low: float, high: float, n: int, all_alike: bool = False
) -> int | None:
    """How many more than n images until the interval no longer includes zero, were the value to
    stay: its width shrinks with the square root of their number, and with their number itself where
    all are right or all wrong. None where the value is zero."""
    side = value - low if value > 0 else high - value
    if abs(value) <= ROUNDING:
        return None
    return max(1, math.ceil(n * (side / value) ** (1 if all_alike else 2)) - n)


def _rounded(n: int) -> int:
    """Two digits of a count, upwards: more would promise too much."""
    step = 10 ** max(0, len(str(n)) - 2)
    return -(-n // step) * step


def _limit(part: float) -> str:
    return f"{100 * part:g} point{'' if math.isclose(part, 0.01) else 's'}"


def _points(d: Measured) -> str:
    low, high = d.bounds
    return f"{100 * d.value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"


def _by(d: Measured) -> str:
    """What measured it, and what the interval of a single run of training leaves out."""
    one_seed = d.by == CONFIRMED and d.random == IMAGES
    return f"by {d.by}, one seed: over images only" if one_seed else f"by {d.by}"


def _not_recommended(ranking: Ranking) -> str:
    return f"no checkpoint is recommended: {ranking.why_not}"


def _unmeasured(ranking: Ranking, row: Row | None = None) -> str:
    """Why there is nothing to hold against a limit, and what to do."""
    train = f"ckptsel confirm RUN --goal {ranking.goal}"
    if ranking.confirmation:
        name = ranking.best if row is None else row.name
        return f"{name} did not end the race: train it for real too, with more --candidates of {train}."
    if ranking.score == EPOCH:
        return (
            "Which checkpoint fine-tunes best is not known: no score foretells it. Train for real with "
            f"{train}."
        )
    if not ranking.is_accuracy(ranking.score) or not ranking.is_known_how_sure:
        return (
            f"{ranking.score} decided, which is no accuracy on held-out images: rank by linear_probe, "
            f"or train for real with {train}."
        )
    return (
        f"There is no accuracy by {ranking.score} with its interval, or an older version wrote the "
        "ranking: rank again."
    )
