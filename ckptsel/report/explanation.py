"""How each number of a ranking came about, in sentences: what was fitted, what was held out, how it was
chosen, and what its interval leaves out."""

from collections.abc import Iterator

from ckptsel.common.outlets import markdown, shown
from ckptsel.results.about import TargetAbout
from ckptsel.results.confirmation import GoalConfirmation
from ckptsel.results.ranking import EPOCH, Ranking
from ckptsel.results.summary import unsure_note

STRENGTH = (
    "how the features are scaled and how strongly it is regularised is chosen inside the fitted images, "
    "by the likelihood of parts of them that are held out in turn; the images that it is read on have "
    "no say"
)

PAPER_PROBE = (
    "the share of held-out images that a linear classifier gets right, trained as Deng et al. do: Adam, "
    "50 epochs, batches of 128, learning rate 0.01, on the features as they are; nothing is chosen"
)
"""`linear_probe` with `--probe paper`."""

SCORES = {
    "linear_probe": "the share of held-out images that a linear classifier (logistic regression on the "
    f"features, fitted until it hardly moves) gets right; {STRENGTH}",
    "linear_probe_loglik": "the mean log-likelihood, in nats, that the same classifier gives the true "
    "classes of the held-out images; smoother than accuracy",
    "main_component": "as linear_probe, on the part of the features in their strongest directions, "
    "which make up {energy} % of the sum of the singular values; the directions come from the fitted "
    "images",
    "residual_component": "as linear_probe, on the rest of the features, without those directions",
    "logme": "the log evidence, in nats an image, of Bayesian linear regression of the classes on the "
    "features of all fitted images (LogME); no image is held out, so it has no interval",
    "logme_thuml": "as logme, as its authors' code computes it",
    "ridge_probe": "the share of held-out images that ridge regression of the classes on the features "
    "gets right; how strongly it is regularised is chosen by leaving out each fitted image in turn",
    "knn": "the share of held-out images whose class most of their nearest fitted images have, by the "
    "cosine of the features; how many neighbours count is chosen inside the fitted images",
    "lda": "the share of held-out images that linear discriminant analysis gets right, its covariance "
    "shrunk as Ledoit and Wolf do",
    "hscore": "how many directions of the features of the fitted images tell their classes apart "
    "(H-score, its covariance shrunk); no image is held out, so it has no interval",
    "disco": "how well the nearest class mean tells the fitted images in each part of the spectrum, "
    "weighted by its singular values (DISCO); no image is held out, so it has no interval",
    "rankme": "how many directions the features of the fitted images fill (RankMe); it does not look "
    "at the labels, and decides nothing",
    "alpha_req": "how fast the spectrum of the fitted images falls (alpha-ReQ); it does not look at the "
    "labels, and decides nothing",
}

AVERAGES = (
    "`~mean3` behind a name is the mean of the weights of that checkpoint and the two before it, and of "
    "what batch norm keeps; its features are computed as those of a checkpoint. Each average is one "
    "more candidate that has to be told from the best."
)

SEARCH = (
    "Not all checkpoints were looked at, and ranks, ties and chances are among those that were. What is "
    "expected of others comes from a Gaussian process over the logarithm of the step, with breaks where "
    "the learning rate fell, fitted to what was seen."
)

LEFT_OUT = (
    "Intervals hold what another draw of held-out images would change. They leave out what another set "
    "of images to fit on, or another pre-training run, would change, and whether your own images are "
    "like these."
)


def explain(ranking: Ranking) -> list[tuple[str, str]]:
    """(what is explained, how it came about), in the order in which a reader meets them."""
    parts = [
        ("images", _images(ranking.target)),
        ("features", _features(ranking)),
        *((("averages", AVERAGES),) if any(row.average_of for row in ranking) else ()),
        *_scores(ranking),
        *((("search", SEARCH),) if ranking.search is not None and ranking.search.unseen else ()),
        *_together(ranking),
    ]
    for goal, confirmation in ranking.confirmation.items():
        parts.append((f"confirmed {goal}", _confirmed(confirmation)))
    return parts


def explanation_text(ranking: Ranking, form: str = "table") -> str:
    """As text, one paragraph a line, ending in a line break. form: `table` or `md`."""
    show = markdown if form == "md" else shown
    lines = [f"  {show(f'{what}: {how}')}" for what, how in explain(ranking)]
    return "\n".join(["how each number came about:", *lines]) + "\n"


def _images(target: TargetAbout) -> str:
    evaluation = target["evaluation"]
    n_fitted, n_held = evaluation["n_train"], evaluation["n_eval"]
    found = target.get("duplicates")
    out = f" {found['n']} that are there twice were left out." if found and found["n"] else ""
    if evaluation["method"] != "cross-validation":
        where = evaluation["method"]
        return f"fitted on {n_fitted} images, read on {n_held} others ({where}).{out}"
    folds, repeats = evaluation.get("n_folds", 1), evaluation.get("n_repeats", 1)
    times = f", {repeats} times with other parts, and the results averaged" if repeats > 1 else ""
    return (
        f"the {n_held} images are cut into {folds} parts with the classes in equal shares; each part is "
        f"read by what was fitted on the others{times}.{out}"
    )


