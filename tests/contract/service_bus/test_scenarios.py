"""What the SDK is used for, against the emulator or a real namespace: one list for both."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import ServiceBusClient as AsyncServiceBusClient
from azure.servicebus.amqp import AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    SessionCannotBeLockedError,
)

from tests.contract.service_bus.conftest import DUPLICATES, EXPIRY, LOCK_S, QUEUE, SESSIONS, TOPIC, Namespace

WAIT_S = 30
"""A message that is there is received at once; opening a link takes seconds on a busy machine."""


@pytest.fixture(scope="module")
def sender(namespace: Namespace) -> Iterator[Any]:
    with namespace.client.get_queue_sender(QUEUE) as sender:
        yield sender


@pytest.fixture(scope="module")
def receiver(namespace: Namespace) -> Iterator[Any]:
    with namespace.client.get_queue_receiver(QUEUE) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def dead(namespace: Namespace) -> Iterator[Any]:
    with namespace.client.get_queue_receiver(QUEUE, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _empty(receiver: Any, dead: Any) -> Iterator[None]:
    yield
    for each in (receiver, dead):
        while found := each.receive_messages(50, max_wait_time=0.3):
            for message in found:
                each.complete_message(message)


def received(receiver: Any, count: int = 1) -> list[Any]:
    found: list[Any] = []
    give_up_at = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < give_up_at:
        found += receiver.receive_messages(count - len(found), max_wait_time=1)
    return found


def test_what_was_sent_is_received_as_it_was(sender: Any, receiver: Any) -> None:
    sent = ServiceBusMessage(
        b"\x00body",
        message_id="id-1",
        content_type="application/json",
        correlation_id="c-1",
        subject="s",
        to="t",
        reply_to="r",
        application_properties={"text": "ä", "number": 7, "yes": True, "half": 0.5},
    )
    sender.send_messages(sent)
    (message,) = received(receiver)
    assert b"".join(message.body) == b"\x00body"
    assert (message.message_id, message.content_type, message.correlation_id) == ("id-1", "application/json", "c-1")
    assert (message.subject, message.to, message.reply_to) == ("s", "t", "r")
    assert message.application_properties == {b"text": "ä".encode(), b"number": 7, b"yes": True, b"half": 0.5}
    assert message.delivery_count == 0
    assert message.locked_until_utc > datetime.now(UTC)
    assert abs((message.enqueued_time_utc - datetime.now(UTC)).total_seconds()) < 30
    receiver.complete_message(message)
    assert receiver.receive_messages(1, max_wait_time=0.5) == []


def test_a_message_is_settled_once(sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("once"))
    (message,) = received(receiver)
    receiver.complete_message(message)
    with pytest.raises(MessageAlreadySettled):
        receiver.complete_message(message)


def test_a_list_and_a_batch_arrive_in_order(sender: Any, receiver: Any) -> None:
    batch = sender.create_message_batch()
    for index in range(5):
        batch.add_message(ServiceBusMessage(f"b{index}"))
    sender.send_messages(batch)
    sender.send_messages([ServiceBusMessage(f"l{index}") for index in range(5)])
    found = received(receiver, 10)
    assert [str(message) for message in found] == [f"{kind}{index}" for kind in "bl" for index in range(5)]
    for message in found:
        receiver.complete_message(message)


def test_an_abandoned_message_comes_again_and_is_counted_until_it_is_dead(
    sender: Any, receiver: Any, dead: Any
) -> None:
    sender.send_messages(ServiceBusMessage("again"))
    for count in range(3):
        (message,) = received(receiver)
        assert message.delivery_count == count
        receiver.abandon_message(message)
    (message,) = received(dead)
    assert message.dead_letter_reason == "MaxDeliveryCountExceeded"
    dead.complete_message(message)


def test_a_dead_letter_says_why(sender: Any, receiver: Any, dead: Any) -> None:
    sender.send_messages(ServiceBusMessage("bad", application_properties={"k": "v"}))
    (message,) = received(receiver)
    receiver.dead_letter_message(message, reason="Poison", error_description="it cannot be read")
    (seen,) = dead.peek_messages(5)
    assert (seen.body_type, seen.dead_letter_reason) == (AmqpMessageBodyType.DATA, "Poison")
    (message,) = received(dead)
    assert (message.dead_letter_reason, message.dead_letter_error_description) == ("Poison", "it cannot be read")
    assert message.application_properties[b"k"] == b"v"
    dead.complete_message(message)


def test_a_lock_that_ran_out_is_lost_and_the_message_comes_again(sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("slow"))
    (message,) = received(receiver)
    time.sleep(LOCK_S + 0.3)
    with pytest.raises(MessageLockLostError):
        receiver.complete_message(message)
    (again,) = received(receiver)
    assert again.delivery_count == 1
    receiver.complete_message(again)


def test_a_renewed_lock_lasts(sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("renewed"))
    (message,) = received(receiver)
    before = message.locked_until_utc
    time.sleep(1)
    assert receiver.renew_message_lock(message) > before
    receiver.complete_message(message)


def test_the_renewer_of_the_sdk_keeps_a_lock(sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("long"))
    (message,) = received(receiver)
    with AutoLockRenewer() as renewer:
        renewer.register(receiver, message, max_lock_renewal_duration=30)
        time.sleep(LOCK_S + 2)
        receiver.complete_message(message)


def test_a_scheduled_message_comes_when_its_time_has_come(sender: Any, receiver: Any) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    (number,) = sender.schedule_messages(ServiceBusMessage("later"), at)
    assert number > 0
    assert receiver.receive_messages(1, max_wait_time=0.5) == []
    (message,) = received(receiver)
    assert message.sequence_number == number
    assert datetime.now(UTC) >= at
    receiver.complete_message(message)


def test_a_scheduled_message_can_be_taken_back(sender: Any, receiver: Any) -> None:
    numbers = sender.schedule_messages(
        [ServiceBusMessage("a"), ServiceBusMessage("b")], datetime.now(UTC) + timedelta(seconds=1)
    )
    sender.cancel_scheduled_messages(numbers)
    assert receiver.receive_messages(2, max_wait_time=2) == []


def test_a_deferred_message_is_received_by_its_number_alone(sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("aside"))
    (message,) = received(receiver)
    number = message.sequence_number
    receiver.defer_message(message)
    assert receiver.receive_messages(1, max_wait_time=1) == []
    (deferred,) = receiver.receive_deferred_messages([number])
    assert str(deferred) == "aside"
    receiver.complete_message(deferred)
    with pytest.raises(MessageNotFoundError):
        receiver.receive_deferred_messages([number])


def test_looking_at_messages_does_not_touch_them(sender: Any, receiver: Any) -> None:
    sender.send_messages([ServiceBusMessage(f"p{index}") for index in range(3)])
    seen = receiver.peek_messages(2, sequence_number=1)
    assert [str(message) for message in seen] == ["p0", "p1"]
    found = received(receiver, 3)
    assert [message.delivery_count for message in found] == [0, 0, 0]
    for message in found:
        receiver.complete_message(message)


def test_receive_and_delete_leaves_nothing(namespace: Namespace, sender: Any, receiver: Any) -> None:
    sender.send_messages(ServiceBusMessage("gone"))
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with namespace.client.get_queue_receiver(QUEUE, receive_mode=mode) as taker:
        assert [str(message) for message in taker.receive_messages(1, max_wait_time=WAIT_S)] == ["gone"]
    assert receiver.receive_messages(1, max_wait_time=0.5) == []


def test_a_message_that_outlived_its_time_is_dead(namespace: Namespace) -> None:
    with namespace.client.get_queue_sender(EXPIRY) as sender:
        sender.send_messages(ServiceBusMessage("short", time_to_live=timedelta(seconds=1)))
    time.sleep(1.5)
    with namespace.client.get_queue_receiver(EXPIRY) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
    with namespace.client.get_queue_receiver(EXPIRY, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as dead:
        (message,) = received(dead)
        assert message.dead_letter_reason == "TTLExpiredException"
        dead.complete_message(message)


def test_a_topic_copies_to_its_subscriptions(namespace: Namespace) -> None:
    with namespace.client.get_topic_sender(TOPIC) as sender:
        sender.send_messages(ServiceBusMessage("news"))
    for name in ("one", "two"):
        with namespace.client.get_subscription_receiver(TOPIC, name) as receiver:
            (message,) = received(receiver)
            assert str(message) == "news"
            receiver.complete_message(message)


def test_a_message_sent_twice_within_the_window_arrives_once(namespace: Namespace) -> None:
    key = uuid.uuid4().hex
    with namespace.client.get_queue_sender(DUPLICATES) as sender:
        for _ in range(2):
            sender.send_messages(ServiceBusMessage("same", message_id=key))
    with namespace.client.get_queue_receiver(DUPLICATES) as receiver:
        found = received(receiver, 2)
        assert [message.message_id for message in found] == [key]
        receiver.complete_message(found[0])


def test_a_large_body_takes_many_frames(sender: Any, receiver: Any) -> None:
    body = bytes(range(256)) * 800
    sender.send_messages(ServiceBusMessage(body))
    (message,) = received(receiver)
    assert b"".join(message.body) == body
    receiver.complete_message(message)


def test_a_consumer_that_dies_leaves_its_message_locked_until_its_time_is_up(
    namespace: Namespace, sender: Any, receiver: Any
) -> None:
    sender.send_messages(ServiceBusMessage("orphan"))
    other = ServiceBusClient.from_connection_string(namespace.connection_string)
    with other, other.get_queue_receiver(QUEUE) as dying:
        assert len(dying.receive_messages(1, max_wait_time=WAIT_S)) == 1
    assert receiver.receive_messages(1, max_wait_time=1) == []
    time.sleep(LOCK_S - 1)
    (message,) = received(receiver)
    assert message.delivery_count == 1
    receiver.complete_message(message)


def test_an_entity_that_is_not_there_says_so(namespace: Namespace) -> None:
    with pytest.raises(MessagingEntityNotFoundError), namespace.client.get_queue_sender("livoa-none") as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with pytest.raises(MessagingEntityNotFoundError), namespace.client.get_queue_receiver("livoa-none") as receiver:
        receiver.receive_messages(1, max_wait_time=1)


def test_without_the_key_nobody_gets_in(namespace: Namespace) -> None:
    forged = namespace.connection_string.replace("SharedAccessKey=", "SharedAccessKey=x")
    client = ServiceBusClient.from_connection_string(forged, retry_total=0)
    with client, pytest.raises(ServiceBusAuthenticationError), client.get_queue_sender(QUEUE) as sender:
        sender.send_messages(ServiceBusMessage("x"))


def test_a_session_is_one_receivers_and_in_order(namespace: Namespace) -> None:
    name = uuid.uuid4().hex
    with namespace.client.get_queue_sender(SESSIONS) as sender:
        sender.send_messages([ServiceBusMessage(f"{index}", session_id=name) for index in range(3)])
    with namespace.client.get_queue_receiver(SESSIONS, session_id=name) as receiver:
        assert receiver.session.session_id == name
        before = receiver.session.locked_until_utc
        found = received(receiver, 3)
        assert [str(message) for message in found] == ["0", "1", "2"]
        other = ServiceBusClient.from_connection_string(namespace.connection_string, retry_total=0)
        with other, pytest.raises(SessionCannotBeLockedError):
            other.get_queue_receiver(SESSIONS, session_id=name).receive_messages(1, max_wait_time=1)
        assert receiver.session.renew_lock() >= before
        assert receiver.session.get_state() is None
        receiver.session.set_state("half way")
        for message in found:
            receiver.complete_message(message)
    with namespace.client.get_queue_receiver(SESSIONS, session_id=name) as receiver:
        assert receiver.session.get_state() == b"half way"
        receiver.session.set_state(None)
        assert receiver.session.get_state() is None


def test_the_next_session_is_one_that_has_something(namespace: Namespace) -> None:
    name = uuid.uuid4().hex
    early = namespace.client.get_queue_receiver(SESSIONS, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
    with pytest.raises(OperationTimeoutError):
        early.receive_messages(1)
    with namespace.client.get_queue_sender(SESSIONS) as sender:
        sender.send_messages(ServiceBusMessage("mine", session_id=name))
    with namespace.client.get_queue_receiver(SESSIONS, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
        assert receiver.session.session_id == name
        (message,) = received(receiver)
        receiver.complete_message(message)


async def test_the_asynchronous_client_does_the_same(namespace: Namespace) -> None:
    client = AsyncServiceBusClient.from_connection_string(namespace.connection_string)
    async with client:
        sender, receiver = client.get_queue_sender(DUPLICATES), client.get_queue_receiver(DUPLICATES)
        async with sender, receiver:
            await sender.send_messages([ServiceBusMessage(f"a{index}") for index in range(3)])
            found = await receiver.receive_messages(3, max_wait_time=WAIT_S)
            while len(found) < 3:
                found += await receiver.receive_messages(3 - len(found), max_wait_time=WAIT_S)
            assert [str(message) for message in found] == ["a0", "a1", "a2"]
            await receiver.renew_message_lock(found[0])
            for message in found:
                await receiver.complete_message(message)
