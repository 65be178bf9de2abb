"""Instants as text: RFC 3339 with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_instant(text: str) -> datetime | None:
    """The instant in UTC, or None when the text is not RFC 3339 with an offset. Finer than microseconds is cut off."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    fraction = (match[1] or "")[:7]
    whole = text[:19].upper()
    offset = "+00:00" if match[2] in "Zz" else match[2]
    try:
        return datetime.fromisoformat(f"{whole}{fraction}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
