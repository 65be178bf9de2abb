"""Durable entities as activities and triggers see them: signal and read. Calling one, with an answer, is the orchestrators'."""

from __future__ import annotations

from typing import Protocol

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError


class EntityDoor(Protocol):
    """The entities of this app's task hub. Both ways raise ``LivoaError("engine.unavailable", status=503)``."""

    def use(self, client: object) -> None:
        """Go through this durable client from now on. The platform hands clients to functions, never to a process."""
        ...

    async def signal(self, name: str, key: str, operation: str, value: JsonObject) -> None:
        """Have an operation performed at some time, at least once."""
        ...

    async def read(self, name: str, key: str) -> JsonObject | None:
        """The state as it was a moment ago; None when there is none."""
        ...


class NoEntities:
    """Where no durable client has been seen, no entity can be reached."""

    def use(self, client: object) -> None:
        """See ``EntityDoor``. Does nothing."""

    async def signal(self, name: str, key: str, operation: str, value: JsonObject) -> None:
        """See ``EntityDoor``."""
        raise entities_unavailable()

    async def read(self, name: str, key: str) -> JsonObject | None:
        """See ``EntityDoor``."""
        raise entities_unavailable()


def entities_unavailable() -> LivoaError:
    """What both ways raise."""
    return LivoaError("engine.unavailable", "The durable engine cannot be reached.", status=503, retry_after_s=5)
