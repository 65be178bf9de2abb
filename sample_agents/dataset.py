"""One tenant's marketing data: weekly rows per channel and weekly sales, read once from CSV files.

Each tenant has a folder of its own, and the tenant id of the call is the only way to one. A week belongs to the month and the
quarter of its Monday.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from agent_kit import CapabilityError
from engine.domain.ids import is_wire_id

Grain = Literal["week", "month", "quarter"]
_MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MediaWeek:
    """One channel in one week. Money in the data set's currency; ``attributed_sales`` is what the channel itself claims."""

    week: date
    channel: str
    spend: float
    impressions: int
    clicks: int
    attributed_sales: float


@dataclass(frozen=True, slots=True)
class SalesWeek:
    """Total sales of one week."""

    week: date
    sales: float
    promotion: bool


@dataclass(frozen=True)
class Dataset:
    """Everything known about one tenant's marketing."""

    currency: str
    media: tuple[MediaWeek, ...]
    sales: tuple[SalesWeek, ...]

    @cached_property
    def first(self) -> date:
        """Monday of the first week."""
        return self.sales[0].week

    @cached_property
    def last(self) -> date:
        """Monday of the last week."""
        return self.sales[-1].week

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The channels that ever appear, in order of appearance."""
        return tuple(dict.fromkeys(row.channel for row in self.media))

    def last_complete_quarter(self) -> tuple[date, date]:
        """First and last day of the last quarter whose Mondays are all in the data."""
        end = period_start(self.last + timedelta(weeks=1), "quarter") - timedelta(days=1)
        return period_start(end, "quarter"), end


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a data set: its weeks between two days, both included."""

    start: date
    end: date
    media: tuple[MediaWeek, ...]
    sales: tuple[SalesWeek, ...]

    @property
    def weeks(self) -> int:
        """How many weeks it has."""
        return len(self.sales)


def span(data: Dataset, start: date, end: date, channels: Sequence[str] | None = None) -> Span:
    """The weeks whose Monday lies between ``start`` and ``end``.

    ``CapabilityError``: ``data.period_invalid`` when the end is before the start, ``data.period_empty`` when no week lies there
    (the message says what there is), ``data.channel_unknown`` for a channel this tenant does not have.
    """
    if end < start:
        raise CapabilityError("data.period_invalid", f"The period ends ({end}) before it starts ({start}).")
    unknown = sorted(set(channels or ()) - set(data.channels))
    if unknown:
        known = ", ".join(data.channels)
        raise CapabilityError("data.channel_unknown", f"No data for {', '.join(unknown)}; there is {known}.")
    sales = tuple(row for row in data.sales if start <= row.week <= end)
    if not sales:
        there = f"the data run from {data.first} to {data.last + timedelta(days=6)}"
        raise CapabilityError("data.period_empty", f"No week between {start} and {end}; {there}.")
    wanted = set(channels or data.channels)
    media = tuple(row for row in data.media if start <= row.week <= end and row.channel in wanted)
    return Span(start, end, media, sales)


def period_start(day: date, grain: Grain) -> date:
    """First day of the week (Monday), month or quarter of ``day``."""
    if grain == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1, month=day.month if grain == "month" else (day.month - 1) // 3 * 3 + 1)


class Datasets:
    """The data sets of all tenants under one folder, each read on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, Dataset] = {}

    def of(self, tenant_id: str) -> Dataset:
        """The tenant's data. ``CapabilityError("data.not_found")`` when it has none."""
        if tenant_id not in self._loaded:
            self._loaded[tenant_id] = read_dataset(self.folder_of(tenant_id))
        return self._loaded[tenant_id]

    def folder_of(self, tenant_id: str) -> Path:
        """The tenant's folder. A tenant id cannot name a place outside: ``.`` and ``..`` are refused."""
        folder = self._folder / tenant_id
        if not is_wire_id(tenant_id) or tenant_id.startswith(".") or not (folder / "dataset.json").is_file():
            raise CapabilityError("data.not_found", "There is no marketing data for this tenant.")
        return folder


def read_dataset(folder: Path) -> Dataset:
    """Read ``dataset.json``, ``media.csv`` and ``sales.csv``. ``ValueError`` when they do not fit together."""
    media = tuple(
        MediaWeek(
            week=date.fromisoformat(row["week"]),
            channel=row["channel"],
            spend=float(row["spend"]),
            impressions=int(row["impressions"]),
            clicks=int(row["clicks"]),
            attributed_sales=float(row["attributed_sales"]),
        )
        for row in _rows(folder / "media.csv")
    )
    sales = tuple(
        SalesWeek(date.fromisoformat(row["week"]), float(row["sales"]), row["promotion"] == "1")
        for row in _rows(folder / "sales.csv")
    )
    require_consecutive([row.week for row in sales])
    if {row.week for row in media} != {row.week for row in sales}:
        raise ValueError("media and sales must cover the same weeks")
    currency = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["currency"]
    return Dataset(currency, media, sales)


def require_consecutive(weeks: Sequence[date]) -> None:
    """``ValueError`` unless the days are Mondays, each a week after the one before."""
    if not weeks or any(week.weekday() != 0 for week in weeks):
        raise ValueError("weeks are named by their Monday")
    if any(later - earlier != timedelta(weeks=1) for earlier, later in pairwise(weeks)):
        raise ValueError("weeks must follow each other without gaps")


def _rows(path: Path) -> Iterable[Mapping[str, str]]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is larger than {_MAX_FILE_BYTES} bytes")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
