"""What the paper claims of each recipe, in numbers, and which finding answers it."""

import dataclasses

from ckptsel.reproduce import cifar10_mnist, cifar10_ssl, imagenet
from ckptsel.reproduce.claims import (
    MIDDLE,
    Claim,
    agrees,
    check,
    clusters_better,
    falls,
    ft_peaks_later,
    is_early,
    is_middle,
    peak,
    rises,
    source_accuracy,
    stays,
    trend,
)
from ckptsel.reproduce.results import Results

TABLE_1 = "train/paper"
"""The reading and the probe that Table 1 is compared with: the paper's probe, the training basis."""

NATURAL = "the paper pre-trains on ImageNet; here CIFAR-10 is the source"


LABELLED = "the paper pre-trains with labels, and asks whether it is so without"

NOT_THE_PAPERS = "no claim of the paper"


def check_claims(results: Results, recipe: str) -> list[Claim]:
    """Every claim that the paper makes of a recipe's experiment."""
    return CLAIMS[recipe](results)


def _cifar10_mnist(results: Results) -> list[Claim]:
    reached = check(
        results,
        "source-accuracy",
        "Table 1",
        "source",
        "source accuracy is 70 % at epoch 5 and 95 % at the last",
        "70.24 %, 95.32 %",
        source_accuracy(0.94),
        "held against at least 94 % at the last epoch; smaller networks do not get there",
    )
    return [reached, *_transferred(results)]


def _cifar10_ssl(results: Results) -> list[Claim]:
    """The same claims of pre-training without labels, and those of scores without labels."""
    claims = [
        dataclasses.replace(claim, why="; ".join(part for part in (claim.why, LABELLED) if part))
        for claim in _transferred(results)
    ]
    return claims + [
        claim
        for prefix in ("mnist", "cifar100")
        for claim in _label_free(results, _target(results, prefix))
    ]


def _label_free(results: Results, target: str) -> list[Claim]:
    """What the authors of these scores say of them, of FE and FT."""
    said = {
        "rankme": (1, "more directions (rankme) go with better", "RankMe, arXiv 2210.02885"),
        "alpha_req": (
            -1,
            "a flatter spectrum (lower alpha_req) goes with better",
            "alpha-ReQ, 2022",
        ),
    }
    return [
        check(
            results,
            f"{score.replace('_', '-')}-{goal}",
            where,
            target,
            f"{claim} {goal.upper()}",
            "not asked",
            agrees(score, goal, sign),
            NOT_THE_PAPERS,
        )
        for score, (sign, claim, where) in said.items()
        for goal in ("fe", "ft")
    ]


def _target(results: Results, prefix: str) -> str:
    """The few images of a data set that were run, or would be."""
    targets = results.values("scores", "target")
    defaults = {"mnist": "mnist-1000", "cifar100": "cifar100-2000"}
    return next((t for t in targets if t.startswith(f"{prefix}-")), defaults[prefix])


