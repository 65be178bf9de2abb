"""A message that somebody else holds is made a dead letter with its reason, by the lock alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from azure.functions.meta import Datum
from azure.functions.servicebus import ServiceBusMessageInConverter
from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue

from engine.adapters.run_messages import ServiceBusRunRequests
from engine.domain.bus import RESULTS_QUEUE
from engine.domain.errors import LivoaError
from engine.domain.run_messages import RUN_REQUESTS_QUEUE
from local_host.queue_listener import single_metadata
from local_host.queues import QueueError
from tests.support.world import World
from triggers.bus_run_requests import Received, received_of
from triggers.bus_step_results import take_result


async def dead_letters(bus: Any) -> list[Any]:
    async with (
        bus.client() as client,
        client.get_queue_receiver(RUN_REQUESTS_QUEUE, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver,
    ):
        return list(await receiver.peek_messages(10))


async def test_a_message_that_the_host_holds_becomes_a_dead_letter_with_its_reason(bus: Any) -> None:
    async with bus.client() as client, client.get_queue_sender(RUN_REQUESTS_QUEUE) as sender:
        await sender.send_messages([ServiceBusMessage("poison", message_id="m-1"), ServiceBusMessage("good")])
    first, second = bus.broker.receive(RUN_REQUESTS_QUEUE, 2)
    await ServiceBusRunRequests(bus.client).dead_letter(
        first.lock_token, "request.invalid", '{"code":"request.invalid"}'
    )
    (letter,) = await dead_letters(bus)
    assert (letter.message_id, letter.dead_letter_reason) == ("m-1", "request.invalid")
    assert letter.dead_letter_error_description == '{"code":"request.invalid"}'
    with pytest.raises(QueueError) as caught:
        bus.broker.complete(RUN_REQUESTS_QUEUE, first.lock_token)  # what the host tries next
    assert caught.value.code == "queue.lock_lost"
    bus.broker.complete(RUN_REQUESTS_QUEUE, second.lock_token)
    assert bus.broker.counts(RUN_REQUESTS_QUEUE).active == 0


async def test_a_message_that_is_put_off_comes_back_later_and_knows_how_often(bus: Any) -> None:
    requests = ServiceBusRunRequests(bus.client)
    await requests.postpone(b"an envelope", "m-1", times=1, delay_s=600)
    await requests.postpone(b"an envelope", "m-1.later-1", times=2, delay_s=0)
    counts = bus.broker.counts(RUN_REQUESTS_QUEUE)
    assert (counts.active, counts.scheduled) == (1, 1)
    (held,) = bus.broker.receive(RUN_REQUESTS_QUEUE, 2)
    assert (held.message.body, held.message.message_id) == (b"an envelope", "m-1.later-2")
    assert dict(held.message.properties) == {"postponed": 2}


async def test_opening_a_link_for_it_takes_nothing_out_of_the_queue(bus: Any) -> None:
    async with bus.client() as client, client.get_queue_sender(RUN_REQUESTS_QUEUE) as sender:
        await sender.send_messages([ServiceBusMessage("poison"), ServiceBusMessage("waits")])
    (held,) = bus.broker.receive(RUN_REQUESTS_QUEUE, 1)
    await ServiceBusRunRequests(bus.client).dead_letter(held.lock_token, "x", "y")
    (waits,) = bus.broker.receive(RUN_REQUESTS_QUEUE, 1)
    assert (waits.message.body, waits.delivery_count) == (b"waits", 1)


@pytest.mark.parametrize("lock_token", ["b4a0a31c-9d0f-4b6e-8a34-5f3f1a4b2c11", "not a token", "None"])
async def test_a_lost_lock_and_a_missing_bus_are_one_error(bus: Any, lock_token: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await ServiceBusRunRequests(bus.client).dead_letter(lock_token, "x", "y")
    assert (caught.value.code, caught.value.status) == ("bus.unavailable", 503)


async def test_the_function_sees_what_the_message_and_its_lock_say(bus: Any) -> None:
    await ServiceBusRunRequests(bus.client).postpone(b"an envelope", "m-1", times=4, delay_s=0)
    (held,) = bus.broker.receive(RUN_REQUESTS_QUEUE, 1)
    message = ServiceBusMessageInConverter.decode(
        Datum(held.message.body, "bytes"), trigger_metadata=single_metadata(held)
    )
    assert received_of(message) == Received(b"an envelope", held.lock_token, 1, "m-1.later-4", 4)


async def test_a_message_of_the_results_that_is_none_is_a_dead_letter_after_one_delivery(bus: Any) -> None:
    async with bus.client() as client, client.get_queue_sender(RESULTS_QUEUE) as sender:
        await sender.send_messages(ServiceBusMessage("no result", message_id="r-1"))
    (held,) = bus.broker.receive(RESULTS_QUEUE, 1)
    message = ServiceBusMessageInConverter.decode(
        Datum(held.message.body, "bytes"), trigger_metadata=single_metadata(held)
    )
    world = World()
    deps = replace(world.deps, step_results=ServiceBusRunRequests(bus.client, RESULTS_QUEUE))
    await take_result(message, deps, cast(Any, None))
    async with (
        bus.client() as client,
        client.get_queue_receiver(RESULTS_QUEUE, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver,
    ):
        (letter,) = await receiver.peek_messages(10)
    assert (letter.message_id, letter.dead_letter_reason) == ("r-1", "bus.result_invalid")
    assert bus.broker.counts(RESULTS_QUEUE).active == 0
