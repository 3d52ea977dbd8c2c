"""Some images' features, read in float64 a chunk at a time: what is computed of them holds no copy.

A product with a chunk finds it in the processor's cache, where converting it has left it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CHUNK = 2**19
"""Values of a chunk on a CPU, 4 MiB."""

GPU_CHUNK = 2**24
"""On a GPU, where each call has a price of its own."""

MOST_HELD = 2**23
"""Values of rows through a map that are held, 64 MiB: of more, features are read at each step of a fit,
which takes a quarter longer and no memory."""


def values_at_once(tensor: Tensor) -> int:
    """Values that are read at a time where a tensor lies."""
    return GPU_CHUNK if tensor.is_cuda else CHUNK


@dataclass(frozen=True)
class Columns:
    """The mean, the least and the most of each column (D,), float64."""

    mean: Tensor
    least: Tensor
    most: Tensor


@dataclass(frozen=True)
class Rows:
    """The rows at `places` (n,) of features (N, D), of any floating type; both on one device."""

    features: Tensor
    places: Tensor

    @classmethod
    def at(cls, features: Tensor, places: Tensor) -> "Rows":
        return cls(features, places.to(features.device))

    @classmethod
    def all_of(cls, features: Tensor) -> "Rows":
        return cls.at(features, torch.arange(len(features)))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.places), self.features.shape[1]

    def whole(self) -> Tensor:
        """(n, D) float64, a copy."""
        return self.features[self.places].double()

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which of the rows, and these (m, D), float64."""
        size = max(1, values_at_once(self.features) // max(1, self.shape[1]))
        for first in range(0, len(self), size):
            some = slice(first, min(first + size, len(self)))
            yield some, self.features[self.places[some]].double()

    @cached_property
    def columns(self) -> Columns:
        first = next(self.chunks())[1]
        total, least, most = torch.zeros_like(first[0]), first[0], first[0]
        for _, chunk in self.chunks():
            total = total + chunk.sum(0)
            least, most = torch.minimum(least, chunk.amin(0)), torch.maximum(most, chunk.amax(0))
        return Columns(total / len(self), least, most)

    @cached_property
    def scatter(self) -> Tensor:
        """The sum of (f - mean) (f - mean)^T, (D, D)."""
        mean = self.columns.mean
        found = mean.new_zeros(len(mean), len(mean))
        for _, chunk in self.chunks():
            chunk -= mean
            found.addmm_(chunk.T, chunk)
        return found

    @property
    def gram(self) -> Tensor:
        """The sum of f f^T, (D, D)."""
        mean = self.columns.mean
        return self.scatter + len(self) * torch.outer(mean, mean)

    def gram_in(self, basis: Tensor, less: Tensor) -> Tensor:
        """The sum of (f - less) (f - less)^T in a basis (D, k): (k, k)."""
        found = basis.new_zeros(basis.shape[1], basis.shape[1])
        for _, chunk in self.chunks():
            along = (chunk - less) @ basis
            found.addmm_(along.T, along)
        return found

    def times(self, matrix: Tensor, less: Tensor | None = None) -> Tensor:
        """f matrix of each row, or (f - less) matrix, for a matrix (D, k): (n, k)."""
        found = matrix.new_empty(len(self), matrix.shape[1])
        for some, chunk in self.chunks():
            torch.mm(chunk, matrix, out=found[some])
        return found if less is None else found.sub_(less @ matrix)

    def cross(self, right: Tensor) -> Tensor:
        """The sum of f r^T over the rows and those of right (n, k): (D, k)."""
        found = right.new_zeros(self.shape[1], right.shape[1])
        for some, chunk in self.chunks():
            found.addmm_(chunk.T, right[some])
        return found

    def sums_by(self, labels: Tensor, n_classes: int) -> Tensor:
        """The sum of the rows of each class (C, D). labels: (n,)."""
        found = self.columns.mean.new_zeros(n_classes, self.shape[1])
        for some, chunk in self.chunks():
            found.index_add_(0, labels[some], chunk)
        return found


@dataclass(frozen=True)
class Mapped:
    """Rows through a linear map, (f - mean) matrix for a matrix (D, r), computed where they are read:
    (n, r)."""

    rows: Rows
    mean: Tensor
    matrix: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.matrix.shape[1]

    def __getitem__(self, which: Tensor) -> "Mapped":
        """Some of the rows. which: (n,) bool."""
        return Mapped(Rows(self.rows.features, self.rows.places[which]), self.mean, self.matrix)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which of them, and these (m, r)."""
        for some, chunk in self.rows.chunks():
            yield some, (chunk - self.mean) @ self.matrix

    def held(self) -> Tensor:
        """All of it, (n, r)."""
        return self.rows.times(self.matrix, self.mean)

    def held_if_small(self) -> "Tensor | Mapped":
        n, width = self.shape
        return self.held() if n * width <= MOST_HELD else self

    def __matmul__(self, weights: Tensor) -> Tensor:
        """(n, k) for weights (r, k)."""
        return self.rows.times(self.matrix @ weights, self.mean)

    def __truediv__(self, number: Tensor) -> "Mapped":
        return Mapped(self.rows, self.mean, self.matrix / number)

    def gram(self) -> Tensor:
        """(r, r). As the next two, of rows whose own mean is `mean`."""
        return self.matrix.T @ self.rows.scatter @ self.matrix

    def squares(self) -> Tensor:
        """The mean square of each column, (r,)."""
        return ((self.rows.scatter @ self.matrix) * self.matrix).sum(0) / len(self)

    def cross(self, right: Tensor) -> Tensor:
        """The sum of z r^T over the rows and those of right (n, k), whose mean is nil: (r, k)."""
        return self.matrix.T @ self.rows.cross(right)
