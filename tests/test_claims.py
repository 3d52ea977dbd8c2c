"""Claims from made-up raw numbers whose answer is known."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kendalltau

from ckptsel.errors import InputError
from ckptsel.reproduce.claims import (
    FAILS,
    HOLDS,
    NOT_TESTED,
    UNDECIDED,
    agrees,
    check,
    clusters_better,
    early_and_last,
    falls,
    ft_peaks_later,
    is_early,
    is_middle,
    peak,
    rises,
    stays,
    trend,
)
from ckptsel.reproduce.paper_claims import check_claims
from ckptsel.reproduce.results import Results, load_results, prediction_key, save_results
from ckptsel.reproduce.run import claims_table

N_IMAGES = 1000
EPOCHS = (1, 5, 20, 50, 100)


def make_results(logme: Sequence[float] = range(5), **accuracies: tuple[float, ...]) -> Results:
    """Two pre-training seeds, three transfer seeds; LogME by epoch, and accuracy by epoch for `fe_0`,
    `ft_1`, ... More LogMEs than EPOCHS are of epochs 0, 1, 2, ..."""
    epochs = EPOCHS if len(logme) == len(EPOCHS) else range(len(logme))
    results = Results()
    labels = np.arange(N_IMAGES) % 10
    for seed in (0, 1):
        results.predictions[f"digits/seed{seed}/labels"] = labels
        for i, epoch in enumerate(epochs):
            results.add("source", seed=seed, epoch=epoch, source_accuracy=0.5 + 0.1 * i)
            score = {"score": "logme", "value": float(logme[i])}
            results.add("scores", target="digits", seed=seed, epoch=epoch, **score)
        for kind, values in accuracies.items():
            goal, number = kind.split("_")
            if int(number) == seed:
                for epoch, accuracy in zip(epochs, values, strict=True):
                    right = np.arange(N_IMAGES) < accuracy * N_IMAGES
                    predicted = np.where(right, labels, (labels + 1) % 10)
                    key = prediction_key("digits", seed, goal, epoch)
                    results.predictions[key] = np.stack([predicted] * 3)
    return results


EARLY = (0.80, 0.90, 0.85, 0.80, 0.75)
LATE = (0.90, 0.92, 0.94, 0.96, 0.98)
FLAT = (0.90, 0.90, 0.90, 0.90, 0.90)


def verdict(find, **accuracies: tuple[float, ...]) -> str:
    return check(make_results(**accuracies), "", "", "digits", "", "", find).verdict


def test_a_claim_holds_where_every_seed_is_on_the_papers_side() -> None:
    both = {"fe_0": EARLY, "fe_1": EARLY}
    assert verdict(falls("fe"), **both) == HOLDS
    assert verdict(rises("fe"), **both) == FAILS
    assert verdict(falls("fe"), fe_0=EARLY, fe_1=LATE) == UNDECIDED
    assert verdict(falls("fe"), fe_0=FLAT, fe_1=FLAT) == UNDECIDED
    assert verdict(falls("ft"), **both) == NOT_TESTED


def test_seeds_are_judged_together_and_their_scatter_counts() -> None:
    """Each by itself falls, by 14 and by 2 points: the next seed may as well rise."""
    less = (0.80, 0.90, 0.90, 0.90, 0.88)
    more = (0.80, 0.90, 0.85, 0.80, 0.76)
    claim = check(make_results(fe_0=less, fe_1=more), "", "", "digits", "", "", falls("fe"))
    assert [finding.verdict for finding in claim.ours] == [HOLDS, HOLDS]
    assert claim.verdict == claim.pooled.verdict == UNDECIDED
    # Student's t with one degree of freedom reaches 12.7 standard errors of a mean of two, 6 points.
    assert claim.pooled.interval.value == pytest.approx(-0.08)
    side = claim.pooled.interval.high - claim.pooled.interval.value
    assert side == pytest.approx(12.7 * 0.06, rel=0.25)
    # The standard deviation is 8.5 points: 2.57 * 8.5 / sqrt(6) = 8.9 is too much, of seven 7.8.
    assert claim.pooled.n_seeds == pytest.approx(7, abs=1)
    assert f"about {claim.pooled.n_seeds} seeds would tell" in claim.pooled.text
    table = claims_table([claim])
    assert "2 seeds: 90.00 % at epoch 5, 82.00 % at 100" in table
    assert "<br>seed 0: " in table and "<br>seed 1: " in table


def test_no_change_is_a_claim_of_its_own() -> None:
    assert verdict(stays("fe"), fe_0=FLAT, fe_1=FLAT) == HOLDS
    assert verdict(stays("fe"), fe_0=EARLY, fe_1=EARLY) == FAILS


def test_trends_are_taken_from_the_early_epoch_on() -> None:
    assert verdict(trend("fe", -1), fe_0=EARLY, fe_1=EARLY) == HOLDS
    assert verdict(trend("fe", 1), fe_0=LATE, fe_1=LATE) == HOLDS
    results = make_results(fe_0=EARLY, fe_1=EARLY)
    assert check(results, "", "", "letters", "", "", trend("fe", -1)).verdict == NOT_TESTED
    claim = check(make_results(fe_0=EARLY), "", "", "digits", "", "", trend("fe", -1))
    assert claim.ours[0].text.startswith("tau -1.00")
    assert claim.ours[0].text.endswith("over 4 epochs")


def test_the_trend_of_several_seeds_is_the_mean_of_theirs() -> None:
    """With one degree of freedom two that differ tell nothing; what all read alike is in it too."""
    half = (0.80, 0.90, 0.85, 0.86, 0.75)
    claim = check(make_results(fe_0=EARLY, fe_1=half), "", "", "digits", "", "", trend("fe", -1))
    found = claim.pooled.interval
    assert found.value == pytest.approx((-1 + kendalltau(range(4), half[1:]).statistic) / 2)
    assert (found.low, found.high) == (-1.0, 1.0) and claim.verdict == UNDECIDED
    assert claim.pooled.text.startswith("tau -0.83 [-1.00, 1.00] over 4 epochs, mean of 2 seeds")
    close = (0.80, 0.86, 0.855, 0.85, 0.845)
    same = check(make_results(fe_0=close, fe_1=close), "", "", "digits", "", "", trend("fe", -1))
    assert same.pooled.interval.value == -1.0 and same.pooled.interval.high > -1.0


def test_a_peak_lies_where_all_that_is_tied_with_it_lies() -> None:
    assert verdict(peak("fe", is_early), fe_0=EARLY, fe_1=EARLY) == HOLDS
    assert verdict(peak("fe", is_early), fe_0=LATE, fe_1=LATE) == FAILS
    assert verdict(peak("fe", is_early), fe_0=FLAT, fe_1=FLAT) == UNDECIDED
    assert verdict(peak("fe", is_middle), fe_0=LATE, fe_1=LATE) == FAILS
    claim = check(make_results(fe_0=EARLY), "", "", "digits", "", "", peak("fe", is_early))
    assert claim.ours[0].text == "best at epoch 5 (90.00 %)"


def test_the_best_ft_epoch_is_later() -> None:
    assert verdict(ft_peaks_later, fe_0=EARLY, ft_0=LATE) == HOLDS
    assert verdict(ft_peaks_later, fe_0=LATE, ft_0=EARLY) == FAILS
    assert verdict(ft_peaks_later, fe_0=EARLY) == NOT_TESTED


def test_a_score_agrees_or_is_upside_down() -> None:
    uneven = np.random.default_rng(0).random(16)
    results = make_results(logme=10 * uneven, ft_0=tuple(uneven))
    claim = check(results, "", "", "digits", "", "", agrees("logme", "ft", 1))
    assert claim.verdict == HOLDS
    assert re.fullmatch(
        r"tau 1.00 \[0.\d\d, 1.00\], r .* over 16 checkpoints, worth \d.\d", claim.ours[0].text
    )
    assert check(results, "", "", "digits", "", "", agrees("logme", "ft", -1)).verdict == FAILS
    two = make_results(logme=10 * uneven, ft_0=tuple(uneven), ft_1=tuple(uneven))
    both = check(two, "", "", "digits", "", "", agrees("logme", "ft", 1))
    assert both.pooled.text == "tau 1.00 [1.00, 1.00], mean of 2 seeds"
    # Two curves that only rise say nothing of each other.
    assert verdict(agrees("logme", "ft", 1), ft_0=LATE) == UNDECIDED
    assert verdict(agrees("linear_probe", "ft", 1), ft_0=LATE) == NOT_TESTED


def test_clusters_are_compared_by_their_neighbours() -> None:
    results = make_results()
    random = np.random.default_rng(0)
    for epoch, noise in ((5, 0.1), (100, 3.0)):
        for i in range(200):
            x, y = 5 * (i % 4) + noise * random.standard_normal(2)
            results.add(
                "embedding",
                target="digits",
                seed=0,
                epoch=epoch,
                stage="before",
                label=i % 4,
                x=float(x),
                y=float(y),
            )
    claim = check(results, "", "", "digits", "", "", clusters_better("before", later=False))
    assert claim.verdict == HOLDS
    assert "10-NN purity 100.0 and" in claim.ours[0].text
    worse = check(results, "", "", "digits", "", "", clusters_better("before", later=True))
    assert worse.verdict == FAILS


def test_epochs_5_and_200_are_stood_for_by_the_nearest_and_the_last() -> None:
    assert early_and_last(make_results(), "digits", (0,)) == (5, 100)


def test_results_are_read_back_as_they_were_written(tmp_path) -> None:
    results = make_results(fe_0=EARLY, fe_1=LATE)
    save_results(results, tmp_path)
    again = load_results(tmp_path)
    assert again.tables["source"] == results.tables["source"]
    assert again.tables["embedding"] == []
    for key, array in results.predictions.items():
        assert np.array_equal(again.predictions[key], array)
    assert again.predictions["digits/seed0/fe/005"].dtype == np.uint8
    with pytest.raises(InputError, match="holds no raw numbers of a reproduction"):
        load_results(tmp_path / "elsewhere")


@pytest.mark.parametrize("recipe", ["cifar10-mnist", "cifar10-ssl", "imagenet"])
def test_every_claim_of_a_recipe_is_listed_though_nothing_was_run(recipe: str) -> None:
    claims = check_claims(Results(), recipe)
    assert {claim.verdict for claim in claims} == {NOT_TESTED}
    assert len({(claim.name, claim.target) for claim in claims}) == len(claims)
    table = claims_table(claims)
    assert table.count("**not tested**") == len(claims)
    if recipe == "imagenet":
        assert {c.target for c in claims if c.where == "Fig. 2"} >= {"cub200", "shenzhen"}
    else:
        wheres = " ".join(claim.where for claim in claims)
        assert all(w in wheres for w in ("Fig. 1", "Fig. 3", "Fig. 4", "Fig. 5", "Table 1", "4.3"))
        label_free = {claim.name for claim in claims if "rankme" in claim.name}
        assert label_free == ({"rankme-fe", "rankme-ft"} if recipe == "cifar10-ssl" else set())
