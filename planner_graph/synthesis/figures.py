"""Figures in prose, and whether the steps' outputs bear them out. Pure.

A figure is borne out by a number of an output when it is that number as people write it: rounded to the digits shown, as a
percentage of a fraction (``0.123`` for ``12.3 %``), in thousands, millions or billions, or without its sign ("fell by 12 %").
Figures of the question itself and the lengths of lists are borne out too. Nothing is computed beyond that: a sum or a ratio that
no step has produced is not borne out, and the answer says so.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_NUMBERS = 200_000
"""Numbers of one run's outputs that are looked at. Beyond it the rest bear nothing out, which is the safe side."""
_MAX_LOOKS = 1_000
_MAX_DEPTH = 64
_MAX_TEXT_CHARS = 20_000
_SCALES: Mapping[str, float] = {
    "": 1.0,
    "k": 1e3,
    "thousand": 1e3,
    "m": 1e6,
    "mn": 1e6,
    "million": 1e6,
    "b": 1e9,
    "bn": 1e9,
    "billion": 1e9,
    "tn": 1e12,
    "trillion": 1e12,
}
_FIGURE = re.compile(
    r"(?<![\w.,/#@-])(?P<sign>[-+\u2212]?)[£$€¥]?(?P<digits>\d{1,3}(?:[,\u00a0\u202f]\d{3})+|\d{1,18})"
    r"(?P<decimals>\.\d{1,12})?(?:\s?(?P<percent>%|per cent|percent\b)"
    r"|\s?(?P<scale>k|m|mn|(?<=\d)b|bn|tn|thousand|million|billion|trillion)\b"
    r"|(?P<times>x)\b|\s?(?P<points>pp|ppt|pts?)\b)?"
    r"(?![\w/])(?![-.]\d)",
    re.IGNORECASE,
)
_ORDINALS_UP_TO = 10
"""Small whole numbers without unit count things in the sentence ("the 3 channels"); they are not held against it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a text: where it stands, its value, half of its last shown digit, and whether it is in percent or points.

    ``bare``: a whole number with nothing to it, neither sign nor unit.
    """

    start: int
    end: int
    text: str
    value: float
    half_unit: float
    percent: bool
    bare: bool


def figures_of(text: str) -> tuple[Figure, ...]:
    """The figures of ``text``, in order. Dates, versions, identifiers and list numbers are none."""
    return tuple(_figure(match) for match in _FIGURE.finditer(text))


def _figure(match: re.Match[str]) -> Figure:
    decimals = match["decimals"] or ""
    scale = _SCALES[(match["scale"] or "").lower()]
    digits = re.sub(r"\D", "", match["digits"])
    value = float(digits + decimals) * scale
    half_unit = 0.5 * scale * 10.0 ** -(len(decimals) - 1 if decimals else 0)
    percent = bool(match["percent"] or match["points"])
    has_more = decimals or percent or match["scale"] or match["times"] or match["sign"]
    bare = not has_more and match[0][0].isdigit()
    return Figure(match.start(), match.end(), match[0], value, half_unit, percent, bare)


class Evidence:
    """Every number the steps produced, by size, with the steps it comes from."""

    def __init__(self, outputs: Iterable[tuple[str, Any]], question: str = "") -> None:
        """``outputs`` are (step id, JSON value) pairs; ``question`` is what the user wrote."""
        pairs: set[tuple[float, str]] = set()
        for step_id, output in outputs:
            for number in _numbers(output, 0):
                if len(pairs) >= MAX_NUMBERS:
                    break
                pairs.add((abs(number), step_id))
        pairs.update((figure.value, "") for figure in figures_of(question))
        ordered = sorted(pairs)
        self._values = [value for value, _ in ordered]
        self._steps = [step_id for _, step_id in ordered]

    def sources(self, figure: Figure) -> tuple[str, ...] | None:
        """The steps that bear a figure out, sorted (none when the question does); None when nothing does."""
        found = self._near(figure.value, figure.half_unit)
        if figure.percent:
            found |= self._near(figure.value / 100, figure.half_unit / 100)
        if found:
            return tuple(sorted(step_id for step_id in found if step_id))
        if figure.bare and (figure.value <= _ORDINALS_UP_TO or 1900 <= figure.value <= 2100):
            return ()
        return None

    def _near(self, value: float, half_unit: float) -> set[str]:
        # A little wider than half a unit: both neighbours round to the shown digits when a value stands in the middle.
        margin = half_unit * (1 + 1e-9) + abs(value) * 1e-12
        first = bisect_left(self._values, value - margin)
        last = min(bisect_right(self._values, value + margin), first + _MAX_LOOKS)
        return set(self._steps[first:last])


def _numbers(value: Any, depth: int) -> Iterator[float]:
    if depth > _MAX_DEPTH or isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        number = float(value) if abs(value) < 1e300 else math.inf
        if math.isfinite(number):
            yield number
    elif isinstance(value, str):
        yield from (figure.value for figure in figures_of(value[:_MAX_TEXT_CHARS]))
    elif isinstance(value, list):
        yield float(len(value))
        for item in value:
            yield from _numbers(item, depth + 1)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item, depth + 1)
