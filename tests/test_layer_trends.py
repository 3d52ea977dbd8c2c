"""At which layers a component falls or rises, from made-up raw numbers whose answer is known."""

import numpy as np
import pytest

from ckptsel.reproduce.layer_trends import (
    FALLS,
    RISES,
    UNDECIDED,
    describe_layers,
    layer_trends,
    sentence,
    where_it_begins,
)
from ckptsel.reproduce.results import Results, layer_kind, prediction_key

EPOCHS = (1, 5, 20, 50, 100)
FALL = (0.80, 0.90, 0.85, 0.80, 0.75)
RISE = (0.90, 0.70, 0.80, 0.85, 0.90)
FLAT = (0.90, 0.90, 0.90, 0.90, 0.90)
N_IMAGES = 1000


def make_results(n_seeds: int = 1, **residual: tuple[float, ...]) -> Results:
    """Accuracy of F_r by epoch, layer by layer; F and F_m never move."""
    results = Results()
    labels = np.arange(N_IMAGES) % 10
    for seed in range(n_seeds):
        results.predictions[f"digits/seed{seed}/labels"] = labels
        for i, epoch in enumerate(EPOCHS):
            results.add("scores", target="digits", seed=seed, epoch=epoch, score="knn", value=0.5)
            for layer, accuracies in residual.items():
                series = {"all": FLAT, "main": FLAT, "residual": accuracies}
                for component, values in series.items():
                    row = {"component": component, "n_main": 40 + i, "accuracy": values[i]}
                    about = {"seed": seed, "target": "digits", "epoch": epoch, "layer": layer}
                    results.add("layers", **about, **row)
                    right = np.arange(N_IMAGES) < values[i] * N_IMAGES
                    key = prediction_key("digits", seed, layer_kind(layer, component), epoch)
                    results.predictions[key] = np.where(right, labels, (labels + 1) % 10)[None]
    return results


def test_each_layer_has_a_direction_of_its_own() -> None:
    trends = layer_trends(make_results(stem=RISE, middle=FLAT, last=FALL), "digits", "residual")
    assert [t.direction for t in trends.values()] == [RISES, UNDECIDED, FALLS]
    assert (trends["last"].early, trends["last"].last) == pytest.approx((0.90, 0.75))
    # Epoch 1 comes before the early epoch and does not count.
    assert trends["last"].tau.value == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("layers", "begins"),
    [
        ({"stem": FLAT, "middle": FALL, "last": FALL}, "middle"),
        ({"stem": FALL, "middle": FLAT, "last": FALL}, "last"),
        ({"stem": FALL, "middle": FALL, "last": FLAT}, None),
        ({"stem": FALL, "middle": FALL, "last": FALL}, "stem"),
    ],
)
def test_a_fall_begins_where_every_deeper_layer_falls(layers, begins: str | None) -> None:
    trends = layer_trends(make_results(**layers), "digits", "residual")
    assert where_it_begins(trends, FALLS) == begins


def test_the_sentence_names_every_layer() -> None:
    trends = layer_trends(make_results(stem=RISE, middle=FLAT, last=FALL), "digits", "residual")
    assert sentence("residual", trends) == (
        "F_r with over-training: falls from last on; rises at stem; undecided at middle."
    )
    twice = layer_trends(make_results(a=FALL, b=FLAT, c=FALL, d=FALL), "digits", "residual")
    assert sentence("residual", twice).endswith("falls from c on; falls at a; undecided at b.")
    assert "no trend" in sentence("main", {})


def test_the_page_has_a_row_a_layer_and_means_over_seeds() -> None:
    text = describe_layers(make_results(n_seeds=2, stem=FLAT, last=FALL))
    assert text.startswith("## digits, mean of seeds 0, 1\n")
    assert "- F_r with over-training: falls from last on; undecided at stem." in text
    assert "| `last` | 41 → 44 | 90.0 → 90.0" in text
    assert "90.0 → 75.0, -1.00 [-1.00, -1.00] falls |" in text
    assert describe_layers(Results()) == ""