def _transferred(results: Results) -> list[Claim]:
    """All but the source's own accuracy."""
    targets = results.values("scores", "target")
    few = _target(results, "mnist")
    # The paper's numbers are of all of MNIST, where that was run.
    full = "mnist" if "mnist" in targets else few
    size = "" if full == "mnist" else "the paper's numbers are of all of MNIST"
    before, after = f"components/before/{TABLE_1}", f"components/after/{TABLE_1}"
    claims = [
        check(
            results,
            "fe-peaks-early",
            "Fig. 1",
            few,
            "FE is best at an early epoch (the first tenth of the run)",
            "epoch 5 of 200",
            peak("fe", is_early),
        ),
        check(
            results,
            "fe-falls",
            "4.3, Fig. 3",
            full,
            "FE is worse at the last epoch than at epoch 5",
            "96.47 %, 88.47 %: -8.00 points",
            falls("fe"),
            size,
        ),
        check(
            results,
            "ft-rises",
            "Fig. 1; 4.3",
            full,
            "FT is better at the last epoch than at epoch 5",
            "99.30 %, 99.46 %: +0.16 points",
            rises("ft"),
            size,
        ),
        check(
            results,
            "ft-peaks-later",
            "Fig. 1",
            few,
            "the best FT epoch is later than the best FE epoch",
            "later",
            ft_peaks_later,
        ),
    ]
    for component, name, paper, find in (
        ("main", "F_m", "88.24 %, 58.74 %: -29.50 points", falls),
        ("residual", "F_r", "55.45 %, 71.28 %: +15.83 points", rises),
    ):
        claims.append(
            check(
                results,
                f"{component}-before-ft",
                "Table 1",
                full,
                f"{name} before FT {'falls' if find is falls else 'rises'} from epoch 5 to the last",
                paper,
                find(f"{before}/{component}"),
                size,
            )
        )
    claims += [
        check(
            results,
            "main-after-ft",
            "Table 1",
            full,
            "F_m after FT is the same at epoch 5 and the last (within 2 points)",
            "99.26 %, 99.08 %: -0.18 points",
            stays(f"{after}/main"),
            size,
        ),
        check(
            results,
            "residual-after-ft",
            "Table 1",
            full,
            "F_r after FT is better at the last epoch than at epoch 5",
            "27.77 %, 54.69 %: +26.92 points",
            rises(f"{after}/residual"),
            size,
        ),
        check(
            results,
            "main-trend",
            "Fig. 4",
            few,
            "accuracy on F_m falls from epoch 5 on",
            "falls",
            trend(f"{before}/main", -1),
        ),
        check(
            results,
            "residual-trend",
            "Fig. 4",
            few,
            "accuracy on F_r rises from epoch 5 on",
            "rises",
            trend(f"{before}/residual", 1),
        ),
        check(
            results,
            "clusters-before-ft",
            "Fig. 3",
            full,
            "in t-SNE, features before FT cluster better at epoch 5 than at the last",
            "by eye",
            clusters_better("before", later=False),
        ),
        check(
            results,
            "clusters-after-ft",
            "Fig. 3",
            full,
            "in t-SNE, features after FT cluster better at the last epoch than at epoch 5",
            "by eye",
            clusters_better("after", later=True),
        ),
    ]
    natural = _target(results, "cifar100")
    return claims + _transfer_claims(results, natural, NATURAL) + _logme(results, natural, NATURAL)


def _imagenet(results: Results) -> list[Claim]:
    targets = {target.name: target for target in imagenet.TARGETS}
    run = {name.split("-")[0]: name for name in results.values("scores", "target")}
    claims = []
    for name in targets:
        claims += _transfer_claims(results, run.get(name, name))
    for name in ("cifar10", "cifar100"):
        claims += _logme(results, run.get(name, name))
    return claims


def _transfer_claims(results: Results, target: str, why: str = "") -> list[Claim]:
    """Figure 2, of one target."""
    return [
        check(
            results,
            "fe-peaks-in-the-middle",
            "Fig. 2",
            target,
            f"FE is best at a middle epoch ({MIDDLE})",
            "middle",
            peak("fe", is_middle),
            why,
        ),
        check(
            results,
            "ft-grows",
            "Fig. 2",
            target,
            "FT grows with the epoch",
            "grows",
            trend("ft", 1),
            why,
        ),
        check(
            results,
            "ft-peaks-later",
            "Fig. 2",
            target,
            "the best FT epoch is later than the best FE epoch",
            "later",
            ft_peaks_later,
            why,
        ),
    ]


def _logme(results: Results, target: str, why: str = "") -> list[Claim]:
    """Figure 5: LogME ranks FE of CIFAR-10 well, and CIFAR-100 upside down; with the exact evidence
    and with the number that the paper's authors had."""
    sign, paper = (-1, "inverse") if target.startswith("cifar100") else (1, "the best of nine")
    verb = "upside down" if sign < 0 else "well"
    return [
        check(
            results,
            f"{score.replace('_', '-')}-{goal}",
            "Fig. 5",
            target,
            f"{score} ranks checkpoints {verb} for {goal.upper()}",
            paper,
            agrees(score, goal, sign),
            why,
        )
        for score in ("logme", "logme_thuml")
        for goal in (("fe", "ft") if sign < 0 else ("fe",))
    ]


CLAIMS = {
    cifar10_mnist.NAME: _cifar10_mnist,
    cifar10_ssl.NAME: _cifar10_ssl,
    imagenet.NAME: _imagenet,
}
"""By recipe."""
