"""`lda`: held-out accuracy of linear discriminant analysis with a shrunk covariance.

With class means m_c and shares p_c of the fitting part, and the covariance W within classes (all
classes pooled, shrunk as `ckptsel.scores.shrinkage` says), an image x is of the class with the largest

    m_c^T W^-1 x - 1/2 m_c^T W^-1 m_c + log p_c

Source: Fisher 1936; Ledoit and Wolf 2004. Nothing is chosen, so it takes one decomposition a fold. It
is scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a)` with the `a` of its
`LedoitWolf` on the features less their class's mean (its own "auto" shrinks each class by itself, after
scaling each column). Means and W lie in the span of the fitted images, so their coordinates suffice:
with fewer images than dimensions nothing larger than (n, n) is made.
"""

import torch
from torch import Tensor

from ckptsel.common.devices import few_threads
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.accuracy import held_out_accuracy
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score
from ckptsel.scores.shrinkage import class_means, shrunk_covariance


def _score(inputs: ScoreInputs) -> ScoreResult:
    predictions, intensities = inputs.no_predictions(), []
    n_columns = inputs.features.shape[1]
    with few_threads(inputs.features.numel()):
        for fold in inputs.folds():
            fitted, held = inputs.coordinates(fold)
            labels = inputs.labels[fold.fit_rows]
            scores, intensity = _discriminants(fitted, labels, held, inputs.n_classes, n_columns)
            predictions[fold.repeat, fold.columns] = scores.argmax(1).cpu().numpy()
            intensities.append(intensity)
    details = {"shrinkage": [min(intensities), max(intensities)]}
    return held_out_accuracy(inputs, predictions, details=details)


def _discriminants(
    fitted: Tensor, labels: Tensor, held: Tensor, n_classes: int, n_columns: int
) -> tuple[Tensor, float]:
    """(discriminants (m, C) of held-out rows (m, r), how much was shrunk)."""
    centre = fitted.mean(0)
    fitted, held = fitted - centre, held - centre
    means, counts = class_means(fitted, labels, n_classes)
    within = shrunk_covariance(fitted - means[labels], n_columns)
    weights = within.solve(means.T)
    bias = torch.log(counts / counts.sum()) - (means * weights.T).sum(1) / 2
    return held @ weights + bias, within.intensity


SCORE = Score(
    name="lda",
    about="held-out accuracy of linear discriminant analysis, its covariance shrunk",
    unit="accuracy",
    compute=_score,
    by_default=False,
    source="Fisher 1936; shrinkage: Ledoit and Wolf 2004",
)
