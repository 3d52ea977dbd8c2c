"""How well classes cluster: t-SNE embeddings and a number beside each picture (scikit-learn)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_NEIGHBOURS = 10


def embed(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The t-SNE embedding (N, 2) of features (N, D), with scikit-learn's defaults."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", random_state=0)
    embedding: NDArray[np.float32] = model.fit_transform(features)
    return embedding


def neighbour_purity(
    points: NDArray[Any], labels: NDArray[np.int64], n_neighbours: int = N_NEIGHBOURS
) -> NDArray[np.float64]:
    """For each of points (N, D) the share of its nearest others that have its label: (N,), in [0, 1]."""
    from sklearn.neighbors import NearestNeighbors

    n_neighbours = min(n_neighbours, len(points) - 1)
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(points)
    # Without points to ask about, a point is not its own neighbour.
    others = nearest.kneighbors(return_distance=False)
    purity: NDArray[np.float64] = (labels[others] == labels[:, None]).mean(axis=1)
    return purity


def silhouette(points: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The mean silhouette (Rousseeuw 1987) of classes among points (N, D), in [-1, 1]."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, labels))
