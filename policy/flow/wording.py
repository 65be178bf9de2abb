"""Numbers and days that a text names in other words than a plan would: ``1.2 million``, ``€500k``, ``10 %``, ``Q3 2026``.

English and deliberately small: what is ambiguous (``1.200``, ``03/04/2026``, ``next quarter``) names nothing here. The text
comes in lower case and in NFKC form. Times are linear in it, and what one text can name is bounded by its own length.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from decimal import Decimal

_NUMBER = re.compile(
    r"(?<![\w.,@/:#+-])(?P<sign>[-\u2212]?)(?:[$€£¥]|(?:usd|eur|gbp)\s?)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d{1,9})?|\d{1,18}(?:\.\d{1,9})?)"
    r"(?:\s?(?P<unit>%|percent\b|k\b|m\b|bn\b|thousand\b|million\b|billion\b))?"
    r"(?![\w@/]|[.,:-]\w)"
)
_UNITS = {"k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "bn": 10**9, "billion": 10**9}
_WORDS = {
    word: Decimal(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
}  # fmt: skip
_WORD = re.compile(r"(?<![\w@./-])(?:" + "|".join(_WORDS) + r")(?![\w@/-]|\.\w)")

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
            "september sep sept", "october oct", "november nov", "december dec",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YEAR = r"((?:19|20)\d\d)"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_EDGE = r"(?<![\w.@/-])"
_END = r"(?![\w@/-]|\.\w)"
_QUARTER = re.compile(rf"{_EDGE}(?:q([1-4])\s?(?:of\s)?{_YEAR}|{_YEAR}[\s-]?q([1-4])){_END}")
_MONTH_OF_YEAR = re.compile(rf"{_EDGE}({_MONTH})\.?,?\s(?:of\s)?{_YEAR}{_END}")
_DAY_FIRST = re.compile(rf"{_EDGE}{_DAY}\s(?:of\s)?({_MONTH})\.?,?\s{_YEAR}{_END}")
_MONTH_FIRST = re.compile(rf"{_EDGE}({_MONTH})\.?\s{_DAY},?\s{_YEAR}{_END}")
_WHOLE_YEAR = re.compile(rf"{_EDGE}{_YEAR}{_END}")


def numbers_named(text: str) -> Iterator[Decimal]:
    """The values of the numbers in the text; of a percentage both the number and its hundredth."""
    for match in _NUMBER.finditer(text):
        value = Decimal(match["digits"].replace(",", ""))
        unit = match["unit"] or ""
        if unit in _UNITS:
            value *= _UNITS[unit]
        if match["sign"]:
            value = -value
        yield value
        if unit in ("%", "percent"):
            yield value / 100
    for match in _WORD.finditer(text):
        yield _WORDS[match[0]]


def days_named(text: str) -> Iterator[str]:
    """ISO days: one that is named, or the first and the last of a quarter, a month or a year that is named."""
    for match in _QUARTER.finditer(text):
        quarter, year = int(match[1] or match[4]), int(match[2] or match[3])
        yield from _span(year, 3 * quarter - 2, 3 * quarter)
    for match in _MONTH_OF_YEAR.finditer(text):
        yield from _span(int(match[2]), _MONTHS[match[1]], _MONTHS[match[1]])
    for match in _WHOLE_YEAR.finditer(text):
        yield from _span(int(match[1]), 1, 12)
    for match in _DAY_FIRST.finditer(text):
        yield from _one(int(match[3]), _MONTHS[match[2]], int(match[1]))
    for match in _MONTH_FIRST.finditer(text):
        yield from _one(int(match[3]), _MONTHS[match[1]], int(match[2]))


def _span(year: int, first: int, last: int) -> tuple[str, str]:
    return f"{year:04}-{first:02}-01", f"{year:04}-{last:02}-{monthrange(year, last)[1]:02}"


def _one(year: int, month: int, day: int) -> Iterator[str]:
    if 1 <= day <= monthrange(year, month)[1]:
        yield f"{year:04}-{month:02}-{day:02}"
