"""`hscore`: the H-score with a shrunk covariance: how many directions tell the classes apart.

With centred features of the training part, S their covariance shrunk by Ledoit and Wolf's intensity a
(`ckptsel.scores.shrinkage`), and B = sum_c p_c m_c m_c^T the covariance of the class means m_c,

    (1 - a) tr(S^-1 B)        in [0, C - 1]

Source: Ibrahim, Ponomareva and Mazumder, arXiv 2110.06893, Sect. 4, who shrink what Bao et al. (2019)
defined; both covariances divide by N here. Nothing is held out, so with many dimensions and few images
it is too large, less so than without shrinkage, and it has no interval.
"""

import torch

from ckptsel.common.devices import few_threads
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score
from ckptsel.scores.shrinkage import class_means, shrunk_covariance


def _score(inputs: ScoreInputs) -> ScoreResult:
    with few_threads(inputs.features.numel()):
        rows = inputs.spectrum().project(inputs.fit_features)
        rows = rows - rows.mean(0)
        means, counts = class_means(rows, inputs.fit_labels, inputs.n_classes)
        whole = shrunk_covariance(rows, inputs.features.shape[1])
        by_class = (means * whole.solve(means.T).T).sum(1)
        trace = float(torch.dot(counts / counts.sum(), by_class))
    return ScoreResult((1 - whole.intensity) * trace, details={"shrinkage": whole.intensity})


SCORE = Score(
    name="hscore",
    about="H-score, its covariance shrunk: trace of S^-1 B on the training part",
    unit="directions",
    compute=_score,
    by_default=False,
    source="Ibrahim et al., arXiv 2110.06893",
)
