"""Events of runs as other systems receive them: through the real SDKs of the bus and of CloudEvents."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event
from cloudevents.core.formats.json import JSONFormat

from engine.adapters.bus_settings import BusSettings
from engine.adapters.run_messages import ServiceBusRunEvents
from engine.adapters.service_bus import BusConnection
from engine.domain.errors import LivoaError
from engine.domain.events import EventType, RunEvent, RunEventData, data_model
from engine.domain.run_messages import LIFECYCLE_EVENTS, RUN_EVENTS_TOPIC, cloud_event_of

AT = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)


def told(seq: int = 1, run_id: str = "run-1", kind: EventType = EventType.RUN_ACCEPTED, **data: Any) -> RunEvent:
    at = AT + timedelta(seconds=seq)
    return RunEvent(tenant_id="contoso", run_id=run_id, seq=seq, type=kind, at=at, data=data)


def topic_of(bus: Any) -> ServiceBusRunEvents:
    return ServiceBusRunEvents(BusConnection(BusSettings(connection=bus.server.connection_string)))


async def of_next_session(client: Any, at_most: int) -> list[Any]:
    async with client.get_subscription_receiver(
        RUN_EVENTS_TOPIC, "all", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2
    ) as receiver:
        messages = list(await receiver.receive_messages(at_most, max_wait_time=2))
        for message in messages:
            await receiver.complete_message(message)
        return messages


async def test_each_run_is_a_session_and_its_events_come_in_order(bus: Any) -> None:
    topic = topic_of(bus)
    await topic.publish([told(1), told(2, kind=EventType.PLAN_VETTED)])
    await topic.publish([told(1, "run-2")])
    await topic.publish([told(9, kind=EventType.RUN_SUCCEEDED)])
    async with bus.client() as client:
        found = [await of_next_session(client, 10) for _ in range(2)]
    assert sorted([[m.session_id, m.message_id] for m in session] for session in found) == [
        [["run-1", "run-1.1"], ["run-1", "run-1.2"], ["run-1", "run-1.9"]],
        [["run-2", "run-2.1"]],
    ]


async def test_an_event_is_a_cloud_event_that_its_own_sdk_reads(bus: Any) -> None:
    await topic_of(bus).publish([told(7, kind=EventType.RUN_FAILED, code="agent.failed", cost_micro_usd=12)])
    async with bus.client() as client:
        (message,) = await of_next_session(client, 1)
    read = from_amqp_event(
        AMQPMessage({"content-type": message.content_type}, {}, b"".join(message.body)), JSONFormat()
    )
    assert (read.get_id(), read.get_source(), read.get_specversion()) == ("run-1.7", "urn:livoa:tenant:contoso", "1.0")
    assert (read.get_type(), read.get_subject()) == ("livoa.run.failed", "run-1")
    assert read.get_time() == AT + timedelta(seconds=7)
    assert (read.get_extension("tenantid"), read.get_extension("sequence")) == ("contoso", "7")
    assert read.get_data() == {"code": "agent.failed", "cost_micro_usd": 12}
    properties = {name.decode(): value.decode() for name, value in message.application_properties.items()}
    assert properties == {"tenant_id": "contoso", "type": "livoa.run.failed"}


async def test_a_bus_that_is_away_is_said_to_be(bus: Any) -> None:
    topic = topic_of(bus)
    await bus.server.stop()
    with pytest.raises(LivoaError) as caught:
        await topic.publish([told()])
    assert caught.value.code == "bus.unavailable"


def _filled(kind: EventType) -> RunEvent:
    """An event with every field that its type can have."""
    values: dict[str, Any] = {}
    for name, field in data_model(kind).model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        number = int in kinds or float in kinds
        values[name] = 1 if number else f"canary-{name}"
    return told(kind=kind).model_copy(update={"data": values})


@pytest.mark.parametrize("kind", sorted(LIFECYCLE_EVENTS))
def test_what_is_told_is_ids_codes_and_counts_and_no_words_or_people(kind: EventType) -> None:
    text = json.dumps(cloud_event_of(_filled(kind)))
    for kept in ("message", "approver", "reason", "model", "router", "fallbacks", "codes", "text"):
        assert f"canary-{kept}" not in text
    assert "canary" not in json.dumps(cloud_event_of(told(kind=kind, unheard_of="canary")))


@pytest.mark.parametrize("kind", sorted(set(EventType) - LIFECYCLE_EVENTS))
def test_nothing_else_is_told(kind: EventType) -> None:
    assert kind.value.split(".")[0] in ("plan", "step", "budget", "breaker", "answer")
    with pytest.raises(KeyError):
        cloud_event_of(told(kind=kind))


def test_the_request_that_a_caller_named_is_named_again() -> None:
    accepted = told(**RunEventData(request_id="order-1").model_dump(exclude_none=True))
    assert cloud_event_of(accepted)["data"] == {"request_id": "order-1"}
