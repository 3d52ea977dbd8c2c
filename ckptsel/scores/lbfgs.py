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
) -> tuple[Tensor, Tensor]:
    """Minimisers (K, P) from start (K, P), and which of them ended before `max_iterations` (K,).

    A problem ends once that is below `tolerance` times its value (at most 1), or LEAST, or where no step
    leads further down.
    """
    found = start.clone()
    which = torch.arange(len(start), device=start.device)
    x = start
    value, gradient = objective(x, which)
    left = gradient.abs().amax(1)
    ended = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    steps = changes = start.new_zeros(len(start), 0, start.shape[1])
    for _ in range(max_iterations):
        going = left > (tolerance * value.clamp(max=1)).clamp(min=LEAST)
        if not bool(going.all()):
            ended[which[~going]] = True
            which, x, value, gradient = (t[going] for t in (which, x, value, gradient))
            steps, changes = steps[going], changes[going]
        if not len(which):
            break
        direction = _direction(gradient, steps, changes)
        new_x, new_value, new_gradient, moved = _step(
            objective, which, x, value, gradient, direction
        )
        step, change = new_x - x, new_gradient - gradient
        # No information in a step that did not move: it counts for nothing.
        informs = ((step * change).sum(1) > 0)[:, None]
        steps = torch.cat([steps[:, -MEMORY + 1 :], (step * informs)[:, None]], 1)
        changes = torch.cat([changes[:, -MEMORY + 1 :], (change * informs)[:, None]], 1)
        x, value, gradient = new_x, new_value, new_gradient
        found[which] = x
        left = torch.where(moved, gradient.abs().amax(1), 0.0)
    return found, ended


def _direction(gradient: Tensor, steps: Tensor, changes: Tensor) -> Tensor:
    """-H g of each problem (k, P), of its last steps s and changes y of the gradient (k, m, P).

    With R the upper triangle of s^T y and D its diagonal, H = c I + [s, c y] M [s, c y]^T, where M has
    the blocks R^-T (D + c y^T y) R^-1, -R^-T, and their transposes. Steps of nil take no part.
    """
    if not steps.shape[1]:
        return -gradient
    upper = (steps @ changes.mT).triu()
    along = upper.diagonal(dim1=1, dim2=2)
    between = changes @ changes.mT
    last = between[:, -1:, -1:]
    c = torch.where(last > 0, along[:, -1:, None] / last.clamp(min=1e-300), 1.0)
    upper = upper + torch.diag_embed((along == 0).to(upper))
    of_steps = steps @ gradient[:, :, None]
    of_changes = changes @ gradient[:, :, None]
    p = torch.linalg.solve_triangular(upper, of_steps, upper=True)
    right = along[:, :, None] * p + c * (between @ p - of_changes)
    q = torch.linalg.solve_triangular(upper.mT, right, upper=False)
    return -(c[:, :, 0] * gradient + (q.mT @ steps - c * (p.mT @ changes))[:, 0])


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
