"""``mmm.allocate_budget``: move money to where the next unit brings most, within limits.

Every curve is concave, so the optimum equalises marginal returns: one number (the marginal return at which money stops moving)
decides all channels and is found by bisection. Steady weekly spend is assumed; the order of weeks does not matter then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_kit import CapabilityError
from sample_agents.figures import Column, headline, insight, kpi, money, percent, rose_or_fell, table
from sample_agents.mix_model.curves import Curve

_BISECTIONS = 100
_LOW, _HIGH = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Response:
    """One channel: what it spends a week today, its curve, and the curves of the bootstrap."""

    channel: str
    weekly_spend: float
    curve: Curve
    draws: tuple[Curve, ...] = ()


def best_spend(responses: Sequence[Response], weekly_budget: float, max_shift: float) -> list[float]:
    """Weekly spend per channel that causes the most sales.

    Each channel stays within ``max_shift`` of its share of today's mix scaled to the budget; the sum is ``weekly_budget``.
    """
    today = sum(one.weekly_spend for one in responses)
    scaled = [one.weekly_spend * weekly_budget / today for one in responses]
    bounds = [(spend * (1.0 - max_shift), spend * (1.0 + max_shift)) for spend in scaled]

    def at(marginal: float) -> list[float]:
        wanted = (one.curve.spend_at(marginal) for one in responses)
        return [min(high, max(low, spend)) for spend, (low, high) in zip(wanted, bounds, strict=True)]

    cheap, dear = 0.0, 1.0 + max(one.curve.marginal(0.0) for one in responses)
    for _ in range(_BISECTIONS):
        middle = (cheap + dear) / 2
        if sum(at(middle)) > weekly_budget:
            cheap = middle
        else:
            dear = middle
    # The two ends bracket the optimum; mixing them spends exactly the budget even where a curve is flat.
    more, less = at(cheap), at(dear)
    gap = sum(more) - sum(less)
    share = (weekly_budget - sum(less)) / gap if gap > 0 else 0.0
    return [low + share * (high - low) for low, high in zip(less, more, strict=True)]


def allocate(responses: Sequence[Response], currency: str, terms: tuple[float | None, int, float]) -> dict[str, Any]:
    """The output of ``mmm.allocate_budget``. ``terms``: total budget (None: as much as today), weeks, largest shift."""
    total, weeks, max_shift = terms
    today = sum(one.weekly_spend for one in responses) * weeks
    if today <= 0:
        raise CapabilityError("mmm.nothing_spent", "No channel spends anything, so there is nothing to move.")
    total = today if total is None else total
    proposed = best_spend(responses, total / weeks, max_shift)
    rows = [_row(one, spend, total / today, weeks) for one, spend in zip(responses, proposed, strict=True)]
    uplift = sum(row["expected_contribution"] - row["current_contribution"] for row in rows)
    low, high = _uplift_interval(responses, proposed, total / today, weeks, uplift)
    return {
        "currency": currency,
        "weeks": weeks,
        "total_budget": round(total, 2),
        "allocation": rows,
        "expected_uplift": round(uplift, 2),
        "expected_uplift_low": round(low, 2),
        "expected_uplift_high": round(high, 2),
        "kpis": [
            kpi("Budget to allocate", round(total), currency),
            kpi("Expected uplift of sales", round(uplift), currency, low=round(low), high=round(high)),
        ],
        "tables": [_table(rows, currency)],
        "insights": _insights(rows, currency, (low, uplift, high)),
        "warnings": _warnings(total / today, low, max_shift),
    }


def _row(one: Response, proposed: float, scale: float, weeks: int) -> dict[str, Any]:
    """``current`` figures are today's mix scaled to the budget, so the uplift is that of moving, not of spending more."""
    current = one.weekly_spend * scale
    return {
        "channel": one.channel,
        "current_spend": round(current * weeks, 2),
        "proposed_spend": round(proposed * weeks, 2),
        "shift": round(proposed / current - 1.0, 4) if current > 0 else 0.0,
        "current_contribution": round(one.curve.weekly(current) * weeks, 2),
        "expected_contribution": round(one.curve.weekly(proposed) * weeks, 2),
        "marginal_roi": round(one.curve.marginal(proposed), 4),
    }


def _uplift_interval(
    responses: Sequence[Response], proposed: list[float], scale: float, weeks: int, uplift: float
) -> tuple[float, float]:
    """What the same move would bring under each draw: the 5th and the 95th percentile."""
    draws = len(responses[0].draws)
    gains = sorted(
        weeks
        * sum(
            one.draws[number].weekly(spend) - one.draws[number].weekly(one.weekly_spend * scale)
            for one, spend in zip(responses, proposed, strict=True)
        )
        for number in range(draws)
    )
    if not gains:
        return uplift, uplift
    low, high = gains[int(_LOW * (draws - 1))], gains[round(_HIGH * (draws - 1))]
    return min(low, uplift), max(high, uplift)


def _table(rows: list[dict[str, Any]], currency: str) -> dict[str, Any]:
    columns: tuple[Column, ...] = (
        "Channel",
        f"Today's mix ({currency})",
        f"Proposed ({currency})",
        ("Shift", "change"),
        "Marginal ROI",
    )
    return table(
        "Proposed budget",
        columns,
        (
            (
                headline(row["channel"]),
                round(row["current_spend"]),
                round(row["proposed_spend"]),
                row["shift"],
                round(row["marginal_roi"], 2),
            )
            for row in rows
        ),
    )


def _insights(rows: list[dict[str, Any]], currency: str, uplift: tuple[float, float, float]) -> list[dict[str, Any]]:
    moves = sorted(rows, key=lambda row: row["proposed_spend"] - row["current_spend"])
    found = []
    for row in (moves[0], moves[-1]):
        moved = row["proposed_spend"] - row["current_spend"]
        if abs(moved) < 0.01 * row["current_spend"]:
            continue
        verb = "Take" if moved < 0 else "Put"
        way = "from" if moved < 0 else "into"
        text = (
            f"{verb} {money(abs(moved), currency)} ({percent(row['shift'])}) {way} {headline(row['channel'])}, "
            f"to {money(row['proposed_spend'], currency)}."
        )
        found.append(insight("recommendation", text, row["channel"]))
    low, middle, high = uplift
    before = sum(row["current_contribution"] for row in rows)
    if found and before > 0:
        text = (
            f"Sales caused by marketing {rose_or_fell(middle / before)} with this split: {money(middle, currency)} "
            f"({money(low, currency)} to {money(high, currency)})."
        )
        found.append(insight("finding", text.replace(" rose ", " would rise ").replace(" fell ", " would fall ")))
    return found


def _warnings(scale: float, low: float, max_shift: float) -> list[str]:
    found = []
    if low <= 0:
        found.append("The uplift cannot be told from zero with these data.")
    if not 0.7 <= scale <= 1.3:
        found.append("The budget is far from today's spend: the curves are less certain there.")
    if max_shift > 0.5:
        found.append("Moves of more than half leave the range in which the channels have been observed.")
    found.append("Steady weekly spend is assumed; season, promotions and bookings are not.")
    return found
