"""What is said of a call that failed, and may have had its effect all the same."""

from __future__ import annotations

from engine.domain.capability import Capability
from engine.domain.execute import LEAVES_OPEN, MAY_HAVE_HAD_ITS_EFFECT

_ROOM = 400
"""So many characters of the reason stay: a record keeps 500, and the warning must not be what is cut."""


def told(code: str, message: str, capability: Capability) -> str:
    """The message, with a warning where the code leaves open whether an effect that must not be repeated took place."""
    if capability.is_repeatable or code not in LEAVES_OPEN:
        return message
    reason = message[:_ROOM].rstrip()
    stop = "" if not reason or reason.endswith((".", "!", "?")) else "."
    return f"{reason}{stop} {MAY_HAVE_HAD_ITS_EFFECT}".lstrip()
