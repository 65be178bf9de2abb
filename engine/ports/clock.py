"""The time, as a parameter."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from. Never used inside orchestrators: they ask the durable context."""

    def now(self) -> datetime:
        """The current instant, aware, UTC."""
        ...
