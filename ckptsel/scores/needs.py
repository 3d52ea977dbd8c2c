"""How much memory the scores of one candidate take, before they are computed.

An upper bound from the arrays that the probes make, with the copies that lie beside them; measured with
every score on shapes from 100 x 64 to 1,500 x 256 (`tests/test_memory.py`), and with those that are
computed by default up to 10,000 x 256.
"""

from ckptsel.scores.held_out import MOST_CHOOSING, n_choosing_folds, n_searched_together
from ckptsel.scores.scalings import SCALINGS

COPIES = 8
"""Of the features in float64: the inputs of a fit, what is centred and scaled of them, both views."""

SEARCH_COPIES = 2.2
"""Of the inner parts, once for each scaling: themselves, and what the search makes of them."""

BESIDES = 64 * 2**20
"""Of libraries that are first used then."""

CLASS_VALUES = 40
"""Numbers for each image and class: several strengths at once, and their gradients."""

STEPS = 24
"""Times the weights of each fit of a search: steps and gradients that L-BFGS remembers, and its own."""


def bytes_to_score(
    n_images: int, n_features: int, n_classes: int, n_fitted: int, n_folds: int
) -> int:
    """Bytes that the scores of (n_images, n_features) features take, the features in float64 included.

    n_fitted: images of one fitting part. n_folds: of the evaluation.
    """
    width = min(n_fitted, n_features)
    used = min(n_fitted, MOST_CHOOSING)
    n_inner = n_choosing_folds(used)
    one_search = len(SCALINGS) * n_inner * used * width
    n_searches = min(n_folds, n_searched_together(n_fitted, n_features))
    n_fits = len(SCALINGS) * n_inner * n_searches
    searches = SEARCH_COPIES * one_search * n_searches + STEPS * n_fits * n_classes * (width + 1)
    fits = n_images * (COPIES * n_features + CLASS_VALUES * n_classes)
    return BESIDES + int(8 * (fits + searches))
