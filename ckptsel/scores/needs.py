"""How much memory the scores of one candidate take besides its features, before they are computed.

An upper bound from the arrays that are made, with the copies that lie beside them; measured with every
score on shapes from 100 x 64 to 1,500 x 256 (`tests/test_memory.py`), and with those that are computed
by default up to 100,000 x 2,048 (`docs/performance.md`).
"""

from ckptsel.scores.held_out import (
    n_choosing_folds,
    n_choosing_parts,
    n_searched_together,
)
from ckptsel.scores.rows import MOST_HELD
from ckptsel.scores.scalings import SCALINGS

COPIES = 8
"""Of the features in float64, where scores take them whole: themselves, and what is made of them."""

FIT_COPIES = 5
"""Of the inputs of a fit that is not streamed: themselves, padded, and products of them."""

SEARCH_COPIES = 2.2
"""Of the inner parts, once for each scaling: themselves, and what the search makes of them."""

MATRICES = 16
"""Of features by features, while directions and scalings are found; KEPT more of each part."""

KEPT = 3

BESIDES = 64 * 2**20
"""Of libraries that are first used then."""

CLASS_VALUES = 8
"""Numbers for each image that is held out and each class: what the probe says, and its logarithm."""

STEPS = 24
"""Times the weights of each fit of a search: steps and gradients that L-BFGS remembers, and its own."""


def bytes_to_score(
    n_images: int, n_features: int, n_classes: int, n_fitted: int, n_folds: int, streams: bool
) -> int:
    """Bytes that the scores of (n_images, n_features) features take, these not included.

    n_fitted: images of one fitting part. n_folds: of the evaluation. streams: whether all scores read
    features a chunk at a time.
    """
    width = min(n_fitted, n_features)
    used = -(-n_fitted // n_choosing_parts(n_fitted, n_features, n_classes))
    n_inner = n_choosing_folds(used)
    n_searches = min(n_folds, n_searched_together(n_fitted, n_features))
    one_search = len(SCALINGS) * n_inner * min(used * width, MOST_HELD)
    n_fits = len(SCALINGS) * n_inner * n_searches
    searches = SEARCH_COPIES * one_search * n_searches + STEPS * n_fits * n_classes * (width + 1)
    fits = FIT_COPIES * n_searches * min(n_fitted * width, MOST_HELD)
    matrices = n_features * width * (MATRICES + KEPT * n_folds * (1 + n_inner))
    classes = CLASS_VALUES * n_searches * (n_images - n_fitted) * n_classes
    whole = 0 if streams else COPIES * n_images * n_features
    return BESIDES + int(8 * (whole + fits + searches + matrices + classes))
