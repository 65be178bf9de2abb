"""Service Bus and timer triggers on the embedded host, with messages sent as another process would."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest

from local_host.durable.clock import VirtualClock
from local_host.host import EmbeddedHost, HostOptions

START_AT = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)


class Neighbour:
    """Another process of this machine: knows the data directory only."""

    def __init__(self, http, data_dir):
        path = data_dir / "queue-endpoint.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        endpoint = json.loads(path.read_text())
        self._http, self._url = http, endpoint["url"]
        self._headers = {"Authorization": f"Bearer {endpoint['token']}"}

    async def call(self, method, path, body=None):
        async with self._http.request(method, self._url + path, json=body, headers=self._headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def send(self, queue, **message):
        status, body = await self.call("POST", f"/queues/{queue}/messages", message)
        assert status == 201, body
        return body["message_id"]


async def _log_until(http, host, enough):
    """The app's log once `enough(log)`; the wait is for real work of other tasks, not for a clock."""
    for _ in range(500):
        async with http.get(f"{host.url}/api/log") as response:
            log = json.loads(await response.text())
        if enough(log):
            return log
        await asyncio.sleep(0.01)
    raise AssertionError(f"never enough: {log}")


def _of(log, kind):
    return [entry for entry in log if entry["on"] == kind]


async def test_an_output_binding_reaches_the_trigger_of_the_same_queue(start_host, http):
    host = await start_host("bus_and_timer")
    async with http.post(f"{host.url}/api/orders", data=b"two pints") as response:
        assert await response.text() == "placed"
    log = await _log_until(http, host, lambda log: _of(log, "order"))
    assert _of(log, "order")[0]["body"] == "two pints"


async def test_a_neighbours_message_arrives_with_its_metadata(start_host, http, tmp_path):
    host = await start_host("bus_and_timer")
    neighbour = Neighbour(http, tmp_path / "data")
    await neighbour.send(
        "orders",
        body="hello",
        message_id="m-1",
        content_type="text/plain",
        ttl_s=90,
        properties={"tenant": "contoso", "n": 3},
    )
    order = _of(await _log_until(http, host, lambda log: _of(log, "order")), "order")[0]
    assert order["properties"] == {"tenant": "contoso", "n": 3}
    assert (order["id"], order["delivery"], order["content_type"], order["ttl_s"]) == ("m-1", 1, "text/plain", 90.0)
    assert datetime.fromisoformat(order["enqueued"]).tzinfo is not None


async def test_a_poison_message_is_tried_ten_times_and_then_dead_lettered(start_host, http, tmp_path):
    host = await start_host("bus_and_timer")
    neighbour = Neighbour(http, tmp_path / "data")
    await neighbour.send("orders", body="poison")
    log = await _log_until(http, host, lambda log: len(_of(log, "order")) >= 10)
    status, counts = await neighbour.call("GET", "/queues/orders")
    assert (status, counts["dead_letter"], counts["active"]) == (200, 1, 0)
    assert [entry["delivery"] for entry in _of(log, "order")] == list(range(1, 11))
    _, received = await neighbour.call("POST", "/queues/orders/$DeadLetterQueue/receive", {})
    assert received["messages"][0]["dead_letter_reason"] == "MaxDeliveryCountExceeded"


async def test_a_batch_function_gets_what_is_waiting_in_one_call(start_host, http, tmp_path):
    host = await start_host("bus_and_timer")
    for number in range(5):
        host.broker.send("batches", _message(str(number), f"id-{number}"))
    log = await _log_until(http, host, lambda log: sum(len(entry["bodies"]) for entry in _of(log, "batch")) == 5)
    assert [body for entry in _of(log, "batch") for body in entry["bodies"]] == ["0", "1", "2", "3", "4"]
    assert len(_of(log, "batch")) == 1


async def test_sessions_keep_their_order_and_topics_reach_every_subscription(start_host, http, tmp_path):
    host = await start_host("bus_and_timer")
    neighbour = Neighbour(http, tmp_path / "data")
    for number in range(6):
        await neighbour.send("sessions", body=str(number), session_id=f"s{number % 2}")
    await neighbour.send("news", body="rain")
    log = await _log_until(
        http,
        host,
        lambda log: len(_of(log, "session")) == 6 and _of(log, "radio") and _of(log, "paper") and _of(log, "batch"),
    )
    for session, bodies in (("s0", ["0", "2", "4"]), ("s1", ["1", "3", "5"])):
        assert [e["body"] for e in _of(log, "session") if e["session"] == session] == bodies
    assert _of(log, "batch")[0]["bodies"] == ["from radio"]  # a $return output


async def test_the_queue_endpoint_is_guarded_and_refuses_nonsense(start_host, http, tmp_path):
    await start_host("bus_and_timer")
    neighbour = Neighbour(http, tmp_path / "data")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        async with http.get(neighbour._url + "/queues/orders", headers=headers) as response:
            assert response.status == 401
    for method, path, body, status, code in [
        ("POST", "/queues/nowhere/messages", {"body": "x"}, 404, "queue.not_found"),
        ("POST", "/queues/orders/messages", {}, 400, "queue.bad_message"),
        ("POST", "/queues/orders/messages", {"body": "x", "colour": 1}, 400, "queue.bad_message"),
        ("POST", "/queues/orders/messages", {"body_base64": "§"}, 400, "queue.bad_message"),
        ("POST", "/queues/orders/messages", {"body": "x", "scheduled_at": "2026-01-01"}, 400, "queue.bad_message"),
        ("POST", "/queues/sessions/messages", {"body": "x"}, 400, "queue.bad_message"),
        ("POST", "/queues/orders/settle", {"lock_token": "x", "action": "complete"}, 410, "queue.lock_lost"),
        ("PUT", "/queues/a%20b", {}, 400, "queue.bad_name"),
        ("PUT", "/queues/sessions", {"sessions": False}, 409, "queue.conflict"),
    ]:
        assert (await neighbour.call(method, path, body))[0] == status, (path, body)
        assert (await neighbour.call(method, path, body))[1]["code"] == code


