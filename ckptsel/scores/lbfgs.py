"""L-BFGS for several smooth convex problems at once.

A small problem costs little more than the calls that it is made of; side by side, several of them
share each call. They do not touch each other: each has its own steps, and leaves when it is done. The
inverse Hessian is in its compact form, which takes few calls (Byrd, Nocedal and Schnabel 1994,
"Representations of quasi-Newton matrices", Theorem 2.2).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points (k, P), which problems they belong to (k,)) to (values (k,), gradients (k, P))."""

MEMORY = 10
"""Steps that the curvature is read from."""

SUFFICIENT = 1e-4
"""Part of the decrease that the slope promises which a step must bring (Armijo)."""

LEVEL = 1e-15
"""Change of the value that is rounding, of values of about 1: a step is then judged by its slope."""

LEAST = 1e-7
"""Gradient entries below which every problem ends: where classes can be told apart the value goes to
nil, and steps would go on for ever."""

MAX_HALVINGS = 20


def minimise(
    objective: Objective, start: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimisers (K, P) from start (K, P), their values (K,), and which of them ended before
    `max_iterations` (K,).

    A problem ends once that is below `tolerance` times its value (at most 1), or LEAST, or where no step
    leads further down.
    """
    which = torch.arange(len(start), device=start.device)
    x = start
    value, gradient = objective(x, which)
    found, least = x.clone(), value.clone()
    left = gradient.abs().amax(1)
    ended = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    curvature = _Curvature(start)
    for _ in range(max_iterations):
        going = left > (tolerance * value.clamp(max=1)).clamp(min=LEAST)
        if not bool(going.all()):
            stays = which[~going]
            found[stays], least[stays], ended[stays] = x[~going], value[~going], True
            which, x, value, gradient = (t[going] for t in (which, x, value, gradient))
            curvature.keep(going)
        if not len(which):
            break
        direction = curvature.direction(gradient)
        new_x, new_value, new_gradient, moved = _step(
            objective, which, x, value, gradient, direction
        )
        curvature.add(new_x - x, new_gradient - gradient)
        x, value, gradient = new_x, new_value, new_gradient
        left = torch.where(moved, gradient.abs().amax(1), 0.0)
    found[which], least[which] = x, value
    return found, least, ended


class _Curvature:
    """The last steps s and changes y of the gradient, of k problems, and their inner products.

    They are written over the oldest, and of inner products the new ones alone are computed: with many
    parameters, reading them is most of what an iteration costs beside the objective.
    """

    def __init__(self, like: Tensor) -> None:
        k, size = like.shape
        # Of a place the step, then the change: those in use lie side by side.
        self.pairs = like.new_empty(k, 2 * MEMORY, size)
        self.products = like.new_zeros(k, 2 * MEMORY, 2 * MEMORY)
        self.n_added = 0

    def keep(self, which: Tensor) -> None:
        """The problems (k,) that go on."""
        self.pairs, self.products = self.pairs[which], self.products[which]

    def add(self, step: Tensor, change: Tensor) -> None:
        """(k, P) each. A step that did not move informs of nothing: it counts for nothing."""
        first = 2 * (self.n_added % MEMORY)
        self.n_added += 1
        own = slice(first, first + 2)
        informs = ((step * change).sum(1) > 0)[:, None]
        self.pairs[:, first], self.pairs[:, first + 1] = step * informs, change * informs
        used = self._used()
        with_own = used @ self.pairs[:, own].mT
        self.products[:, : used.shape[1], own] = with_own
        self.products[:, own, : used.shape[1]] = with_own.mT

    def direction(self, gradient: Tensor) -> Tensor:
        """-H g of each problem (k, P).

        With R the upper triangle of s^T y and D its diagonal, H = c I + [s, c y] M [s, c y]^T, where M
        has the blocks R^-T (D + c y^T y) R^-1, -R^-T, and their transposes. Steps of nil take no part.
        """
        if not self.n_added:
            return -gradient
        used = self._used()
        n = used.shape[1]
        oldest = 2 * (self.n_added % MEMORY) if self.n_added > MEMORY else 0
        products = self.products[:, :n, :n].roll((-oldest, -oldest), (1, 2))
        slopes = (used @ gradient[:, :, None]).roll(-oldest, 1)
        upper, between = products[:, ::2, 1::2].triu(), products[:, 1::2, 1::2]
        along = upper.diagonal(dim1=1, dim2=2)
        last = between[:, -1:, -1:]
        c = torch.where(last > 0, along[:, -1:, None] / last.clamp(min=1e-300), 1.0)
        upper = upper + torch.diag_embed((along == 0).to(upper))
        p = torch.linalg.solve_triangular(upper, slopes[:, ::2], upper=True)
        right = along[:, :, None] * p + c * (between @ p - slopes[:, 1::2])
        q = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        parts = torch.stack([q, -c * p], 2).view(len(used), 1, n).roll(oldest, 2)
        return torch.baddbmm(c * gradient[:, None], parts, used)[:, 0].neg_()

    def _used(self) -> Tensor:
        return self.pairs[:, : 2 * min(self.n_added, MEMORY)]


def _step(
    objective: Objective,
    which: Tensor,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, values and gradients after a step, and which problems moved (k,).

    The whole step is tried first, then halves of it.
    """
    slope = (gradient * direction).sum(1)
    length = torch.ones_like(slope)
    for _ in range(MAX_HALVINGS):
        new_x = x + length[:, None] * direction
        new_value, new_gradient = objective(new_x, which)
        new_slope = (new_gradient * direction).sum(1)
        lower = new_value <= value + SUFFICIENT * length * slope
        level = new_value <= value + LEVEL
        fine = lower | (level & (new_slope <= (2 * SUFFICIENT - 1) * slope))
        if bool(fine.all()):
            break
        length = torch.where(fine, length, length / 2)
    keep = fine[:, None]
    return (
        torch.where(keep, new_x, x),
        torch.where(fine, new_value, value),
        torch.where(keep, new_gradient, gradient),
        fine,
    )
