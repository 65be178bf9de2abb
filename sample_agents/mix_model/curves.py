"""What a channel's spend does: geometric carry-over, then saturation, then a ceiling.

``carried[t] = spend[t] + decay * carried[t-1]``; the effect is ``ceiling * carried / (carried + half_saturation)``. Money in the
data's currency per week throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Series = NDArray[float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """The two parameters that bend a channel's curve. ``half_saturation`` is carried spend at half of the ceiling."""

    decay: float
    half_saturation: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A channel's whole response. ``ceiling`` is the most it could add to the sales of a week."""

    decay: float
    half_saturation: float
    ceiling: float

    def weekly(self, spend: float) -> float:
        """Sales a week caused by spending ``spend`` every week."""
        carried = spend / (1.0 - self.decay)
        return self.ceiling * carried / (carried + self.half_saturation)

    def marginal(self, spend: float) -> float:
        """What the next unit of weekly spend brings when ``spend`` is spent every week: the derivative of ``weekly``."""
        keep = 1.0 - self.decay
        carried = spend / keep
        return self.ceiling * self.half_saturation / (keep * (carried + self.half_saturation) ** 2)

    def spend_at(self, marginal: float) -> float:
        """The weekly spend whose marginal return is ``marginal``; 0 when even the first unit brings less."""
        keep = 1.0 - self.decay
        if marginal <= 0.0:
            return float("inf")
        carried = math.sqrt(self.ceiling * self.half_saturation / (keep * marginal)) - self.half_saturation
        return max(0.0, carried * keep)

    def saturation(self, spend: float) -> float:
        """How much of the ceiling is reached at steady weekly spend, 0 to 1."""
        return self.weekly(spend) / self.ceiling if self.ceiling > 0.0 else 0.0


def carry_over(spend: Series, decay: float) -> Series:
    """Spend with what is left of earlier weeks' spend."""
    carried = spend.copy()
    for week in range(1, len(carried)):
        carried[week] += decay * carried[week - 1]
    return carried


def saturated(spend: Series, shape: Shape) -> Series:
    """The channel's effect as a share of its ceiling, week by week."""
    carried = carry_over(spend, shape.decay)
    return carried / (carried + shape.half_saturation)
