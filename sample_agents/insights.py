"""``insights.summarise``: findings and recommendations in words, computed from the figures of other steps.

Rules over figures, no text that stands by itself: each sentence names the figures it follows from, and a rule whose figures are
missing says nothing. What briefs say is cited by title, never repeated: a passage is somebody's text.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from pydantic import Field

from agent_kit import Agent, StepContext
from engine.domain.base import Frozen
from sample_agents.figures import between, headline, insight, kpi, money, percent, rose_or_fell, sales_told

_NOTABLE = 0.1
_MAX_INSIGHTS = 12


class ChannelChange(Frozen):
    """One of the changes of ``marketing.compare_periods``."""

    channel: str
    spend: float
    previous_spend: float
    spend_change: float | None = None
    clicks: int | None = None
    previous_clicks: int | None = None
    clicks_change: float | None = None
    cost_per_click: float | None = None
    previous_cost_per_click: float | None = None
    cost_per_click_change: float | None = None
    attributed_roi: float | None = None
    previous_attributed_roi: float | None = None
    attributed_roi_change: float | None = None


class ChannelReturn(Frozen):
    """One of the channels of ``mmm.fit``."""

    channel: str
    spend: float
    contribution: float
    contribution_share: float
    roi: float
    roi_low: float
    roi_high: float
    marginal_roi: float
    marginal_roi_low: float | None = None
    marginal_roi_high: float | None = None
    saturation: float
    previous_roi: float | None = None
    roi_change: float | None = None


class Move(Frozen):
    """One row of the allocation of ``mmm.allocate_budget``."""

    channel: str
    current_spend: float
    proposed_spend: float
    shift: float
    current_contribution: float
    expected_contribution: float
    marginal_roi: float


class Source(Frozen):
    """One passage of ``rag.search``."""

    document: str
    title: str
    section: str
    date: str
    text: str
    score: float
    citation: str


class SummariseInputs(Frozen):
    """See the manifest."""

    currency: str = ""
    start: date | None = Field(default=None, alias="from")
    end: date | None = Field(default=None, alias="to")
    previous_from: date | None = None
    previous_to: date | None = None
    sales: float | None = None
    previous_sales: float | None = None
    focus_channel: str | None = None
    changes: tuple[ChannelChange, ...] = ()
    channels: tuple[ChannelReturn, ...] = ()
    allocation: tuple[Move, ...] = ()
    expected_uplift: float | None = None
    expected_uplift_low: float | None = None
    expected_uplift_high: float | None = None
    passages: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()
    margin_threshold: float = 1.0


def register(agent: Agent) -> None:
    """Add the capability to an agent."""

    @agent.capability("insights.summarise")
    async def summarise(inputs: SummariseInputs, context: StepContext) -> dict[str, Any]:
        return summary(inputs)


def summary(inputs: SummariseInputs) -> dict[str, Any]:
    """The output of ``insights.summarise``: what happened, why, what to do, what to be careful about."""
    found = [*_causes(inputs), *_returns(inputs), *_moves(inputs), *_sources(inputs), *_cautions(inputs)]
    if not found:
        found = [insight("caveat", "The figures at hand show no change or imbalance worth a finding.")]
    return {"insights": _in_period(inputs, found)[:_MAX_INSIGHTS], "kpis": _kpis(inputs)}


def _in_period(inputs: SummariseInputs, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings, the first of which names the period. What total sales did comes first: the question may assume otherwise."""
    start, end, earlier = inputs.start, inputs.end, None
    if inputs.previous_from is not None and inputs.previous_to is not None:
        earlier = (inputs.previous_from, inputs.previous_to)
    told = None
    if inputs.sales is not None and inputs.previous_sales is not None:
        scale = _days(start, end) / _days(*earlier) if start and end and earlier else 1.0
        told = sales_told(inputs.sales, inputs.previous_sales, scale, inputs.currency) + "."
    if start is None or end is None:
        return [insight("finding", told[0].upper() + told[1:]), *found] if told else found
    period = between(start.isoformat(), end.isoformat(), (str(earlier[0]), str(earlier[1])) if earlier else None)
    if told:
        return [insight("finding", f"{period}: {told}"), *found]
    first, *others = found
    return [{**first, "text": f"{period}: {first['text']}"}, *others]


def _days(start: date, end: date) -> int:
    """Length of a period in days, at least one."""
    return max((end - start + timedelta(days=1)).days, 1)


def focus_of(inputs: SummariseInputs) -> str | None:
    """The channel to explain: the one asked for, else the one whose return fell most, else the one whose spend moved most."""
    if inputs.focus_channel is not None:
        return inputs.focus_channel
    fallen = [one for one in inputs.channels if (one.roi_change or 0.0) <= -_NOTABLE]
    if fallen:
        return min(fallen, key=lambda one: one.roi_change or 0.0).channel
    if inputs.changes:
        return max(inputs.changes, key=lambda one: abs(one.spend - one.previous_spend)).channel
    return None


