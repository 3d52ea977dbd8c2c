"""`knn`: held-out accuracy of the nearest neighbours by cosine similarity.

An image is of the class that most of its k nearest images of the fitting part are of; of classes with
as many, the one whose nearest image is nearest. Features are taken as they are, not centred. k is the
one of NEIGHBOURS, below the number of fitted images, that is right most often when each image of the
fitting part is left out in turn; of equals the largest.

Source: Cover and Hart 1967, as self-supervised networks are read with it (Wu et al., arXiv 1805.01978,
there with weighted votes). It grows with the square of the number of images: all similarities are
computed once, in chunks, and every fold reads its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ckptsel.common.devices import few_threads
from ckptsel.results.scores import ScoreResult
from ckptsel.scores.accuracy import held_out_accuracy
from ckptsel.scores.held_out import Fold
from ckptsel.scores.inputs import ScoreInputs
from ckptsel.scores.score import Score

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200)

CHUNK_VALUES = 2**24
"""Similarities that are held at once, 128 MiB."""


def _score(inputs: ScoreInputs) -> ScoreResult:
    predictions, chosen = inputs.no_predictions(), set()
    folds = list(inputs.folds())
    with few_threads(inputs.features.numel()):
        for fold, classes in zip(folds, _neighbour_classes(inputs, folds), strict=True):
            by_k = _votes(classes, inputs.n_classes)
            labels = inputs.labels[fold.fit_rows]
            right = {k: int((found[fold.fit_rows] == labels).sum()) for k, found in by_k.items()}
            k = max(right, key=lambda k: (right[k], k))
            predictions[fold.repeat, fold.columns] = by_k[k][fold.held_rows].cpu().numpy()
            chosen.add(k)
    return held_out_accuracy(inputs, predictions, details={"k": sorted(chosen)})


def _neighbour_classes(inputs: ScoreInputs, folds: Sequence[Fold]) -> list[Tensor]:
    """For each fold the classes of every image's nearest fitted images, the nearest first, itself left
    out: (N, K)."""
    features = inputs.features.double()
    unit = features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-30)
    n = len(unit)
    found: list[list[Tensor]] = [[] for _ in folds]
    for rows in torch.arange(n, device=unit.device).split(max(1, CHUNK_VALUES // n)):
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        for fold, parts in zip(folds, found, strict=True):
            fitted = fold.fit_rows.to(unit.device)
            most = max(1, min(NEIGHBOURS[-1], len(fitted) - 1))
            nearest = similarity[:, fitted].topk(most, dim=1).indices
            parts.append(inputs.labels[fitted][nearest])
    return [torch.cat(parts) for parts in found]


def _votes(classes: Tensor, n_classes: int) -> dict[int, Tensor]:
    """The class (N,) that the first k of neighbours' classes (N, K) vote for, by k."""
    n, most = classes.shape
    places = torch.arange(most, device=classes.device).expand(n, most)
    first = torch.full((n, n_classes), most, device=classes.device)
    first = first.scatter_reduce(1, classes, places, "amin").double()
    counts = torch.zeros((n, n_classes), dtype=torch.float64, device=classes.device)
    votes, counted = {}, 0
    for k in [k for k in NEIGHBOURS if k <= most]:
        new = classes[:, counted:k]
        counts.scatter_add_(1, new, torch.ones_like(new, dtype=torch.float64))
        votes[k] = (counts - first / (most + 1)).argmax(1)
        counted = k
    return votes


SCORE = Score(
    name="knn",
    about="held-out accuracy of the nearest neighbours by cosine similarity",
    unit="accuracy",
    compute=_score,
    by_default=False,
    source="Cover and Hart 1967; Wu et al., arXiv 1805.01978",
)