async def test_a_neighbour_can_consume_a_queue_of_its_own(start_host, http, tmp_path):
    await start_host("bus_and_timer")
    neighbour = Neighbour(http, tmp_path / "data")
    assert (await neighbour.call("PUT", "/queues/work", {"sessions": True, "duplicate_window_s": 60}))[0] == 204
    waiting = asyncio.create_task(neighbour.call("POST", "/queues/work/sessions", {"action": "accept", "wait_s": 5}))
    for _ in range(2):  # sent twice, delivered once
        await neighbour.send("work", body={"n": 1}, message_id="m1", session_id="a")
    session = (await waiting)[1]["session"]
    assert session["session_id"] == "a"
    _, received = await neighbour.call("POST", "/queues/work/receive", {"session": session, "limit": 10})
    [message] = received["messages"]
    settle = {"lock_token": message["lock_token"], "action": "renew"}
    assert (await neighbour.call("POST", "/queues/work/settle", settle))[0] == 200
    settle["action"] = "complete"
    assert (await neighbour.call("POST", "/queues/work/settle", settle))[0] == 200
    assert (await neighbour.call("POST", "/queues/work/settle", settle))[0] == 410
    release = {"action": "release", "session": session}
    assert (await neighbour.call("POST", "/queues/work/sessions", release))[0] == 200
    assert (await neighbour.call("GET", "/queues/work"))[1] == {
        "active": 0,
        "scheduled": 0,
        "locked": 0,
        "dead_letter": 0,
    }


async def test_messages_survive_a_restart(tmp_path, http):
    from .conftest import APPS

    async with EmbeddedHost(APPS / "bus_and_timer", tmp_path) as host:
        host.broker.declare("kept")
        host.broker.send("kept", _message("still here"))
    assert not (tmp_path / "queue-endpoint.json").exists()
    async with EmbeddedHost(APPS / "bus_and_timer", tmp_path) as host:
        [locked] = host.broker.receive("kept")
        assert locked.message.body == b"still here"


async def test_timers_run_at_startup_and_on_schedule_in_virtual_time(start_host, http):
    clock = VirtualClock(START_AT)
    host = await start_host("bus_and_timer", HostOptions(clock=clock, drain_s=1.0))
    log = await _log_until(http, host, lambda log: _of(log, "startup"))
    assert _of(log, "timer") == []
    clock.advance_to(START_AT + timedelta(minutes=4))
    log = await _log_until(http, host, lambda log: _of(log, "timer"))
    assert _of(log, "timer") == [{"on": "timer", "past_due": False, "next": "2026-03-01T12:05:00+00:00"}]


async def test_an_occurrence_missed_while_down_is_made_up_for_once(start_host, http, tmp_path):
    from .conftest import APPS

    async with EmbeddedHost(APPS / "bus_and_timer", tmp_path / "data", HostOptions(clock=VirtualClock(START_AT))):
        pass
    later = VirtualClock(START_AT + timedelta(hours=3))
    host = await start_host("bus_and_timer", HostOptions(clock=later, drain_s=1.0))
    log = await _log_until(http, host, lambda log: _of(log, "timer"))
    assert _of(log, "timer") == [{"on": "timer", "past_due": True, "next": "2026-03-01T12:05:00+00:00"}]


async def test_a_scheduled_message_waits_for_its_time(start_host, http):
    clock = VirtualClock(START_AT)
    host = await start_host("bus_and_timer", HostOptions(clock=clock, drain_s=1.0))
    host.broker.send("orders", _message("later", scheduled_at=START_AT + timedelta(minutes=1)))
    host.broker.send("orders", _message("now"))
    await _log_until(http, host, lambda log: _of(log, "order"))
    clock.advance_s(61)
    log = await _log_until(http, host, lambda log: len(_of(log, "order")) == 2)
    assert [entry["body"] for entry in _of(log, "order")] == ["now", "later"]


async def test_admin_can_run_a_timer_and_feed_a_queue(start_host, http):
    host = await start_host("bus_and_timer")
    master = {"x-functions-key": host.keys.master}
    for name, body in (("every_five_minutes", {}), ("on_order", {"input": "by hand"})):
        async with http.post(f"{host.url}/admin/functions/{name}", json=body, headers=master) as response:
            assert response.status == 202
    await _log_until(http, host, lambda log: any(e["body"] == "by hand" for e in _of(log, "order")))


def _message(text, message_id="", scheduled_at=None):
    from local_host.queues import OutgoingMessage

    return OutgoingMessage(text.encode(), message_id=message_id, scheduled_at=scheduled_at)


pytestmark = pytest.mark.timeout(30)
