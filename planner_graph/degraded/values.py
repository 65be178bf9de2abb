"""Typed values out of words: dates, quarters, amounts and choices found in an intent.

Pure and bounded. ``today`` is a parameter; a quarter or month without a year is the latest one that has begun by then.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta

from engine.domain.playbook import PlaybookParameter

_MONTHS = ("january february march april may june july august september october november december").split()
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_QUARTER = re.compile(r"\bq([1-4])(?:\s*(?:of\s*)?,?\s*(20\d{2}))?\b", re.IGNORECASE)
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})(?:\s*,?\s*(20\d{{2}}))?\b", re.IGNORECASE)
_RELATIVE = re.compile(r"\b(last|previous|past|this|current)\s+(week|month|quarter|year)\b", re.IGNORECASE)
_LAST_N = re.compile(r"\b(?:last|past)\s+(\d{1,3})\s+(days?|weeks?|months?)\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:in|for|during|of)\s+(20\d{2})\b", re.IGNORECASE)
_AMOUNT = re.compile(
    r"(?<![\w.])[£$€]?\s?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?\s?(k|m|thousand|million)?\b(?!\s*(?:%|-))", re.IGNORECASE
)
_SCALE = {"k": 1_000, "thousand": 1_000, "m": 1_000_000, "million": 1_000_000}


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days, both ends included."""

    start: date
    end: date

    @property
    def previous(self) -> Period:
        """The period of about the same length right before this one; a quarter's is the quarter before."""
        if self == _quarter_of(self.start):
            return _quarter_of(self.start - timedelta(days=1))
        length = self.end - self.start
        end = self.start - timedelta(days=1)
        return Period(end - length, end)

    @property
    def following(self) -> Period:
        """The quarter after this one's end, or a period of the same length."""
        if self == _quarter_of(self.start):
            return _quarter_of(self.end + timedelta(days=1))
        start = self.end + timedelta(days=1)
        return Period(start, start + (self.end - self.start))


def _quarter(year: int, quarter: int) -> Period:
    first = 3 * quarter - 2
    return Period(date(year, first, 1), date(year, first + 2, monthrange(year, first + 2)[1]))


def _quarter_of(day: date) -> Period:
    return _quarter(day.year, (day.month - 1) // 3 + 1)


def _month(year: int, month: int) -> Period:
    return Period(date(year, month, 1), date(year, month, monthrange(year, month)[1]))


def find_periods(text: str, today: date) -> tuple[Period, ...]:
    """Periods named in ``text``, in order of appearance: ISO date pairs, quarters, months, years, relative ones."""
    found: list[tuple[int, Period]] = []
    for match in _QUARTER.finditer(text):
        number = int(match[1])
        year = int(match[2]) if match[2] else _latest_year(3 * number - 2, today)
        found.append((match.start(), _quarter(year, number)))
    for match in _MONTH.finditer(text):
        number = _MONTHS.index(match[1].lower()) + 1
        if match[1].lower() == "may" and match[1] != "May":
            continue
        year = int(match[2]) if match[2] else _latest_year(number, today)
        found.append((match.start(), _month(year, number)))
    found.extend(
        (match.start(), _relative(match[1].lower(), match[2].lower(), today)) for match in _RELATIVE.finditer(text)
    )
    found.extend((match.start(), _last_n(int(match[1]), match[2].lower(), today)) for match in _LAST_N.finditer(text))
    days = [(match.start(), day) for match in _ISO.finditer(text) if (day := _iso_day(match)) is not None]
    found.extend(
        (first[0], Period(first[1], second[1]))
        for first, second in zip(days[::2], days[1::2], strict=False)
        if first[1] <= second[1]
    )
    if not found:
        found.extend((m.start(), Period(date(int(m[1]), 1, 1), date(int(m[1]), 12, 31))) for m in _YEAR.finditer(text))
    return tuple(period for _, period in sorted(found, key=lambda pair: pair[0]))


def _latest_year(month: int, today: date) -> int:
    """The latest year in which ``month`` has begun by ``today``."""
    return today.year if month <= today.month else today.year - 1


def last_complete_quarter(today: date) -> Period:
    """The quarter before the one ``today`` is in."""
    return _quarter_of(_quarter_of(today).start - timedelta(days=1))


def _iso_day(match: re.Match[str]) -> date | None:
    """The day, if the calendar has it and its neighbours: a period at the edge of time has no period before or after it."""
    try:
        day = date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
    return day if 1900 <= day.year < 2200 else None


def _relative(word: str, unit: str, today: date) -> Period:
    current = {
        "week": Period(today - timedelta(days=today.weekday()), today - timedelta(days=today.weekday() - 6)),
        "month": _month(today.year, today.month),
        "quarter": _quarter_of(today),
        "year": Period(date(today.year, 1, 1), date(today.year, 12, 31)),
    }[unit]
    if word in ("this", "current"):
        return current
    before = current.start - timedelta(days=1)
    return {
        "week": Period(before - timedelta(days=6), before),
        "month": _month(before.year, before.month),
        "quarter": _quarter_of(before),
        "year": Period(date(before.year, 1, 1), date(before.year, 12, 31)),
    }[unit]


def _last_n(count: int, unit: str, today: date) -> Period:
    days = count * (30 if unit.startswith("month") else 7 if unit.startswith("week") else 1)
    return Period(today - timedelta(days=days), today - timedelta(days=1))


def find_amounts(text: str) -> tuple[float, ...]:
    """Amounts in ``text`` in order: ``50k``, ``£120,000``, ``1.5 million``. Years, dates, quarters and percentages are not."""
    cleaned = _LAST_N.sub(" ", _QUARTER.sub(" ", _ISO.sub(" ", text)))
    amounts = []
    for match in _AMOUNT.finditer(cleaned):
        value = float(match[1].replace(",", "") + (match[2] or "")) * _SCALE.get((match[3] or "").lower(), 1)
        bare_year = match[3] is None and match[2] is None and "," not in match[1] and 1990 <= value <= 2100
        if not bare_year and math.isfinite(value):
            amounts.append(value)
    return tuple(amounts)


def find_choices(parameter: PlaybookParameter, text: str) -> tuple[str, ...]:
    """The choices of ``parameter`` named in ``text`` by their own words or a synonym, in order of appearance."""
    lowered = f" {re.sub(r'[^a-z0-9]+', ' ', text.lower())} "
    found = []
    for choice in parameter.choices:
        names = (choice, *parameter.synonyms.get(choice, ()))
        places = [
            at for name in names if (at := lowered.find(f" {re.sub(r'[^a-z0-9]+', ' ', name.lower()).strip()} ")) >= 0
        ]
        if places:
            found.append((min(places), choice))
    return tuple(choice for _, choice in sorted(found))