def _causes(inputs: SummariseInputs) -> Iterator[dict[str, Any]]:
    """Why the return of the channel in focus moved: price per click, saturation, or neither."""
    name = focus_of(inputs)
    if name is None:
        return
    moved = next((one for one in inputs.changes if one.channel == name), None)
    fitted = next((one for one in inputs.channels if one.channel == name), None)
    if fitted is not None and fitted.previous_roi is not None and fitted.roi_change is not None:
        text = (
            f"The return of {headline(name)} {rose_or_fell(fitted.roi_change)}: {fitted.roi:.2f} of sales for each unit spent "
            f"({fitted.roi_low:.2f} to {fitted.roi_high:.2f}) after {fitted.previous_roi:.2f}."
        )
        yield insight("finding", text, name)
    if moved is not None:
        yield from _price_and_volume(moved, inputs.currency)
    if fitted is not None and fitted.marginal_roi < 0.75 * fitted.roi:
        text = (
            f"{headline(name)} is saturating: it stands at {percent(fitted.saturation)} of its ceiling, and the next unit of "
            f"money brings {fitted.marginal_roi:.2f} against {fitted.roi:.2f} on average."
        )
        yield insight("finding", text, name)


def _price_and_volume(moved: ChannelChange, currency: str) -> Iterator[dict[str, Any]]:
    if moved.spend_change is None:
        return
    text = f"Spend on {headline(moved.channel)} {rose_or_fell(moved.spend_change)} to {money(moved.spend, currency)}"
    if moved.clicks_change is not None and moved.cost_per_click_change is not None and moved.cost_per_click is not None:
        text += (
            f", its clicks {rose_or_fell(moved.clicks_change)}, and the price per click "
            f"{rose_or_fell(moved.cost_per_click_change)} to {money(moved.cost_per_click, currency)}"
        )
    yield insight("finding", text.strip() + ".", moved.channel)


def _returns(inputs: SummariseInputs) -> Iterator[dict[str, Any]]:
    """Which channels deserve more and which less, judged by marginal return against the threshold."""
    threshold = inputs.margin_threshold
    # The rest of a fixed budget has to go somewhere: where the allocation raises a channel, "spend less" would contradict it.
    raised = {move.channel for move in inputs.allocation if move.shift > 0}
    for one in sorted(inputs.channels, key=lambda one: one.marginal_roi):
        high = one.marginal_roi if one.marginal_roi_high is None else one.marginal_roi_high
        if high < threshold and one.channel not in raised:
            text = (
                f"{headline(one.channel)} does not earn its next unit of money: {one.marginal_roi:.2f}, below the threshold "
                f"of {threshold:.2f} even at the upper end ({high:.2f}). Spend less there."
            )
            yield insight("recommendation", text, one.channel)
    best = max(inputs.channels, key=lambda one: one.marginal_roi, default=None)
    if best is not None and len(inputs.channels) > 1 and best.marginal_roi > threshold:
        text = f"The next unit of money is best spent on {headline(best.channel)}, where it brings {best.marginal_roi:.2f}."
        yield insight("recommendation", text, best.channel)


def _moves(inputs: SummariseInputs) -> Iterator[dict[str, Any]]:
    """The proposed allocation in one sentence, and what it should bring."""
    moves = [one for one in inputs.allocation if abs(one.shift) >= 0.01]
    if not moves:
        return
    less = [one for one in moves if one.shift < 0]
    more = [one for one in moves if one.shift > 0]
    parts = [
        f"{word} {', '.join(_move(one, inputs.currency) for one in group)}"
        for word, group in (("less for", less), ("more for", more))
        if group
    ]
    yield insight("recommendation", f"Proposed split: {'; '.join(parts)}.")
    if inputs.expected_uplift is not None:
        text = f"This split should bring {money(inputs.expected_uplift, inputs.currency).strip()} more sales"
        if inputs.expected_uplift_low is not None and inputs.expected_uplift_high is not None:
            low, high = inputs.expected_uplift_low, inputs.expected_uplift_high
            text += f" ({money(low, inputs.currency).strip()} to {money(high, inputs.currency).strip()})"
        yield insight("finding", text + ".")


def _move(one: Move, currency: str) -> str:
    sign = "+" if one.shift > 0 else "-"
    return f"{headline(one.channel)} ({sign}{percent(one.shift)}, to {money(one.proposed_spend, currency).strip()})"


def _sources(inputs: SummariseInputs) -> Iterator[dict[str, Any]]:
    """Where the briefs speak about it, by title."""
    titles = list(dict.fromkeys(f"“{one.title}” ({one.date})" for one in inputs.passages))[:4]
    if titles:
        yield insight("finding", f"Background in the briefs: {', '.join(titles)}.")


def _cautions(inputs: SummariseInputs) -> Iterator[dict[str, Any]]:
    for warning in inputs.warnings[:3]:
        yield insight("caveat", warning)
    if inputs.expected_uplift_low is not None and inputs.expected_uplift_low <= 0 and inputs.allocation:
        yield insight(
            "caveat", "The gain from moving the budget cannot be told from zero; move in small steps and measure."
        )


def _kpis(inputs: SummariseInputs) -> list[dict[str, Any]]:
    found = []
    name = focus_of(inputs)
    for one in inputs.channels:
        if one.channel == name:
            bounds = {"low": round(one.roi_low, 2), "high": round(one.roi_high, 2)}
            found.append(kpi(f"ROI {headline(one.channel)}", round(one.roi, 2), "x", change=one.roi_change, **bounds))
            found.append(kpi(f"Marginal ROI {headline(one.channel)}", round(one.marginal_roi, 2), "x"))
    for moved in inputs.changes:
        if moved.channel == name and moved.cost_per_click is not None:
            unit, change = inputs.currency, moved.cost_per_click_change
            price = round(moved.cost_per_click, 4)
            found.append(kpi(f"Cost per click {headline(moved.channel)}", price, unit, change=change))
    return found
