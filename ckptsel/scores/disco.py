"""`disco`: which parts of the spectrum tell the classes apart, weighted by their size.

The singular values of the training features, not centred, in falling order, are cut into N_GROUPS
runs of as many values each (the first ones have one more where that does not divide; fewer groups
where there are fewer values). Of group g, with its columns V_g of the right singular vectors,

    share_g     sum of its singular values / sum of all
    accuracy_g  share of the training images whose coordinates F V_g lie nearest to the mean of their
                own class (Euclidean distance; of equals the lowest class)

    disco = sum_g share_g accuracy_g        in [0, 1]

Source: Zhang et al., arXiv 2412.19085, the score for classification, as its abstract describes it. The
number of groups is ours: no code was found to compare with. What the paper does with hard
examples, to save time, is left out. Nothing is held out, so it has no interval.
"""

import torch
from torch import Tensor

from ckptsel.common.devices import few_threads
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score
from ckptsel.scores.shrinkage import class_means

N_GROUPS = 8


def _score(inputs: ScoreInputs) -> ScoreResult:
    with few_threads(inputs.features.numel()):
        spectrum = inputs.spectrum()
        values, labels = spectrum.singular_values, inputs.fit_labels
        rows = spectrum.project(inputs.fit_features)
        groups = zip(rows.tensor_split(N_GROUPS, dim=1), values.tensor_split(N_GROUPS), strict=True)
        value = sum(
            float(some.sum() / values.sum()) * _centroid_accuracy(part, labels, inputs.n_classes)
            for part, some in groups
            if len(some)
        )
    return ScoreResult(float(value))


def _centroid_accuracy(rows: Tensor, labels: Tensor, n_classes: int) -> float:
    """Share of rows (n, r) that lie nearest to the mean of their own class."""
    means, counts = class_means(rows, labels, n_classes)
    closeness = rows @ means.T - means.square().sum(1) / 2
    closeness[:, counts == 0] = -torch.inf
    return float((closeness.argmax(1) == labels).double().mean())


SCORE = Score(
    name="disco",
    about="nearest-centroid accuracy of each part of the spectrum, weighted by its singular values",
    unit="share",
    compute=_score,
    by_default=False,
    source="Zhang et al., arXiv 2412.19085",
)
