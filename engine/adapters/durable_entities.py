"""Entities through the durable client that the platform hands to functions. The SDK is imported by the first use."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from engine.domain.base import JsonObject
from engine.ports.entities import entities_unavailable

TIMEOUT_S = 2.0
"""A caller of an agent waits for this at most; what it then knows has to do."""


class _Client(Protocol):
    async def signal_entity(self, entityId: Any, operation_name: str, operation_input: Any = None) -> None: ...  # noqa: N803

    async def read_entity_state(self, entityId: Any) -> Any: ...  # noqa: N803  # both as the SDK names it


class ClientEntities:
    """Implements ``EntityDoor`` by the client seen last: all of an app's clients lead to the same task hub."""

    def __init__(self) -> None:
        self._client: Any = None

    def use(self, client: object) -> None:
        """See ``EntityDoor``."""
        self._client = client

    async def signal(self, name: str, key: str, operation: str, value: JsonObject) -> None:
        """See ``EntityDoor``."""
        client, entity_id = self._reached(name, key)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await client.signal_entity(entity_id, operation, value)
        except Exception as err:
            # The SDK raises bare exceptions, and its HTTP library many more.
            raise entities_unavailable() from err

    async def read(self, name: str, key: str) -> JsonObject | None:
        """See ``EntityDoor``."""
        client, entity_id = self._reached(name, key)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await client.read_entity_state(entity_id)
            state = response.entity_state if response.entity_exists else None
            # Depending on the host's media type the SDK hands over the document or its text.
            state = json.loads(state) if isinstance(state, str) else state
        except Exception as err:
            raise entities_unavailable() from err
        return state if isinstance(state, dict) else None

    def _reached(self, name: str, key: str) -> tuple[_Client, Any]:
        if self._client is None:
            raise entities_unavailable()
        from azure.durable_functions import EntityId

        return self._client, EntityId(name, key)
