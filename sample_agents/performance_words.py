"""What ``marketing.query_performance`` says about its figures: sums, KPIs and findings. It reads no data of its own.

Sales are told in two ways that are never mixed: total sales of the company, and the tracked sales that a channel claims. Only the
spend of all channels together may stand beside total sales.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sample_agents.dataset import Span
from sample_agents.figures import between, headline, insight, kpi, money


class _Figures(Protocol):
    """What rows and sums have in common."""

    @property
    def spend(self) -> float: ...
    @property
    def impressions(self) -> int: ...
    @property
    def clicks(self) -> int: ...
    @property
    def attributed_sales(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Sums:
    """Media figures added up. Money in the data set's currency."""

    spend: float
    impressions: int
    clicks: int
    attributed_sales: float

    @classmethod
    def of(cls, rows: Iterable[_Figures]) -> Sums:
        """The sums of some rows, or of some sums."""
        held = list(rows)
        return cls(
            round(sum(row.spend for row in held), 2),
            sum(row.impressions for row in held),
            sum(row.clicks for row in held),
            round(sum(row.attributed_sales for row in held), 2),
        )

    @property
    def cost_per_click(self) -> float | None:
        """None without clicks."""
        return round(self.spend / self.clicks, 4) if self.clicks else None

    @property
    def attributed_roi(self) -> float | None:
        """Tracked sales for each unit spent; None where nothing was spent or nothing is tracked."""
        return round(self.attributed_sales / self.spend, 4) if self.spend and self.attributed_sales else None


def channel_sums(part: Span) -> dict[str, Sums]:
    """Sums per channel, in the order of the data."""
    names = dict.fromkeys(row.channel for row in part.media)
    return {name: Sums.of(row for row in part.media if row.channel == name) for name in names}


@dataclass(frozen=True, slots=True)
class Told:
    """The figures of one period that are put into words."""

    currency: str
    start: str
    end: str
    sums: dict[str, Sums]
    """Per selected channel."""
    sold: float
    """Total sales of the company, whatever channels are selected."""
    whole: bool
    """Whether all channels are selected."""

    @property
    def tracked(self) -> dict[str, Sums]:
        """The selected channels with tracked sales, the one with most first."""
        known = {name: one for name, one in self.sums.items() if one.attributed_sales}
        return dict(sorted(known.items(), key=lambda item: item[1].attributed_sales, reverse=True))

    @property
    def tracked_total(self) -> Sums:
        """Sums over the tracked channels: spend that nothing tracks would make their return look smaller."""
        return Sums.of(self.tracked.values())

    @property
    def untracked(self) -> list[str]:
        """The selected channels that spend money and track no sales."""
        return [name for name, one in self.sums.items() if one.spend and not one.attributed_sales]


def query_kpis(told: Told) -> list[dict[str, Any]]:
    """The KPIs, each named with what it is the figure of."""
    total, tracked = Sums.of(told.sums.values()), told.tracked_total
    of = "" if told.whole else f" ({_names(told.sums)})"
    found = [
        kpi(f"Marketing spend{of}", total.spend, told.currency),
        kpi("Total sales of the company", told.sold, told.currency),
    ]
    if told.whole and total.spend:
        found.append(kpi("Total sales per unit of marketing spend", round(told.sold / total.spend, 2), "x"))
    if tracked.attributed_roi is not None:
        names = f" ({_names(told.tracked)})"
        found.append(kpi(f"Tracked sales{names}", tracked.attributed_sales, told.currency))
        found.append(kpi(f"Tracked sales per unit of spend{names}", round(tracked.attributed_roi, 2), "x"))
    if total.clicks:
        found.append(kpi(f"Clicks{of}", total.clicks, "clicks"))
    return found


def query_insights(told: Told) -> list[dict[str, Any]]:
    """Which channel brought most tracked sales, what was spent and sold, and what tracking cannot tell."""
    period, tracked = between(told.start, told.end), told.tracked
    total = Sums.of(told.sums.values())
    on = "marketing" if told.whole else _names(told.sums)
    sums = f"{money(total.spend, told.currency)} was spent on {on}"
    sums += f"; total sales of the company were {money(told.sold, told.currency)}."
    if not tracked:
        return [insight("finding", f"{period}: {sums}"), *_untracked(told), *_volume(told, total)]
    first, *others = [_brought(name, one, told.currency) for name, one in tracked.items()]
    ranking = f"by tracked sales, most came from {first}, then {', '.join(others)}."
    alone = f"tracked sales came from {first}."
    return [
        insight("finding", f"{period}: {ranking if others else alone}", next(iter(tracked))),
        *_untracked(told),
        insight("finding", f"In the same weeks {sums}"),
        *_volume(told, total),
        insight("caveat", "Tracked sales are what a channel's own tracking claims, not what it caused."),
    ]


def _untracked(told: Told) -> Iterator[dict[str, Any]]:
    if told.untracked:
        text = (
            f"{_names(told.untracked)}: no sales are tracked, so this cannot be ranked by tracked sales; "
            "a marketing mix model can estimate what it brings."
        )
        yield insight("caveat", text)


def _volume(told: Told, total: Sums) -> Iterator[dict[str, Any]]:
    """What went to which channel, and the clicks it bought."""
    if len(told.sums) > 1 and total.spend:
        yield insight("finding", f"Spend by channel: {_shares(told, total)}.")
    bought = Sums.of(one for one in told.sums.values() if one.clicks)
    if bought.cost_per_click is not None:
        price = money(bought.cost_per_click, told.currency)
        yield insight("finding", f"There were {bought.clicks:,} clicks, at {price} each.")


def _shares(told: Told, total: Sums) -> str:
    by_size = sorted(told.sums.items(), key=lambda item: item[1].spend, reverse=True)
    return ", ".join(
        f"{headline(name)} {money(one.spend, told.currency)} ({one.spend / total.spend:.0%})" for name, one in by_size
    )


def _names(channels: Iterable[str]) -> str:
    return ", ".join(headline(name) for name in channels)


def _brought(name: str, one: Sums, currency: str) -> str:
    text = f"{headline(name)} with {money(one.attributed_sales, currency)}"
    return text if one.attributed_roi is None else f"{text} ({one.attributed_roi:.2f} for each unit spent)"