def _features(ranking: Ranking) -> str:
    model = ranking.model
    made = model["preprocessing"]
    layer = model.get("layer", "its last layer")
    if len(ranking.layers) > 1:
        layer = f"{len(ranking.layers)} layers ({', '.join(ranking.layers)}; last: {layer})"
    first = f"the output of {model['name']} at {layer}, its weights frozen"
    if "input_size" not in made:
        return f"{first}; every sample is prepared once, the same for every checkpoint."
    size = "x".join(map(str, made["input_size"][1:]))
    crop = made.get("crop_pct", 1.0)
    whole = "whole" if crop == 1 else f"its middle {100 * crop:g} %"
    how = ", ".join([*([made["interpolation"]] if "interpolation" in made else []), whole])
    return (
        f"{first}; every image is brought to {size} pixels ({how}), the same for every checkpoint."
    )


def _scores(ranking: Ranking) -> Iterator[tuple[str, str]]:
    energy = f"{100 * ranking.settings.get('energy', 0.8):g}"
    for name in dict.fromkeys(name for row in ranking for name in row.scores):
        text = SCORES.get(name, "a score of another package: see there").format(energy=energy)
        if name == "linear_probe" and ranking.settings.get("probe") == "paper":
            text = PAPER_PROBE
        strengths = sorted(
            {
                strength
                for row in ranking
                if name in row.scores
                for strength in row.scores[name].details.get("C", ())
            }
        )
        if strengths:
            low, high = strengths[0], strengths[-1]
            chosen = f"{low:.2g}" if low == high else f"between {low:.2g} and {high:.2g}"
            text += f". Chosen: C {chosen}{_scalings(ranking, name)}"
        yield name, f"{text}."


def _scalings(ranking: Ranking, name: str) -> str:
    """How the features were scaled, where that was recorded."""
    details = [row.scores[name].details for row in ranking if name in row.scores]
    names = sorted({scaling for one in details for scaling in one.get("scaling", ())})
    return f"; features {', '.join(names)}" if names else ""


def _together(ranking: Ranking) -> Iterator[tuple[str, str]]:
    yield from _order(ranking)
    yield "intervals", LEFT_OUT


def _order(ranking: Ranking) -> Iterator[tuple[str, str]]:
    if ranking.score == EPOCH and not ranking.confirmation:
        yield (
            "order",
            "by the epoch alone, since no score foretells fine-tuning better; nothing says how sure.",
        )
        return
    if not ranking.is_known_how_sure:
        yield "order", f"by {ranking.score} alone; {unsure_note(ranking.score)}."
        return
    by = "real training" if ranking.confirmation else ranking.score
    inside = ""
    if not ranking.confirmation and ranking.score == "linear_probe":
        inside = ", and inside it by linear_probe_loglik where that was computed"
    yield (
        "order",
        f"the tie set first, by {by}{inside}. The tie set holds every checkpoint that can be the best "
        "at 95 %: multiple comparisons with the best (Hsu 1984), of all checkpoints on the same images.",
    )
    yield (
        "P(best)",
        f"the share of {ranking.settings.get('n_resamples', 2000)} draws of the errors of all "
        "checkpoints together in which this one is the best.",
    )
    if ranking.expected is not None:
        yield (
            "expected on new images",
            "the best of many is partly the luckiest, so its own mean is too high. Chosen on four "
            "fifths of the held-out images and read on the last, in turn; the interval holds for "
            "whichever is chosen.",
        )


def _confirmed(confirmation: GoalConfirmation) -> str:
    c = confirmation
    what = (
        "a new classifier on frozen features" if c.goal == "fe" else "all weights, with a new head"
    )
    seeds = (
        "one run a candidate, so that intervals are over images only"
        if c.n_seeds == 1
        else f"{c.n_seeds} runs a candidate, with the same seeds and batches for all; intervals are "
        "over images and runs"
    )
    lr = f"{c.lr:g}, " + (
        "chosen by short runs of some candidates on a part of the images to train on"
        if c.sweep
        else "as given"
    )
    return (
        f"{what} trained for up to {c.rungs[-1]} steps on {c.n_fitted} images and read on {c.n_held} "
        f"({c.split}); {seeds}. Learning rate {lr}. Who is behind at 95 % leaves after "
        f"{_steps(c.rungs)} steps."
    )


def _steps(rungs: tuple[int, ...]) -> str:
    return ", ".join(map(str, rungs[:-1])) + (" or " if len(rungs) > 1 else "") + str(rungs[-1])
