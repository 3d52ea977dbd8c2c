"""Pictures that are there twice: one must not be held out while the other is fitted on.

Compared is what the network sees, the prepared pixels, so nothing is decoded for it. Exact duplicates
have the same pixels. Near duplicates (saved again as JPEG, resized, a little brighter) are alike in
grey thumbnails of 16 x 16 cells. Those are a perceptual hash of 256 numbers that is not rounded to
bits: rounded, plain backgrounds and digits have the same bits. The contrast of a picture is the
yardstick, so that small things on a plain ground count. docs/own-data.md says what it finds, and how
often it is wrong.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ckptsel.target.pixels import Preparation
from ckptsel.target.splits import Indices

DUPLICATES_VERSION = 1
"""Part of the cache key; raised whenever other duplicates would be found."""

SIDE = 16
MIN_CORRELATION = 0.995
"""Of two grey thumbnails. Digits of MNIST that are not the same picture reach 0.997."""

MAX_CELL = 20.0
"""Grey levels (of 256) by which a cell may differ once the mean brightness is taken off: what differs
in one place, as a digit's stroke does, is no duplicate."""

MAX_COLOUR = 24.0
"""Levels, root mean square over cells and channels: the same scene in another light or tint is none."""

MIN_CONTRAST = 4.0
"""Levels, the standard deviation of a thumbnail: plainer pictures are compared exactly only."""

N_NEAREST = 8
"""Candidates, by coarser thumbnails, that a picture is held against."""

BLOCK = 256
BYTES_A_PICTURE = 12 * 2**10
"""Held while near ones are looked for, at most: thumbnails, and distances of a block to all."""

GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Duplicates:
    """Pictures that an earlier one stands for, as indices over the target, in rising order.

    left_out: (n,) that must not be held out. originals: (n,) what each is a duplicate of.
    exact: (n,) whether the pixels are the same.
    """

    left_out: Indices
    originals: Indices
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left_out)


def are_pictures(preparation: Preparation) -> bool:
    """Whether prepared samples are pixels (C, H, W). Other samples, such as short texts, may well be
    the same without being a fault."""
    return len(preparation.shape) == 3 and preparation.dtype == "uint8"


def find_duplicates(parts: Sequence[NDArray[np.uint8]], near: bool = True) -> Duplicates:
    """Which pictures have an earlier duplicate among those that are fitted on.

    parts: pixels (N, C, H, W) of the fitted and of the held-out part, whose duplicates inside it do no
    harm; or of one part that is both. near: near ones as well.
    """
    fitted, held = parts[0], parts[-1]
    is_one = len(parts) == 1
    exact = _exact_originals(fitted, held, is_one)
    found = exact
    if near:
        found = np.where(exact >= 0, exact, _near_originals(fitted, held, is_one))
    rows = np.flatnonzero(found >= 0)
    return Duplicates(rows if is_one else rows + len(fitted), found[rows], exact[rows] >= 0)


def _exact_originals(
    fitted: NDArray[np.uint8], held: NDArray[np.uint8], is_one: bool
) -> NDArray[np.int64]:
    """(n_held,) the first fitted picture with the same pixels; -1 where there is none."""
    first: dict[bytes, int] = {}
    found = np.full(len(held), -1, dtype=np.int64)
    digests = _digests(fitted)
    for i, digest in enumerate(digests):
        original = first.setdefault(digest, i)
        if is_one and original != i:
            found[i] = original
    if not is_one:
        found[:] = [first.get(digest, -1) for digest in _digests(held)]
    return found


def _digests(pixels: NDArray[np.uint8]) -> list[bytes]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest, pixels, chunksize=BLOCK))


def _digest(picture: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=16).digest()


def _near_originals(
    fitted: NDArray[np.uint8], held: NDArray[np.uint8], is_one: bool
) -> NDArray[np.int64]:
    """(n_held,) the first near duplicate of a picture among its nearest; -1 where there is none."""
    of_fitted = _thumbnails(fitted)
    of_held = of_fitted if is_one else _thumbnails(held)
    columns = _coarse(of_fitted)
    rows = columns if is_one else _coarse(of_held)
    found = np.full(len(held), -1, dtype=np.int64)
    for start in range(0, len(held), BLOCK):
        block = rows[start : start + BLOCK]
        # Of one part a picture is held against those before it.
        among = columns[: start + len(block)] if is_one else columns
        distances = _squared_distances(block, among)
        if is_one:
            places = torch.arange(len(among))
            distances[places >= start + torch.arange(len(block))[:, None]] = torch.inf
        close = torch.nonzero(distances.amin(1) <= 2 * (1 - MIN_CORRELATION)).flatten()
        if len(close):
            nearest = distances[close].topk(min(N_NEAREST, len(among)), largest=False).indices
            pairs = of_held[start + close][:, None].expand(-1, nearest.shape[1], -1, -1, -1)
            alike = _are_alike(pairs.flatten(0, 1), of_fitted[nearest.flatten()])
            usable = alike.view(nearest.shape) & distances[close].gather(1, nearest).isfinite()
            first = torch.where(usable, nearest, len(among)).amin(1)
            kept = first < len(among)
            found[start + close[kept].numpy()] = first[kept].numpy()
    return found


def _thumbnails(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, C, 16, 16) float32, mean levels of the cells."""
    return torch.cat(
        [
            functional.adaptive_avg_pool2d(
                torch.from_numpy(np.array(pixels[i : i + BLOCK])).float(), SIDE
            )
            for i in range(0, len(pixels), BLOCK)
        ]
    )


def _centred_grey(thumbnails: Tensor) -> Tensor:
    """(N, 256): grey levels less their mean."""
    weights = GREY if thumbnails.shape[1] == 3 else (1 / thumbnails.shape[1],) * thumbnails.shape[1]
    grey = (thumbnails * torch.tensor(weights).view(1, -1, 1, 1)).sum(1).flatten(1)
    return grey - grey.mean(1, keepdim=True)


def _coarse(thumbnails: Tensor) -> Tensor:
    """(N, 64): the part of grey thumbnails of length 1 that is constant over 2 x 2 cells. A projection
    brings nothing further apart, so no pair that correlates enough is missed by it."""
    grey = functional.normalize(_centred_grey(thumbnails))
    return 2 * functional.avg_pool2d(grey.view(-1, 1, SIDE, SIDE), 2).flatten(1)


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    product = rows @ columns.T
    return rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * product


def _are_alike(first: Tensor, second: Tensor) -> Tensor:
    """(n,) whether each pair of thumbnails (n, C, 16, 16) is one of near duplicates."""
    one, other = _centred_grey(first), _centred_grey(second)
    contrast = torch.minimum(one.square().mean(1), other.square().mean(1)).sqrt()
    correlation = functional.cosine_similarity(one, other)
    colour = (first - second).flatten(1).square().mean(1).sqrt()
    return (
        (correlation >= MIN_CORRELATION)
        & (contrast >= MIN_CONTRAST)
        & ((one - other).abs().amax(1) <= MAX_CELL)
        & (colour <= MAX_COLOUR)
    )
