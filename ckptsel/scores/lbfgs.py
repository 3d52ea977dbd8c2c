"""L-BFGS for several smooth convex problems at once (Nocedal and Wright, Numerical Optimization, 7.2).

A small problem costs little more than the calls that it is made of; side by side, several of them
share each call. They do not touch each other: each has its own steps, and leaves when it is done.
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

NIL = 1e-4
"""A value that gradients are no longer compared with: classes are as good as told apart."""

MAX_HALVINGS = 20


def minimise(
    objective: Objective, start: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Minimisers (K, P) from start (K, P), and each one's largest gradient entry (K,).

    A problem ends once that is below `tolerance` times its value (from NIL to 1), or where no step leads
    further down.
    """
    found = start.clone()
    which = torch.arange(len(start), device=start.device)
    x = start
    value, gradient = objective(x, which)
    largest = gradient.abs().amax(1)
    left = largest.clone()
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(max_iterations):
        going = left > tolerance * value.clamp(NIL, 1)
        if not bool(going.all()):
            which, x, value, gradient = (t[going] for t in (which, x, value, gradient))
            steps = [(s[going], y[going], r[going]) for s, y, r in steps]
        if not len(which):
            break
        direction = _direction(gradient, steps)
        new_x, new_value, new_gradient, moved = _step(
            objective, which, x, value, gradient, direction
        )
        s, y = new_x - x, new_gradient - gradient
        curvature = (s * y).sum(1)
        # No information in a step that did not move: it counts for nothing.
        inverse = torch.where(curvature > 0, 1 / curvature.clamp(min=1e-300), 0.0)
        steps = [*steps[-MEMORY + 1 :], (s, y, inverse[:, None])]
        x, value, gradient = new_x, new_value, new_gradient
        found[which] = x
        largest[which] = gradient.abs().amax(1)
        left = torch.where(moved, largest[which], 0.0)
    return found, largest


def _direction(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """-H g of each problem: the two-loop recursion."""
    q, weights = gradient.clone(), []
    for s, y, inverse in reversed(steps):
        weight = inverse * (s * q).sum(1, keepdim=True)
        q -= weight * y
        weights.append(weight)
    if steps:
        _, y, inverse = steps[-1]
        q *= torch.where(
            inverse > 0, 1 / (inverse * (y * y).sum(1, keepdim=True)).clamp(min=1e-300), 1.0
        )
    for (s, y, inverse), weight in zip(steps, reversed(weights), strict=True):
        q += (weight - inverse * (y * q).sum(1, keepdim=True)) * s
    return -q


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
