"""Events of runs on their way out: CloudEvents in a topic, a session for each run, so that each is read in order."""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.adapters.service_bus import BusConnection, BusMessage
from engine.domain.events import RunEvent
from engine.domain.run_messages import CLOUD_EVENT_JSON, RUN_EVENTS_TOPIC, cloud_event_id, cloud_event_of


class ServiceBusRunEvents:
    """Implements ``RunEventTopic``. The id of a message is its event's, so the topic may drop what is sent twice."""

    def __init__(self, connection: BusConnection, topic: str = RUN_EVENTS_TOPIC) -> None:
        self._connection, self._topic = connection, topic

    async def publish(self, events: Sequence[RunEvent]) -> None:
        """See ``RunEventTopic``."""
        await self._connection.send(self._topic, *map(_message, events))


def _message(event: RunEvent) -> BusMessage:
    told = cloud_event_of(event)
    return BusMessage(
        json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(),
        cloud_event_id(event),
        subject=told["type"],
        session_id=event.run_id,
        # What subscriptions may filter by.
        properties={"tenant_id": event.tenant_id, "type": told["type"]},
        content_type=CLOUD_EVENT_JSON,
    )
