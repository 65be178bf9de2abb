"""The way to the workers: a queue of commands. What a worker answers comes back through a queue of its own."""

from __future__ import annotations

from typing import Protocol

from engine.domain.bus import StepCommand
from engine.domain.errors import LivoaError


class StepQueue(Protocol):
    """Sends commands. At least once, in any order: whoever receives one takes a lease before it acts."""

    @property
    def is_configured(self) -> bool:
        """False where there is no bus, so that ``send`` cannot but fail."""
        ...

    async def send(self, command: StepCommand, *, session_id: str, message_id: str) -> None:
        """Send durably. ``LivoaError("bus.unavailable", status=503)`` when the bus cannot be reached in time."""
        ...


class NoStepQueue:
    """Where no bus is configured."""

    @property
    def is_configured(self) -> bool:
        """See ``StepQueue``."""
        return False

    async def send(self, command: StepCommand, *, session_id: str, message_id: str) -> None:
        """See ``StepQueue``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)
