"""Fit the model: choose each channel's carry-over and saturation, then say how sure the result is.

Several searches from different starts give finalists that explain the seen weeks almost equally well; time-series
cross-validation chooses among them. Intervals come from a moving-block bootstrap of the residuals in which every draw searches
its own shapes: holding the shapes fixed would claim far more certainty than the data give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from sample_agents.mix_model.curves import Curve
from sample_agents.mix_model.regression import (
    controls,
    explained,
    media_coefficients,
    percentage_error,
    predict,
    validate,
)
from sample_agents.mix_model.shapes import Found, ShapeGrid

if TYPE_CHECKING:
    from sample_agents.mix_model.curves import Series

MIN_WEEKS = 78
"""A year and a half: less cannot tell a season from a channel, and leaves nothing to validate on."""
DRAWS = 60
_STARTS = 4
_FINALISTS = 12
_NEAR = 1.005
"""Finalists leave at most half a per cent more squared error than the best. A wider choice would let the noise of a few dozen
unseen weeks overrule what all weeks say: measured against known truth, returns got worse."""
_DRAW_PASSES = 3
_BLOCK_WEEKS = 4
_SEED = 7
_CHOSEN = 0.4
"""How much of the work the choice of shapes is; the rest is the bootstrap."""
_DRAWS_TOLD = 5

Tell = Callable[[float, str], None]
"""Hears how far the fit is, from 0 to 1, and what it is at."""


def nobody(fraction: float, words: str) -> None:
    """Hears nothing."""


@dataclass(frozen=True, slots=True)
class WeeklyData:
    """Consecutive weeks: their Mondays, spend per channel, total sales, and 1 in weeks with a promotion."""

    weeks: tuple[date, ...]
    spend: Mapping[str, Series]
    sales: Series
    promotion: Series


@dataclass(frozen=True, slots=True)
class MixFit:
    """The fitted model.

    ``draws`` holds, per channel, as many curves as the bootstrap drew; curves with the same index belong together. ``r2`` and
    ``mape`` are over the weeks the model saw, ``validation_mape`` over weeks it had not seen; the latter two are fractions.
    """

    channels: tuple[str, ...]
    curves: Mapping[str, Curve]
    draws: Mapping[str, tuple[Curve, ...]]
    r2: float
    mape: float
    validation_mape: float


def fit_mix(data: WeeklyData, tell: Tell = nobody) -> MixFit:
    """Fit ``data``. Deterministic, whoever hears.

    ``ValueError`` with fewer than ``MIN_WEEKS`` weeks or without a channel that ever spends."""
    import numpy as np

    if len(data.weeks) < MIN_WEEKS:
        raise ValueError(f"a fit needs at least {MIN_WEEKS} weeks")
    spending = {name: series for name, series in data.spend.items() if float(series.sum()) > 0.0}
    if not spending:
        raise ValueError("no channel spends anything")
    source = np.random.default_rng(_SEED)
    base = controls(data.weeks[0].toordinal() // 7, data.promotion)
    grid = ShapeGrid(spending, base)
    choice, validation_mape = _choose(grid, data.sales, base, source, tell)
    columns = grid.columns[:, choice]
    fitted = predict(columns, data.sales, base, len(data.weeks))
    ceilings = tuple(float(value) for value in media_coefficients(columns, data.sales, base))
    # Each channel costs three degrees of freedom: its ceiling and its two shape parameters.
    freedom = max(1, len(data.weeks) - base.shape[1] - 3 * len(spending))
    residuals = (data.sales - fitted) * (len(data.weeks) / freedom) ** 0.5
    names = tuple(spending)
    return MixFit(
        channels=names,
        curves=dict(zip(names, _curves(grid, choice, ceilings), strict=True)),
        draws=dict(zip(names, _draws(grid, choice, fitted, residuals, source, tell), strict=True)),
        r2=explained(data.sales, fitted),
        mape=percentage_error(data.sales, fitted),
        validation_mape=validation_mape,
    )


def _choose(grid: ShapeGrid, sales: Series, base: Any, source: Any, tell: Tell) -> tuple[tuple[int, ...], float]:
    """The finalist with the least error on unseen weeks, and that error as a percentage error."""
    starts = [grid.middle(), *(grid.random(source) for _ in range(_STARTS - 1))]
    found: dict[tuple[int, ...], Found] = {}
    for number, start in enumerate(starts):
        tell(_CHOSEN * number / (len(starts) + 1), f"search {number + 1} of {len(starts)}")
        found |= {one.choice: one for one in grid.search(sales, start)}
    tell(_CHOSEN * len(starts) / (len(starts) + 1), "validating on weeks that were left out")
    ranked = sorted(found.values(), key=lambda one: one.error)
    finalists = [one for one in ranked if one.error <= ranked[0].error * _NEAR][:_FINALISTS]
    scored = [(*validate(grid.columns[:, one.choice], sales, base), one.choice) for one in finalists]
    _, mape, choice = min(scored)
    return choice, mape


def _draws(
    grid: ShapeGrid, choice: tuple[int, ...], fitted: Any, residuals: Any, source: Any, tell: Tell
) -> list[tuple[Curve, ...]]:
    import numpy as np

    count = len(fitted)
    blocks = -(-count // _BLOCK_WEEKS)
    drawn: list[tuple[Curve, ...]] = []
    for number in range(DRAWS):
        if number % _DRAWS_TOLD == 0:
            tell(_CHOSEN + (1 - _CHOSEN) * number / DRAWS, f"draw {number + 1} of {DRAWS}")
        starts = source.integers(0, count - _BLOCK_WEEKS + 1, size=blocks)
        picks = (starts[:, None] + np.arange(_BLOCK_WEEKS)).ravel()[:count]
        best = grid.search(fitted + residuals[picks], choice, _DRAW_PASSES)[0]
        drawn.append(_curves(grid, best.choice, best.coefficients))
    return list(zip(*drawn, strict=True))


def _curves(grid: ShapeGrid, choice: tuple[int, ...], ceilings: tuple[float, ...]) -> tuple[Curve, ...]:
    shapes = [grid.shapes[index] for index in choice]
    return tuple(
        Curve(shape.decay, shape.half_saturation, ceiling) for shape, ceiling in zip(shapes, ceilings, strict=True)
    )
