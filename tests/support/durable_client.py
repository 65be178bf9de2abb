"""The durable client of activities, on an engine in the same process: a stand-in for the SDK's, which speaks HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from local_host.durable.engine import DurableEngine


@dataclass(frozen=True, slots=True)
class Status:
    """What activities read of a status. Without an id there is no such instance."""

    instance_id: str | None = None
    runtime_status: str | None = None
    output: Any = None


class EngineClient:
    """Implements ``activities.apart.DurableClient``."""

    def __init__(self, engine: DurableEngine) -> None:
        self._engine = engine

    async def start_new(self, name: str, instance_id: str | None = None, client_input: Any | None = None) -> str:
        """With the input as JSON text inside a JSON document, as the SDK sends it."""
        return await self._engine.start_new(name, instance_id, json.dumps(json.dumps(client_input)))

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        """See the protocol."""
        await self._engine.raise_event(instance_id, event_name, json.dumps(event_data))

    async def get_status(self, instance_id: str) -> Status:
        """See the protocol."""
        snapshot = await self._engine.status(instance_id)
        if snapshot is None:
            return Status()
        output = snapshot.instance.output
        return Status(instance_id, snapshot.instance.status, json.loads(output) if output else None)
