"""``marketing.query_performance`` and ``marketing.compare_periods``: what was spent, what came of it, what changed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from pydantic import Field

from agent_kit import Agent, CapabilityError, StepContext
from engine.domain.base import Frozen
from sample_agents.dataset import Dataset, Datasets, Grain, MediaWeek, Span, period_start, span
from sample_agents.figures import (
    Column,
    between,
    change,
    headline,
    insight,
    kpi,
    money,
    rose_or_fell,
    sales_told,
    table,
    without_none,
)
from sample_agents.performance_words import Sums, Told, channel_sums, query_insights, query_kpis

_MAX_ROWS = 2_000
_MAX_PERIODS = 600


class QueryInputs(Frozen):
    """See the manifest."""

    start: date = Field(alias="from")
    end: date = Field(alias="to")
    channels: tuple[str, ...] | None = None
    grain: Grain = "week"


class CompareInputs(Frozen):
    """See the manifest."""

    start: date = Field(alias="from")
    end: date = Field(alias="to")
    previous_from: date | None = None
    previous_to: date | None = None
    channels: tuple[str, ...] | None = None


def register(agent: Agent, datasets: Datasets) -> None:
    """Add the two capabilities to an agent."""

    @agent.capability("marketing.query_performance")
    async def query_performance(inputs: QueryInputs, context: StepContext) -> dict[str, Any]:
        data = datasets.of(context.tenant_id)
        return query(data, inputs)

    @agent.capability("marketing.compare_periods")
    async def compare_periods(inputs: CompareInputs, context: StepContext) -> dict[str, Any]:
        data = datasets.of(context.tenant_id)
        return compare(data, inputs)


def query(data: Dataset, inputs: QueryInputs) -> dict[str, Any]:
    """The output of ``marketing.query_performance``."""
    part = span(data, inputs.start, inputs.end, inputs.channels)
    rows, sales = _media_rows(part, inputs.grain), _sales_rows(part, inputs.grain)
    if len(rows) > _MAX_ROWS or len(sales) > _MAX_PERIODS:
        raise CapabilityError("data.too_many_rows", "Ask for a shorter period or a coarser grain.")
    sums = channel_sums(part)
    total = Sums.of(part.media)
    sold = sum(row.sales for row in part.sales)
    start, end = _days(part)
    # Sales of the whole company say nothing about the spend of a part of its channels.
    whole = inputs.channels is None or set(inputs.channels) == set(data.channels)
    told = Told(data.currency, start, end, sums, sold, whole)
    return {
        "currency": data.currency,
        "from": start,
        "to": end,
        "grain": inputs.grain,
        "weeks": part.weeks,
        "rows": rows,
        "sales": sales,
        "totals": without_none(
            {
                "spend": total.spend,
                "sales": sold,
                "impressions": total.impressions,
                "clicks": total.clicks,
                "attributed_sales": total.attributed_sales,
                "attributed_roi": told.tracked_total.attributed_roi,
                "sales_per_spend": round(sold / total.spend, 4) if whole and total.spend else None,
            }
        ),
        "channels": [_channel(name, one, total) for name, one in sums.items()],
        "kpis": query_kpis(told),
        "tables": [_channel_table(data.currency, sums, total)],
        "insights": query_insights(told),
    }


def _days(part: Span) -> tuple[str, str]:
    """First and last day of its weeks."""
    return part.sales[0].week.isoformat(), (part.sales[-1].week + timedelta(days=6)).isoformat()


def _figures(one: Sums) -> dict[str, Any]:
    return {
        "spend": one.spend,
        "impressions": one.impressions,
        "clicks": one.clicks,
        "cost_per_click": one.cost_per_click,
        "attributed_sales": one.attributed_sales,
    }


def _channel(name: str, one: Sums, total: Sums) -> dict[str, Any]:
    share = round(one.spend / total.spend, 4) if total.spend else 0.0
    return without_none({"channel": name, **_figures(one), "spend_share": share, "attributed_roi": one.attributed_roi})


def _channel_table(currency: str, sums: dict[str, Sums], total: Sums) -> dict[str, Any]:
    columns: tuple[Column, ...] = (
        "Channel",
        f"Spend ({currency})",
        ("Share", "fraction"),
        "Clicks",
        "Cost per click",
        f"Tracked sales ({currency})",
        "Tracked sales per unit",
    )
    return table(
        "Spend by channel",
        columns,
        (
            (
                headline(name),
                one.spend,
                round(one.spend / total.spend, 3) if total.spend else None,
                one.clicks,
                one.cost_per_click,
                one.attributed_sales or None,
                one.attributed_roi,
            )
            for name, one in sums.items()
        ),
    )


def _media_rows(part: Span, grain: Grain) -> list[dict[str, Any]]:
    groups: dict[tuple[date, str], list[MediaWeek]] = {}
    for row in part.media:
        groups.setdefault((period_start(row.week, grain), row.channel), []).append(row)
    return [
        without_none({"period": start.isoformat(), "channel": channel, **_figures(Sums.of(rows))})
        for (start, channel), rows in groups.items()
    ]


def _sales_rows(part: Span, grain: Grain) -> list[dict[str, Any]]:
    sold: dict[date, list[tuple[float, bool]]] = {}
    for row in part.sales:
        sold.setdefault(period_start(row.week, grain), []).append((row.sales, row.promotion))
    return [
        {
            "period": start.isoformat(),
            "sales": sum(sales for sales, _ in weeks),
            "promotion_weeks": sum(promotion for _, promotion in weeks),
        }
        for start, weeks in sold.items()
    ]


def compare(data: Dataset, inputs: CompareInputs) -> dict[str, Any]:
    """The output of ``marketing.compare_periods``."""
    current = span(data, inputs.start, inputs.end, inputs.channels)
    previous_to = inputs.previous_to or inputs.start - timedelta(days=1)
    previous_from = inputs.previous_from or inputs.start - timedelta(weeks=current.weeks)
    previous = span(data, previous_from, previous_to, inputs.channels)
    # Weekly averages where the lengths differ, so that a longer period does not look like growth.
    scale = current.weeks / previous.weeks
    now, before = channel_sums(current), channel_sums(previous)
    changes = [_change(name, now[name], before[name], scale) for name in now if name in before]
    sold, sold_before = (sum(row.sales for row in part.sales) for part in (current, previous))
    spent, spent_before = (Sums.of(part.media).spend for part in (current, previous))
    told = sales_told(sold, sold_before, scale, data.currency)
    spend_change = change(spent, spent_before * scale)
    what = _spend_of(inputs.channels)
    moved = "" if spend_change is None else f"; {what[0].lower()}{what[1:]} {rose_or_fell(spend_change)}"
    facts = [_period(current, sold, spent), _period(previous, sold_before, spent_before)]
    return {
        "currency": data.currency,
        "current": facts[0],
        "previous": facts[1],
        "changes": changes,
        "kpis": [
            kpi(what, spent, data.currency, change=spend_change),
            kpi("Total sales of the company", sold, data.currency, change=change(sold, sold_before * scale)),
        ],
        "tables": [_change_table(data.currency, changes)],
        "insights": [
            insight("finding", f"{between(*_days(current), _days(previous))}: {told}{moved}."),
            *_change_insights(data.currency, changes),
        ],
    }


def _spend_of(channels: tuple[str, ...] | None) -> str:
    return f"Marketing spend ({', '.join(headline(name) for name in channels)})" if channels else "Marketing spend"


def _period(part: Span, sold: float, spent: float) -> dict[str, Any]:
    start, end = _days(part)
    return {
        "from": start,
        "to": end,
        "weeks": part.weeks,
        "spend": spent,
        "sales": sold,
    }


def _change(name: str, now: Sums, before: Sums, scale: float) -> dict[str, Any]:
    price, price_before = now.cost_per_click, before.cost_per_click
    roi, roi_before = now.attributed_roi, before.attributed_roi
    return without_none(
        {
            "channel": name,
            "spend": now.spend,
            "previous_spend": before.spend,
            "spend_change": change(now.spend, before.spend * scale),
            "clicks": now.clicks,
            "previous_clicks": before.clicks,
            "clicks_change": change(now.clicks, before.clicks * scale),
            "cost_per_click": price,
            "previous_cost_per_click": price_before,
            "cost_per_click_change": change(price, price_before) if price and price_before else None,
            "attributed_roi": roi,
            "previous_attributed_roi": roi_before,
            "attributed_roi_change": change(roi, roi_before) if roi and roi_before else None,
        }
    )


def _change_table(currency: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
    columns: tuple[Column, ...] = (
        "Channel",
        f"Spend ({currency})",
        ("Change", "change"),
        "Cost per click",
        ("Change of cost per click", "change"),
        "Tracked sales per unit",
        ("Change of tracked sales per unit", "change"),
    )
    names = (
        "spend",
        "spend_change",
        "cost_per_click",
        "cost_per_click_change",
        "attributed_roi",
        "attributed_roi_change",
    )
    rows = ([headline(one["channel"]), *(one.get(name) for name in names)] for one in changes)
    return table("Change by channel", columns, rows)


def _change_insights(currency: str, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    moved = [one for one in changes if abs(one.get("spend_change", 0.0)) >= 0.1]
    for one in sorted(moved, key=lambda one: abs(one["spend"] - one["previous_spend"]), reverse=True)[:3]:
        name = one["channel"]
        text = f"Spend on {headline(name)} {rose_or_fell(one['spend_change'])} to {money(one['spend'], currency)}"
        if "cost_per_click_change" in one:
            price = money(one["cost_per_click"], currency)
            text += f"; its price per click {rose_or_fell(one['cost_per_click_change'])} to {price}"
        if "attributed_roi_change" in one:
            text += f"; tracked sales per unit of spend {rose_or_fell(one['attributed_roi_change'])}"
        found.append(insight("finding", text + ".", name))
    return found
