"""Search the shapes of all channels at once: coordinate descent over a grid of carry-over and saturation.

Every candidate column is prepared once; from then on a trial needs only the columns' inner products, and all shapes of one
channel are tried in one batched solve. That is fast enough to repeat the whole search for every draw of a bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sample_agents.mix_model.curves import Shape, carry_over, saturated
from sample_agents.mix_model.regression import RIDGE, unexplained

if TYPE_CHECKING:
    from sample_agents.mix_model.curves import Series

DECAYS = tuple(step / 20 for step in range(18))
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5)
"""Half saturation as a multiple of mean carried spend. Beyond the ends the curve is flat or straight in the data's range."""
_MAX_PASSES = 6
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

        An unconstrained fit bounds its row's error from below, so the exact non-negative fit is needed for few rows.
        """
        import numpy as np

        penalty = RIDGE * np.eye(rows.shape[1])
        right = self.with_target[rows]
        free = np.linalg.solve(self.products[rows[:, :, None], rows[:, None, :]] + penalty, right[:, :, None])[:, :, 0]
        bounds = self.square - (free * right).sum(axis=1)
        best: Found | None = None
        for number in np.argsort(bounds, kind="stable"):
            if best is not None and bounds[number] >= best.error:
                break
            one = self._exact(rows[number], free[number], float(bounds[number]))
            best = one if best is None or one.error < best.error else best
        if best is None:
            raise ValueError("there is no row to choose from")
        return best

    def _exact(self, row: Any, free: Any, bound: float) -> Found:
        import numpy as np
        from scipy.optimize import nnls

        choice = tuple(int(index) for index in row)
        if (free >= 0.0).all():
            return Found(choice, tuple(free), bound)
        root = np.linalg.cholesky(self.products[np.ix_(row, row)] + RIDGE * np.eye(len(row)))
        held, _ = nnls(root.T, np.linalg.solve(root, self.with_target[row]))
        return Found(choice, tuple(held), self.square - float(held @ self.with_target[row]))
