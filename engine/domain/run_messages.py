"""What joins the engine with other systems: names of the queue and the topic, and events of runs as CloudEvents.

A message about a run holds ids, codes, counts and times; no words of anybody, no names of people, no content.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.domain.base import JsonObject, iso_utc
from engine.domain.events import FINAL_EVENTS, EventType, RunEvent

RUN_REQUESTS_QUEUE = "run-requests"
"""Signed requests of other systems, each to become a run. Read by the Functions app."""
RUN_EVENTS_TOPIC = "run-events"
"""What became of runs, for other systems. With sessions: one for each run, in order."""
MAX_REASON_CHARS = 4_096
"""Longest reason, and longest description, of a dead letter."""

POSTPONED = "postponed"
"""Application property of a request that waits for its tenant's quota, and of a result that waits for a store: how often it was
put off."""

CLOUD_EVENT_JSON = "application/cloudevents+json; charset=UTF-8"
_OF_RUN = ("code", "cost_micro_usd", "request_id")
_OF_APPROVAL = ("subject", "approval_id", "kind", "item", "capability", "expires_at", "code")

_TOLD: Mapping[EventType, tuple[str, ...]] = {
    EventType.RUN_ACCEPTED: _OF_RUN,
    EventType.RUN_SUSPENDED: _OF_RUN,
    EventType.RUN_RESUMED: _OF_RUN,
    EventType.PLAN_VETTED: ("plan_hash", "plan_version", "steps", "source"),
    EventType.APPROVAL_REQUESTED: _OF_APPROVAL,
    EventType.APPROVAL_GRANTED: _OF_APPROVAL,
    EventType.APPROVAL_REFUSED: _OF_APPROVAL,
    EventType.APPROVAL_EXPIRED: _OF_APPROVAL,
    EventType.APPROVAL_VOIDED: _OF_APPROVAL,
    EventType.DEGRADED_ENTERED: ("part",),
    EventType.BUDGET_EXHAUSTED: ("reserved_micro_usd", "spent_micro_usd", "limit_micro_usd", "step_id"),
    **dict.fromkeys(FINAL_EVENTS, _OF_RUN),
}

LIFECYCLE_EVENTS = frozenset(_TOLD)
"""Events that other systems are told of. What happens to steps and how an answer is written stays in the run's event log."""


def cloud_event_id(event: RunEvent) -> str:
    """The same for the same event, however often it is sent: consumers take it once."""
    return f"{event.run_id}.{event.seq}"


def cloud_event_of(event: RunEvent) -> JsonObject:
    """A lifecycle event in the JSON format of CloudEvents 1.0. Raises ``KeyError`` for any other event."""
    return {
        "specversion": "1.0",
        "id": cloud_event_id(event),
        "source": f"urn:livoa:tenant:{event.tenant_id}",
        "type": f"livoa.{event.type.value}",
        "subject": event.run_id,
        "time": iso_utc(event.at),
        "datacontenttype": "application/json",
        "tenantid": event.tenant_id,
        "sequence": str(event.seq),
        "data": {name: event.data[name] for name in _TOLD[event.type] if name in event.data},
    }
