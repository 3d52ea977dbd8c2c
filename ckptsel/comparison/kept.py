"""What a ranking kept of its held-out images, for another ranking to be set beside it image by image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptsel.results.confirmation import CONFIRMED
from ckptsel.results.ranking import Ranking

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Kept:
    """What the candidates of a ranking gave on the held-out images.

    values: (n_seeds, n_images) by candidate; 1.0 where right, or what else a score gives an image.
    images: says which images these are; the same for the same.
    """

    values: dict[str, NDArray[np.float64]]
    images: tuple[str, bytes]

    def n_seeds(self, name: str) -> int:
        return len(self.values[name])


def kept_values(ranking: Ranking, arrays: Arrays, by: str, step: int | None = None) -> Kept | None:
    """What measured the candidates, as far as it was kept; None where nothing was.

    by: a score, or CONFIRMED, of which the candidates that ended `step` have values.
    """
    if by == CONFIRMED:
        first = f"confirmed/{ranking.goal}"
        images = arrays.get(f"{first}/labels")
        keys = {row.name: f"{first}/{row.name}/{step}" for row in ranking}
        kept = {name: arrays[key] == images for name, key in keys.items() if key in arrays}
    else:
        images = arrays.get("evaluated")
        keys = {row.name: f"{row.name}/{by}/per_image" for row in ranking}
        kept = {name: arrays[key][None] for name, key in keys.items() if key in arrays}
    if images is None or not kept:
        return None
    values = {name: value.astype(np.float64) for name, value in kept.items()}
    return Kept(values, (ranking.target["fingerprint"], images.tobytes()))
