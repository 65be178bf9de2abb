"""Search the shapes of all channels at once: coordinate descent over a grid of carry-over and saturation.

Every candidate column is prepared once; from then on a trial needs only the columns' inner products, and all shapes of one
channel are tried in one batched solve. That is fast enough to repeat the whole search for every draw of a bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sample_agents.mix_model.curves import Shape, carry_over, saturated
from sample_agents.mix_model.nonnegative import nonnegative
from sample_agents.mix_model.regression import RIDGE, unexplained

if TYPE_CHECKING:
    from sample_agents.mix_model.curves import Series

DECAYS = tuple(step / 20 for step in range(18))
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5)
"""Half saturation as a multiple of mean carried spend. Beyond the ends the curve is flat or straight in the data's range."""
_MAX_PASSES = 6
_SWEEPS = 20
"""Enough to rank rows; the winner is solved exactly."""
_FLAT = 1e-9


@dataclass(frozen=True)
class Found:
    """A choice of one column per channel, its coefficients, and the penalised squared error it leaves."""

    choice: tuple[int, ...]
    coefficients: tuple[float, ...]
    error: float


class ShapeGrid:
    """All candidate columns of one data set. ``choice`` holds one column index per channel, in the order of the channels."""

    def __init__(self, spend: Mapping[str, Series], control_columns: Any) -> None:
        import numpy as np

        self.shapes: list[Shape] = []
        columns: list[Series] = []
        for series in spend.values():
            for decay in DECAYS:
                mean = float(carry_over(series, decay).mean())
                self.shapes.extend(Shape(decay, mean * multiple) for multiple in MULTIPLES)
            columns.extend(saturated(series, shape) for shape in self.shapes[len(columns) :])
        self.columns = np.column_stack(columns)
        self._controls = control_columns
        residuals = unexplained(self.columns, control_columns)
        norms = np.sqrt((residuals**2).sum(axis=0))
        self._norms = np.where(norms < _FLAT, np.inf, norms)
        self._residuals = residuals / self._norms
        self._products = self._residuals.T @ self._residuals
        self._per_channel = len(DECAYS) * len(MULTIPLES)
        self._channels = len(spend)

    def middle(self) -> tuple[int, ...]:
        """A start: medium carry-over and saturation for every channel."""
        return self.at([self._per_channel // 2] * self._channels)

    def at(self, offsets: Sequence[int]) -> tuple[int, ...]:
        """The choice made of one offset into each channel's own shapes."""
        return tuple(channel * self._per_channel + int(offset) for channel, offset in enumerate(offsets))

    def random(self, source: Any) -> tuple[int, ...]:
        """A random start."""
        return self.at(source.integers(self._per_channel, size=self._channels))

    def search(self, sales: Series, start: tuple[int, ...], passes: int = _MAX_PASSES) -> list[Found]:
        """Improve one channel after another until nothing improves. Every improvement found, best first."""
        target = unexplained(sales, self._controls)
        fit = _Target(self._products, self._residuals.T @ target, float(target @ target))
        found: list[Found] = []
        choice = start
        for _ in range(passes):
            before = choice
            for channel in range(self._channels):
                best = fit.best_of(self._candidates(choice, channel))
                choice = best.choice
                found.append(best)
            if choice == before:
                break
        distinct = {one.choice: one for one in found}
        return [self._in_units(one) for one in sorted(distinct.values(), key=lambda one: one.error)]

    def _candidates(self, choice: tuple[int, ...], channel: int) -> Any:
        import numpy as np

        rows = np.tile(np.array(choice), (self._per_channel, 1))
        rows[:, channel] = np.arange(channel * self._per_channel, (channel + 1) * self._per_channel)
        return rows

    def _in_units(self, one: Found) -> Found:
        scaled = (value / self._norms[index] for value, index in zip(one.coefficients, one.choice, strict=True))
        return Found(one.choice, tuple(float(value) for value in scaled), one.error)


@dataclass(frozen=True)
class _Target:
    """Inner products of the columns with each other, with the target, and of the target with itself."""

    products: Any
    with_target: Any
    square: float

    def best_of(self, rows: Any) -> Found:
        """The row whose non-negative fit leaves the least error.

        Where the unconstrained fit is non-negative it is the answer. It bounds the error of the other rows from below; those
        that could still win are compared by a batched descent, and the winner is then solved exactly.
        """
        import numpy as np

        right = self.with_target[rows]
        left = self.products[rows[:, :, None], rows[:, None, :]] + RIDGE * np.eye(rows.shape[1])
        free = np.linalg.solve(left, right[:, :, None])[:, :, 0]
        errors = self.square - (free * right).sum(axis=1)
        feasible: Any = (free >= 0.0).all(axis=1)
        best = float(errors[feasible].min()) if feasible.any() else float("inf")
        open_rows = np.flatnonzero(~feasible & (errors < best))
        errors[~feasible] = np.inf
        if len(open_rows):
            held = _descend(left[open_rows], right[open_rows])
            errors[open_rows] = self._penalised(left[open_rows], right[open_rows], held)
        winner = int(errors.argmin())
        choice = tuple(int(index) for index in rows[winner])
        if feasible[winner]:
            return Found(choice, tuple(free[winner]), float(errors[winner]))
        return self._exact(choice, left[winner], right[winner])

    def _penalised(self, left: Any, right: Any, coefficients: Any) -> Any:
        import numpy as np

        quadratic = np.einsum("ri,rij,rj->r", coefficients, left, coefficients)
        return self.square - 2.0 * (coefficients * right).sum(axis=1) + quadratic

    def _exact(self, choice: tuple[int, ...], left: Any, right: Any) -> Found:
        held = nonnegative(left, right)
        return Found(choice, tuple(held), self.square - float(held @ right))


def _descend(left: Any, right: Any) -> Any:
    """Non-negative coefficients of many small systems at once, by coordinate descent."""
    import numpy as np

    held = np.zeros_like(right)
    for _ in range(_SWEEPS):
        for column in range(right.shape[1]):
            others = (left[:, column, :] * held).sum(axis=1) - left[:, column, column] * held[:, column]
            held[:, column] = np.maximum(0.0, (right[:, column] - others) / left[:, column, column])
    return held
