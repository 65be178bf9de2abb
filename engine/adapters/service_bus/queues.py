"""What is sent over the bus: commands to workers, and their results."""

from __future__ import annotations

from engine.adapters.service_bus.connection import BusConnection, BusMessage
from engine.domain.bus import StepCommand, StepResult, nonce_sha256

TRACE_PROPERTY = "Diagnostic-Id"
"""Application property with the W3C trace context, where Azure's own SDKs and the Functions host look for it."""


class ServiceBusStepQueue:
    """Implements the ``StepQueue`` port: each tenant's commands go to its own queue or to the shared one."""

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    @property
    def is_configured(self) -> bool:
        """See the port."""
        return True

    async def send(self, command: StepCommand, *, session_id: str, message_id: str) -> None:
        """See the port."""
        settings = self._connection.settings
        message = BusMessage(
            command.model_dump_json(exclude_none=True).encode(),
            message_id,
            subject=command.capability,
            session_id=session_id if settings.sessions else None,
            properties={TRACE_PROPERTY: command.traceparent} if command.traceparent else {},
        )
        await self._connection.send(settings.commands_of(command.tenant_id), message)


class ServiceBusResults:
    """Where workers send what came of a step."""

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def send(self, result: StepResult, *, traceparent: str | None = None) -> None:
        """Send durably; the same result again is a duplicate. ``LivoaError("bus.unavailable")``."""
        message = BusMessage(
            result.model_dump_json().encode(),
            # Another sender must not be able to have this one dropped as a duplicate.
            f"{result.key}#{result.token}.{nonce_sha256(result.nonce)[:16]}",
            properties={TRACE_PROPERTY: traceparent} if traceparent else {},
        )
        await self._connection.send(self._connection.settings.results_queue, message)
