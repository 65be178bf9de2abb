"""Least squares with coefficients of zero or more, by the active-set method of Lawson and Hanson on the normal equations.

For systems of a few columns whose matrix is positive definite (a ridge sees to that here), where the answer is unique and exact
up to rounding. scipy has the general method; importing it costs a second, and it takes a hundred megabytes.
"""

from __future__ import annotations

from typing import Any

_ZERO = 1e-12
"""What counts as no gain any more, relative to the largest gain at the start."""
_PASSES = 20
"""Rounds for each column, many more than the method takes; the bound is for a matrix that is not what it should be."""


def nonnegative(left: Any, right: Any) -> Any:
    """The ``x`` of zeros and positive values that makes ``x @ left @ x - 2 * right @ x`` least.

    ``left`` is positive definite. Deterministic. ``ValueError`` when no answer is found, which such a matrix rules out.
    """
    import numpy as np

    held = np.zeros(len(right))
    free = np.zeros(len(right), dtype=bool)
    enough = _ZERO * float(np.abs(right).max(initial=0.0))
    for _ in range(_PASSES * len(right) + 1):
        gain = np.where(free, -np.inf, right - left @ held)
        best = int(gain.argmax()) if len(gain) else 0
        if not len(gain) or gain[best] <= enough:
            return held
        free[best] = True
        held, free = _settled(left, right, held, free)
        if not free[best]:  # its gain was a rounding error, and it is the largest that there is
            return held
    raise ValueError("the columns are no positive definite system")


def _settled(left: Any, right: Any, held: Any, free: Any) -> tuple[Any, Any]:
    """The best values of the free columns, once those that would have to be negative are free no more."""
    import numpy as np

    while free.any():
        best = np.zeros(len(right))
        best[free] = np.linalg.solve(left[np.ix_(free, free)], right[free])
        below = free & (best <= 0.0)
        if not below.any():
            return best, free
        # As far towards the best as no value falls below zero; the first to get there leaves.
        steps = np.full(len(right), np.inf)
        steps[below] = held[below] / (held[below] - best[below])
        held = held + float(steps.min()) * (best - held)
        free = free & (steps > steps.min())
        held = np.where(free, held, 0.0)
    return np.zeros(len(right)), free
