"""Service Bus clients and the functions of one host meet in the same queues, and what was sent survives the host."""

from __future__ import annotations

import asyncio
import json

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from local_host.host import HostOptions
from local_host.queue_extras import ServiceBusBroker
from local_host.service_bus.server import CONNECTION_FILE

OPTIONS = HostOptions(drain_s=2.0, amqp_port=0)


def connection_string(tmp_path):
    file = tmp_path / "data" / CONNECTION_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text().strip()


async def test_a_message_that_the_sdk_sends_reaches_the_trigger(start_host, http, tmp_path):
    host = await start_host("bus_and_timer", OPTIONS)
    client = ServiceBusClient.from_connection_string(connection_string(tmp_path))
    async with client, client.get_queue_sender("orders") as sender:
        await sender.send_messages(ServiceBusMessage("one pint", message_id="m-1"))
    for _ in range(500):
        async with http.get(f"{host.url}/api/log") as response:
            log = [entry for entry in json.loads(await response.text()) if entry["on"] == "order"]
        if log:
            break
        await asyncio.sleep(0.01)
    assert [entry["body"] for entry in log] == ["one pint"]


async def test_what_was_sent_is_there_after_a_restart(start_host, tmp_path):
    host = await start_host("bus_and_timer", OPTIONS)
    host.broker.declare("kept")
    client = ServiceBusClient.from_connection_string(connection_string(tmp_path))
    async with client, client.get_queue_sender("kept") as sender:
        await sender.send_messages(ServiceBusMessage("still here"))
    await host.stop()
    assert not (tmp_path / "data" / CONNECTION_FILE).exists()
    again = ServiceBusBroker(tmp_path / "data" / "queues.sqlite", OPTIONS.clock.now)
    assert [message.message.body for message in again.receive("kept")] == [b"still here"]
    again.close()
