"""Labels that remember where they come from: the algebra under the flow analysis. Knows neither plans nor policies.

A ``Trace`` is a label with up to three ways through the graph: to the source that pulled its integrity down, to the one its
confidentiality comes from, to the one that is about a person. Ways are linked lists that share their beginnings, so a plan of
5,000 steps in a row costs 5,000 links and not 12 million; they are spelled out, shortened, only where they are shown.
"""

from __future__ import annotations

from typing import NamedTuple

from policy.facts import Label, Origin

MAX_SHOWN = 12
"""Places of a way that are shown: the source, then the last ones before the use."""
_MAX_PLACE_CHARS = 200


class Link:
    """One place on a way. ``before`` leads towards the source, ``hops`` counts the places before this one."""

    __slots__ = ("before", "hops", "source", "text")

    def __init__(self, text: str, before: Link | None = None) -> None:
        self.text = text
        self.before = before
        self.source: str = before.source if before is not None else text
        self.hops: int = before.hops + 1 if before is not None else 0


class Trace(NamedTuple):
    """A label and its ways. A way that is None starts here: nothing earlier made the label what it is."""

    integrity: int = 3
    confidentiality: int = 0
    pii: bool = False
    low: Link | None = None
    high: Link | None = None
    personal: Link | None = None

    @property
    def label(self) -> Label:
        """The label alone."""
        return Label(self.integrity, self.confidentiality, self.pii)

    def at(self, place: str) -> Trace:
        """The same label one place further on; what is neutral needs no way."""
        if self is NEUTRAL:
            return self
        link = Link(place, self.low) if self.integrity < 3 else None
        high, personal = None, None
        if self.confidentiality:
            high = link if link is not None and self.high is self.low else Link(place, self.high)
        if self.pii:
            personal = high if high is not None and self.personal is self.high else Link(place, self.personal)
        return Trace(self.integrity, self.confidentiality, self.pii, link, high, personal)


NEUTRAL = Trace()
"""The neutral element of ``meet``."""

LOWEST = Trace(0, 3, True)
"""What is said of a value nobody can account for."""


def meet(left: Trace, right: Trace) -> Trace:
    """The label of a value made from both; of two ways to the same label the shorter one is kept, then the first."""
    if left is NEUTRAL or left is right:
        return right
    if right is NEUTRAL:
        return left
    # Compared one by one: this runs several times for each value of a plan, and most of them differ in one thing at most.
    low = high = personal = left
    if left.integrity > right.integrity or (left.integrity == right.integrity and _shorter(right.low, left.low)):
        low = right
    if left.confidentiality < right.confidentiality or (
        left.confidentiality == right.confidentiality and left.confidentiality and _shorter(right.high, left.high)
    ):
        high = right
    if right.pii and (not left.pii or _shorter(right.personal, left.personal)):
        personal = right
    if low is high is personal:
        return low
    return Trace(low.integrity, high.confidentiality, personal.pii, low.low, high.high, personal.personal)


def without_pii(trace: Trace) -> Trace:
    """The label of the value once what is about a person was taken out of it."""
    if not trace.pii:
        return trace
    return Trace(trace.integrity, trace.confidentiality, False, trace.low, trace.high, None)


def as_if_trusted(trace: Trace) -> Trace:
    """The label with nothing said about integrity: how far the value may travel, and whether it is about a person."""
    return Trace(3, trace.confidentiality, trace.pii, None, trace.high, trace.personal)


def _shorter(one: Link | None, other: Link | None) -> bool:
    return other is not None and one is not other and (one is None or one.hops < other.hops)


def origin(link: Link, pointer: str) -> Origin:
    """A way spelled out, source first, at most ``MAX_SHOWN`` places; what is left out is counted."""
    last = [link.text]
    node = link.before
    while node is not None and len(last) < MAX_SHOWN:
        last.append(node.text)
        node = node.before
    if node is not None:
        last[-2:] = [f"… {node.hops + 2} more …", link.source]
    if max(map(len, last)) > _MAX_PLACE_CHARS:
        last = [text if len(text) <= _MAX_PLACE_CHARS else text[: _MAX_PLACE_CHARS - 1] + "…" for text in last]
    last.reverse()
    return Origin(tuple(last), pointer)
