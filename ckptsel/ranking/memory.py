"""`--memory`: what one process may hold of its own, and what is done to keep to it.

Decoded pixels in memory get a fourth, what a network makes of a batch another; features and scores may
take what pixels leave. Not counted: Python and its libraries, the network, and pages of mapped files,
which the system drops where it needs the room. What cannot be kept to is said before it is begun.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ckptsel.common.quantities import bytes_of, size_text
from ckptsel.errors import UsageError
from ckptsel.scores.needs import bytes_to_score
from ckptsel.target.duplicates import BYTES_A_PICTURE
from ckptsel.target.pixels import MAPPED_FROM

PART = 4
"""Pixels get one of so many parts, and a batch another."""

A_BATCH = 24
"""Times the values of an image, in float32, that a network holds of it: maps of its first layers."""

A_RESULT = 64
"""Bytes for each held-out image, score and candidate: what was predicted, and copies when the candidates
are judged and written."""


@dataclass(frozen=True)
class Scoring:
    """The sizes of what is scored.

    n_read: features an image at all layers that one pass holds; 0 where the store has them.
    n_features: at the widest candidate. n_fitted: images of a fitting part. n_results: scores of all
    candidates. streams: whether every score reads features a chunk at a time.
    """

    n_images: int
    n_read: int
    n_features: int
    n_classes: int
    n_fitted: int
    n_folds: int
    n_held: int
    n_results: int
    streams: bool

    @property
    def n_bytes(self) -> int:
        features = 4 * self.n_images * (self.n_read + self.n_features)
        scores = bytes_to_score(
            self.n_images,
            self.n_features,
            self.n_classes,
            self.n_fitted,
            self.n_folds,
            self.streams,
        )
        return features + scores + A_RESULT * self.n_held * self.n_results


class MemoryBound:
    """memory: as the option has it; None for no limit."""

    def __init__(self, memory: str | None) -> None:
        self._said = memory
        self._n_bytes = None if memory is None else bytes_of(memory)

    @property
    def mapped_from(self) -> int:
        """Bytes of pixels from which they are mapped from the cache."""
        return MAPPED_FROM if self._n_bytes is None else min(MAPPED_FROM, self._n_bytes // PART)

    def batch_size(self, shape: tuple[int, ...], usual: int) -> int:
        """Images in a batch. shape: of one."""
        if self._n_bytes is None:
            return usual
        return max(1, min(usual, self._n_bytes // PART // (4 * A_BATCH * math.prod(shape))))

    def check_pixels(self, n_bytes: int, has_cache: bool) -> None:
        """Raises UsageError for pixels that can neither lie in memory nor be mapped."""
        if self._n_bytes is not None and n_bytes > self.mapped_from and not has_cache:
            raise UsageError(
                f"decoded pixels take {size_text(n_bytes)}, more than the fourth part of --memory "
                f"{self._said} that they may, and without a cache there is no file to map them from. "
                "Leave out --no-cache, give more memory, or fewer images (--max-train-samples)."
            )

    def check_duplicates(self, n_images: int) -> None:
        """Raises UsageError where looking for near duplicates takes too much."""
        self._check(
            BYTES_A_PICTURE * n_images,
            f"looking for near duplicates among {n_images:,} images",
            "--duplicates exact looks for those with the same pixels alone",
        )

    def check_scoring(self, scoring: Scoring, pixels: Sequence[int]) -> None:
        """Raises UsageError where features and scores take too much. pixels: bytes of each split."""
        n_bytes = scoring.n_bytes
        # With more memory more of them lie in it.
        would_be_held = (n_bytes + sum(pixels)) // PART
        self._check(
            n_bytes + sum(n for n in pixels if n < self.mapped_from),
            f"scoring {scoring.n_images:,} images with {scoring.n_features:,} features",
            "give fewer images (--max-train-samples, --max-eval-samples)",
            needed=n_bytes + sum(n for n in pixels if n < would_be_held),
        )

    def _check(self, n_bytes: int, what: str, advice: str, needed: int = 0) -> None:
        if self._n_bytes is not None and n_bytes > self._n_bytes:
            enough = -(-max(n_bytes, needed) // 2**20)
            raise UsageError(
                f"{what} may take {size_text(n_bytes)}, more than --memory {self._said}. Give --memory "
                f"{enough}MiB, or {advice}."
            )
