"""``mmm.fit`` and ``mmm.allocate_budget``: the mix model as capabilities."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from pydantic import Field

from agent_kit import Agent, CapabilityError, StepContext
from engine.domain.base import Frozen
from sample_agents.dataset import Dataset, Datasets, MediaWeek, SalesWeek, require_consecutive
from sample_agents.mix_allocation import Response, allocate
from sample_agents.mix_model.curves import Curve
from sample_agents.mix_report import FitWindow, report

_MAX_CHANNELS = 12
"""Memory of the search grows with the square of the channels, and no few years of weeks can tell more of them apart."""


class MediaRow(Frozen):
    """A row as ``marketing.query_performance`` gives it."""

    period: date
    channel: str
    spend: float
    impressions: int = 0
    clicks: int = 0
    cost_per_click: float | None = None
    attributed_sales: float = 0.0


class SalesRow(Frozen):
    """A row of sales as ``marketing.query_performance`` gives it."""

    period: date
    sales: float
    promotion_weeks: int = 0


class FitInputs(Frozen):
    """See the manifest."""

    start: date | None = Field(default=None, alias="from")
    end: date | None = Field(default=None, alias="to")
    compare_from: date | None = None
    compare_to: date | None = None
    rows: tuple[MediaRow, ...] | None = None
    sales: tuple[SalesRow, ...] | None = None
    currency: str | None = None


class CurveInputs(Frozen):
    """The three parameters of a channel's curve."""

    decay: float
    half_saturation: float
    ceiling: float

    def curve(self) -> Curve:
        """As the model's own type."""
        return Curve(self.decay, self.half_saturation, self.ceiling)


class ChannelModel(CurveInputs):
    """One channel of a fitted model."""

    channel: str
    weekly_spend: float
    draws: tuple[CurveInputs, ...]


class Model(Frozen):
    """What ``mmm.fit`` hands on."""

    currency: str
    channels: tuple[ChannelModel, ...]


class AllocateInputs(Frozen):
    """See the manifest."""

    model: Model
    total_budget: float | None = None
    weeks: int = 13
    max_shift: float = 0.3


def register(agent: Agent, datasets: Datasets) -> None:
    """Add the two capabilities to an agent."""

    @agent.capability("mmm.fit", streams=True)
    async def fit(inputs: FitInputs, context: StepContext) -> dict[str, Any]:
        data = own_rows(inputs) if inputs.rows is not None else datasets.of(context.tenant_id)
        return await context.compute(report, data, _window(inputs, data), context.progress)

    @agent.capability("mmm.allocate_budget")
    async def allocate_budget(inputs: AllocateInputs, context: StepContext) -> dict[str, Any]:
        return await context.compute(allocate, responses(inputs.model), inputs.model.currency, _terms(inputs))


def _terms(inputs: AllocateInputs) -> tuple[float | None, int, float]:
    return inputs.total_budget, inputs.weeks, inputs.max_shift


def responses(model: Model) -> list[Response]:
    """The model as the allocation needs it. ``CapabilityError`` for a channel named twice or draws of unequal number."""
    names = [one.channel for one in model.channels]
    if len(set(names)) != len(names) or len({len(one.draws) for one in model.channels}) != 1:
        raise CapabilityError("mmm.model_invalid", "Each channel must stand once, with as many draws as the others.")
    return [
        Response(one.channel, one.weekly_spend, one.curve(), tuple(draw.curve() for draw in one.draws))
        for one in model.channels
    ]


def own_rows(inputs: FitInputs) -> Dataset:
    """A data set made of the rows in the inputs. ``CapabilityError("mmm.rows_invalid")`` when they are not weekly."""
    assert inputs.rows is not None
    media = tuple(
        MediaWeek(r.period, r.channel, r.spend, r.impressions, r.clicks, r.attributed_sales) for r in inputs.rows
    )
    ordered = sorted(inputs.sales or (), key=lambda row: row.period)
    sales = tuple(SalesWeek(row.period, row.sales, row.promotion_weeks > 0) for row in ordered)
    try:
        require_consecutive([row.week for row in sales])
    except ValueError as error:
        raise CapabilityError("mmm.rows_invalid", f"Own rows: {error}.") from None
    if not {row.week for row in media} <= {row.week for row in sales}:
        raise CapabilityError("mmm.rows_invalid", "Own rows: every week with spend needs its sales.")
    if len({row.channel for row in media}) > _MAX_CHANNELS:
        raise CapabilityError("mmm.rows_invalid", f"Own rows: at most {_MAX_CHANNELS} channels.")
    if len({(row.week, row.channel) for row in media}) != len(media):
        raise CapabilityError("mmm.rows_invalid", "Own rows: a channel stands twice in one week.")
    return Dataset(inputs.currency or "XXX", media, sales)


def _window(inputs: FitInputs, data: Dataset) -> FitWindow:
    start, end = inputs.start, inputs.end
    if start is None or end is None:
        start, end = data.last_complete_quarter()
    if inputs.compare_to is not None and inputs.compare_to > data.last + timedelta(days=6):
        raise CapabilityError("data.period_empty", "The period to compare with lies after the data.")
    return FitWindow(start, end, inputs.compare_from, inputs.compare_to)
