"""The shapes that answers are composed from (KPIs, tables, insights), and how figures are rounded and spelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

Kind = Literal["finding", "recommendation", "caveat"]
Unit = Literal["fraction", "change"]
Column = str | tuple[str, Unit]
_NAMES = {"tv": "TV", "paid_search": "paid search", "paid_social": "paid social"}


def change(new: float, old: float) -> float | None:
    """Relative change as a fraction, None where the old value is zero."""
    return None if old == 0 else round(new / old - 1.0, 4)


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """The members that are known. An unknown figure is left out, never written as null."""
    return {name: value for name, value in values.items() if value is not None}


def kpi(name: str, value: float, unit: str, **more: float | None) -> dict[str, Any]:
    """One KPI. ``more`` may hold ``change`` (a fraction), ``low`` and ``high``."""
    return without_none({"name": name, "value": value, "unit": unit, **more})


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """One table, cut to 50 rows. A column is its label, or label and unit where its figures do not speak for themselves."""
    heads = [one if isinstance(one, str) else {"label": one[0], "unit": one[1]} for one in columns]
    return {"title": title, "columns": heads, "rows": [list(row) for row in rows][:50]}


def insight(kind: Kind, text: str, channel: str | None = None) -> dict[str, Any]:
    """One finding, recommendation or caveat in words."""
    return without_none({"kind": kind, "text": text, "channel": channel})


def called(channel: str) -> str:
    """A channel as people write it."""
    return _NAMES.get(channel, channel.replace("_", " "))


def headline(channel: str) -> str:
    """A channel at the start of a sentence or in a table."""
    name = called(channel)
    return name[:1].upper() + name[1:]


def money(amount: float, currency: str) -> str:
    """An amount in words: ``GBP 1.15m``, ``GBP 457k``, ``GBP 0.94``."""
    size = abs(amount)
    if size >= 999_500:
        return f"{currency} {amount / 1e6:.2f}m"
    if size >= 9_950:
        return f"{currency} {amount / 1e3:.0f}k"
    return f"{currency} {amount:,.0f}" if size >= 100 else f"{currency} {amount:.2f}"


def percent(fraction: float) -> str:
    """A fraction as a percentage without sign."""
    return f"{abs(fraction) * 100:.0f}%"


def rose_or_fell(fraction: float) -> str:
    """``rose 12%``, ``fell 12%`` or ``stayed about the same``."""
    if abs(fraction) < 0.015:
        return "stayed about the same"
    return f"{'rose' if fraction > 0 else 'fell'} {percent(fraction)}"


def between(start: str, end: str, previous: tuple[str, str] | None = None) -> str:
    """The period a sentence speaks of, and the one it is compared with: ``Between 2026-07-06 and 2026-10-04``."""
    return f"Between {start} and {end}" + (f", against {previous[0]} to {previous[1]}" if previous else "")


def sales_told(sold: float, before: float, scale: float, currency: str) -> str:
    """What total sales did between two periods. ``scale`` is the length of the later one over that of the earlier one."""
    moved = change(sold, before * scale)
    if moved is None:
        return f"total sales were {money(sold, currency).strip()}, after none"
    words = "stayed about the same" if abs(moved) < 0.005 else f"{'rose' if moved > 0 else 'fell'} {abs(moved):.1%}"
    now, then = money(sold, currency).strip(), money(before, currency).strip()
    if abs(scale - 1.0) < 1e-9:
        return f"total sales {words}, to {now} from {then}"
    # The two sums alone would tell another change.
    longer = "shorter" if scale > 1 else "longer"
    return f"total sales per week {words}; in all they were {now}, and {then} in the {longer} earlier period"
