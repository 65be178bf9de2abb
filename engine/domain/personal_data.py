"""Personal data in free text: the types that can be looked for, what was found, and how a found piece is masked.

What the catalog *labels* as personal is redacted as a whole and needs no detector. A detector looks where nobody
labelled anything, and it misses things: it can only ever add restrictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import Field

from engine.domain.base import Frozen


class PersonalDataType(StrEnum):
    """What can be looked for. The last two need a language model for names; the others are patterns with checksums."""

    CREDIT_CARD = "CREDIT_CARD"
    IBAN_CODE = "IBAN_CODE"
    EMAIL_ADDRESS = "EMAIL_ADDRESS"
    PHONE_NUMBER = "PHONE_NUMBER"
    US_SSN = "US_SSN"
    IP_ADDRESS = "IP_ADDRESS"
    PERSON = "PERSON"
    LOCATION = "LOCATION"


BY_PATTERN = (
    PersonalDataType.CREDIT_CARD,
    PersonalDataType.IBAN_CODE,
    PersonalDataType.EMAIL_ADDRESS,
    PersonalDataType.PHONE_NUMBER,
    PersonalDataType.US_SSN,
    PersonalDataType.IP_ADDRESS,
)


class PersonalDataRules(Frozen):
    """Whether a tenant has its outgoing arguments looked through, and for what.

    ``outgoing``: before a capability with the side effect ``external`` is called, every text it is handed is looked
    through, and what is found is masked. Where no detector is installed that finds all ``types``, such a call is
    denied.
    """

    detect: Literal["off", "outgoing"] = "off"
    types: tuple[PersonalDataType, ...] = Field(default=BY_PATTERN, min_length=1, max_length=len(PersonalDataType))


class Found(NamedTuple):
    """A piece of a text, from ``start`` up to ``end`` in characters."""

    start: int
    end: int
    type: PersonalDataType


def mark_of(kind: PersonalDataType) -> str:
    """What stands in the place of a masked piece."""
    return f"[redacted: {kind.value}]"


_MARK = re.compile("|".join(re.escape(mark_of(kind)) for kind in PersonalDataType))


def has_mark(text: str) -> bool:
    """True when something in the text was masked."""
    return _MARK.search(text) is not None


def outside_marks(text: str, found: Iterable[Found]) -> list[Found]:
    """Those findings that are more than a mark made earlier: a detector may take one for a name."""
    marks = [match.span() for match in _MARK.finditer(text)]
    return [one for one in found if not any(start <= one.start and one.end <= end for start, end in marks)]


def masked(text: str, found: Iterable[Found]) -> str:
    """The text with every found piece replaced by its mark. Pieces that overlap become one, named after the first."""
    pieces: list[str] = []
    at = 0
    for one in sorted(found):
        if one.end <= at:
            continue
        if one.start >= at:
            pieces += [text[at : one.start], mark_of(one.type)]
        at = one.end
    return "".join((*pieces, text[at:]))
