"""Several changes of queues under one commit: durable together, failing alone, and nobody hears of one before it is on disk."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

from local_host.durable.clock import RealClock
from local_host.queue_commits import Turns
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import EntityOptions, OutgoingMessage, QueueError
from local_host.service_bus.server import ServiceBusServer

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def broker(tmp_path):
    broker = ServiceBusBroker(tmp_path / "queues.sqlite", lambda: NOW)
    broker.declare("orders")
    broker.declare("in-order", EntityOptions(sessions=True))
    yield broker
    broker.close()


def commits_of(broker):
    told = []
    broker._db.set_trace_callback(lambda sql: told.append(sql) if sql == "COMMIT" else None)
    return told


def on_disk(tmp_path):
    with sqlite3.connect(tmp_path / "queues.sqlite") as other:
        return [row[0] for row in other.execute("SELECT message_id FROM message ORDER BY seq")]


async def test_what_changes_in_one_turn_of_the_loop_is_one_commit_and_told_after_it(broker, tmp_path):
    turns, commits, told = Turns(broker.transactions), commits_of(broker), []
    for number in range(20):
        with turns.changes():
            broker.send("orders", OutgoingMessage(b"x", message_id=f"m{number}"))
            assert not turns.is_durable
            turns.when_durable(lambda error: told.append((error, len(on_disk(tmp_path)))))
    assert (on_disk(tmp_path), told) == ([], [])
    await asyncio.sleep(0)
    assert len(commits) == 1
    assert told == [(None, 20)] * 20
    assert turns.is_durable


def test_a_message_wakes_who_waits_for_its_session_and_who_waits_for_any(broker):
    woken = []
    for session_id in ("a", "b", None):
        broker.on_available("in-order", lambda session_id=session_id: woken.append(session_id), session_id)
    broker.send("in-order", OutgoingMessage(b"x", session_id="a"))
    assert woken == ["a", None]
    broker.schedule("in-order", [OutgoingMessage(b"x", session_id=one) for one in ("b", "b", "c")])
    assert woken[2:] == ["b", None]
    lock = broker.accept_session("in-order", "a")
    (locked,) = broker.receive("in-order", 1, lock)
    broker.abandon("in-order", locked.lock_token)
    broker.release_session(lock)
    assert woken[4:] == ["a", None, "a", None]


async def test_one_that_fails_takes_only_itself_back(broker, tmp_path):
    turns = Turns(broker.transactions)
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="kept"))
    with pytest.raises(QueueError), turns.changes():
        broker.schedule("in-order", [OutgoingMessage(b"x", message_id="gone", session_id="s"), OutgoingMessage(b"x")])
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="kept too"))
    await asyncio.sleep(0)
    assert on_disk(tmp_path) == ["kept", "kept too"]


async def test_a_change_that_waits_for_nobody_is_durable_when_it_returns_and_takes_the_others_along(broker, tmp_path):
    turns, told = Turns(broker.transactions), []
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="first"))
        turns.when_durable(lambda error: told.append("first"))
    broker.send("orders", OutgoingMessage(b"x", message_id="second"))
    assert on_disk(tmp_path) == ["first", "second"]
    # What comes now belongs to another commit: the news of the first must not speak for it.
    with turns.changes():
        assert told == ["first"]
        broker.send("orders", OutgoingMessage(b"x", message_id="third"))
        turns.when_durable(lambda error: told.append(("third", on_disk(tmp_path)[-1])))
    await asyncio.sleep(0)
    assert told == ["first", ("third", "third")]


async def test_of_a_lost_commit_everybody_hears_and_the_next_one_is_a_new_one(broker, tmp_path):
    turns, told = Turns(broker.transactions), []
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="lost"))
        turns.when_durable(told.append)
    broker._db.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
    await asyncio.sleep(0)
    assert [type(error) for error in told] == [sqlite3.OperationalError]
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="kept"))
    await asyncio.sleep(0)
    assert on_disk(tmp_path) == ["kept"]


async def test_a_client_is_never_told_of_a_message_that_did_not_reach_the_disk(tmp_path):
    broker = ServiceBusBroker(tmp_path / "queues.sqlite", RealClock().now)
    broker.declare("orders")
    server = ServiceBusServer(broker, RealClock())
    await server.start()
    client = ServiceBusClient.from_connection_string(server.connection_string, retry_total=0)
    try:
        async with client, client.get_queue_sender("orders") as sender:
            await sender.send_messages(ServiceBusMessage("kept", message_id="kept"))
            commit = broker.transactions.commit

            def full(group):
                if group.is_open:
                    broker._db.execute("ROLLBACK")
                commit(group)

            broker.transactions.commit = full
            with pytest.raises(ServiceBusError):
                await sender.send_messages(ServiceBusMessage("lost", message_id="lost"))
            broker.transactions.commit = commit
        assert on_disk(tmp_path) == ["kept"]
    finally:
        await server.stop()
        broker.close()


def full_disk(broker):
    with broker.transactions.one():
        broker._db.execute("ROLLBACK")  # as SQLite does by itself
        raise sqlite3.OperationalError("disk full")


async def test_what_was_said_before_the_same_turn_lost_everything_is_not_taken_for_durable(broker, tmp_path):
    turns, told = Turns(broker.transactions), []

    def turn():
        with turns.changes():
            broker.send("orders", OutgoingMessage(b"x", message_id="lost"))
            turns.when_durable(told.append)
            full_disk(broker)

    with pytest.raises(sqlite3.OperationalError):
        turn()
    with turns.changes():  # whoever hangs up lets go of what was locked, and may be the first to write again
        broker.send("orders", OutgoingMessage(b"x", message_id="kept"))
    turns.commit()
    assert [type(error) for error in told] == [sqlite3.OperationalError]
    assert on_disk(tmp_path) == ["kept"]


async def test_a_change_after_a_loss_in_the_same_turn_is_committed_too(broker, tmp_path):
    turns, told = Turns(broker.transactions), []
    with turns.changes():
        broker.send("orders", OutgoingMessage(b"x", message_id="lost"))
        turns.when_durable(told.append)
        with pytest.raises(sqlite3.OperationalError):
            full_disk(broker)
        broker.send("orders", OutgoingMessage(b"x", message_id="kept"))
    await asyncio.sleep(0)
    assert [type(error) for error in told] == [sqlite3.OperationalError]
    assert on_disk(tmp_path) == ["kept"]


async def test_a_receiver_that_met_a_full_disk_goes_on_when_there_is_room(tmp_path):
    broker = ServiceBusBroker(tmp_path / "queues.sqlite", RealClock().now)
    broker.declare("orders")
    server = ServiceBusServer(broker, RealClock())
    await server.start()
    client = ServiceBusClient.from_connection_string(server.connection_string, retry_backoff_factor=0.1)
    try:
        async with client, client.get_queue_receiver("orders") as receiver:
            assert await receiver.receive_messages(max_wait_time=0.2) == []
            waiting = asyncio.create_task(receiver.receive_messages(max_wait_time=10))
            await asyncio.sleep(0.2)
            broker.send("orders", OutgoingMessage(b"x", message_id="kept"))
            broker._db.execute("PRAGMA query_only = ON")  # no room: locking the message fails
            await asyncio.sleep(0.3)
            broker._db.execute("PRAGMA query_only = OFF")
            assert [message.message_id for message in await waiting] == ["kept"]
    finally:
        await server.stop()
        broker.close()


async def test_hanging_up_while_the_disk_is_full_goes_on_to_its_end(tmp_path):
    broker = ServiceBusBroker(tmp_path / "queues.sqlite", RealClock().now)
    broker.declare("in-order", EntityOptions(sessions=True))
    server = ServiceBusServer(broker, RealClock())
    await server.start()
    client = ServiceBusClient.from_connection_string(server.connection_string)
    try:
        broker.send("in-order", OutgoingMessage(b"x", session_id="a"))
        async with client, client.get_queue_receiver("in-order", session_id="a"):
            (connection,) = server._open
            broker._db.execute("PRAGMA query_only = ON")  # the session cannot be given back
            connection.cancel()
            await asyncio.wait({connection}, timeout=5)
            broker._db.execute("PRAGMA query_only = OFF")
        assert connection.done()
        assert connection.exception() is None
    finally:
        await server.stop()
        broker.close()
