"""Messages about runs: those that submit them, and those that tell what became of them."""

from __future__ import annotations

from typing import Protocol

from engine.domain.errors import LivoaError


class RunRequestQueue(Protocol):
    """The queue of submissions, as far as receiving is not the trigger's."""

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """Move a message that is held under ``lock_token`` to the dead letters. Both texts have at most 4,096 characters.

        ``LivoaError("bus.unavailable", status=503)`` when it cannot be done, also because the lock is lost.
        """
        ...


class NoRunRequests:
    """Where no bus is configured."""

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """See ``RunRequestQueue``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)
