"""Runs by message, through a real host, the real SDK and the queue between them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.exceptions import OperationTimeoutError

from engine.domain.events import FINAL_EVENTS
from engine.domain.run_messages import LIFECYCLE_EVENTS
from tests.e2e.plans import request_of, search
from tests.e2e.stack import ROOT, Stack, host_with_bus
from tests.support.envelopes import Sender

QUEUE = "run-requests"


@pytest.fixture(scope="module")
def erp() -> Sender:
    return Sender("contoso", "erp")


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory, erp: Sender) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bus")
    catalog = folder / "catalog"
    shutil.copytree(ROOT / "catalog", catalog)
    page = catalog / "tenants" / "contoso.yaml"
    senders = [erp.registered().model_dump(mode="json")]
    page.write_text(yaml.safe_dump(yaml.safe_load(page.read_text()) | {"message_senders": senders}))
    with host_with_bus(folder / "data", catalog) as running:
        yield running


@pytest.fixture(scope="module")
def client(bus: Stack) -> Iterator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(bus.connection_string()) as client:
        yield client


def send(client: ServiceBusClient, *bodies: bytes) -> None:
    with client.get_queue_sender(QUEUE) as sender:
        for number, body in enumerate(bodies):
            sender.send_messages(ServiceBusMessage(body, message_id=f"{time.time_ns()}-{number}"))


def dead_letters(client: ServiceBusClient, count: int) -> list[Any]:
    """The next dead letters, taken out."""
    found: list[Any] = []
    until = time.monotonic() + 60
    with client.get_queue_receiver(QUEUE, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        while len(found) < count and time.monotonic() < until:
            for message in receiver.receive_messages(10, max_wait_time=5):
                receiver.complete_message(message)
                found.append(message)
    return found


def test_a_message_sent_twice_is_one_run_that_its_tenant_sees(
    bus: Stack, client: ServiceBusClient, erp: Sender
) -> None:
    message = erp.sign(request_of(search("a")), datetime.now(UTC), "order-1")
    send(client, message, message)
    contoso = bus.client("contoso")
    until = time.monotonic() + 60
    while not (runs := contoso.get("/api/runs").json["runs"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert [run["submitted_by"] for run in runs] == ["sender:erp"]
    contoso.finished(runs[0]["run_id"])
    assert len(contoso.get("/api/runs").json["runs"]) == 1
    assert bus.client("fabrikam", "bo").get("/api/runs").json["runs"] == []


def test_other_systems_hear_what_became_of_it_in_order_and_the_log_agrees(
    bus: Stack, client: ServiceBusClient, erp: Sender
) -> None:
    send(client, erp.sign(request_of(search("a")), datetime.now(UTC), "order-7"))
    contoso = bus.client("contoso")
    until = time.monotonic() + 90
    told: dict[str, list[dict[str, Any]]] = {}
    ours: list[dict[str, Any]] = []
    while not ours or ours[-1]["type"].removeprefix("livoa.") not in {kind.value for kind in FINAL_EVENTS}:
        assert time.monotonic() < until, told
        for event in next_session(client):
            told.setdefault(event["subject"], []).append(event)
        ours = next((run for run in told.values() if run[0]["data"].get("request_id") == "order-7"), [])
    run_id = ours[0]["subject"]
    logged = contoso.get(f"/api/runs/{run_id}/events", accept="application/json").json["events"]
    lifecycle = [event for event in logged if event["type"] in {kind.value for kind in LIFECYCLE_EVENTS}]
    assert [(int(e["sequence"]), e["type"]) for e in ours] == [(e["seq"], f"livoa.{e['type']}") for e in lifecycle]
    assert ours[0]["type"] == "livoa.run.accepted"
    assert {e["tenantid"] for e in ours} == {"contoso"}


def next_session(client: ServiceBusClient) -> list[dict[str, Any]]:
    """What waits in the next session of the topic's subscription, taken out."""
    try:
        with client.get_subscription_receiver(
            "run-events", "all", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5
        ) as receiver:
            messages = receiver.receive_messages(50, max_wait_time=2)
            for message in messages:
                receiver.complete_message(message)
            return [json.loads(b"".join(message.body)) for message in messages]
    except OperationTimeoutError:
        return []


def test_what_can_never_be_a_run_is_a_dead_letter_with_its_problem_at_the_first_delivery(
    bus: Stack, client: ServiceBusClient, erp: Sender
) -> None:
    before = bus.traces()
    now = datetime.now(UTC)
    forged = Sender("contoso", "erp").sign({"intent": "hello"}, now)
    invalid = erp.sign({"intent": "hello", "constraints": {"deadline_s": "soon"}}, now, "order-2")
    send(client, b"hello", forged, invalid)
    letters = dead_letters(client, 3)
    assert sorted(letter.dead_letter_reason for letter in letters) == [
        "message.malformed",
        "message.signature_invalid",
        "request.invalid",
    ]
    problems = {letter.dead_letter_reason: json.loads(letter.dead_letter_error_description) for letter in letters}
    assert [error["pointer"] for error in problems["request.invalid"]["errors"]] == ["/constraints/deadline_s"]
    assert {letter.delivery_count for letter in letters} == {1}
    assert bus.traces() == before
