"""The adapter over the real SDK and the emulator: what arrives, and what happens when the bus is slow, gone or back again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.adapters.bus_settings import BusSettings
from engine.adapters.service_bus import BusConnection, BusMessage, ServiceBusResults, ServiceBusStepQueue
from engine.domain.bus import StepCommand, StepResult, session_of
from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef
from local_host.queues import EntityOptions
from tests.support.bus_emulator import Emulator

OWN = "step-commands-own"
ENTITIES = {
    "step-commands": EntityOptions(sessions=True, duplicate_window_s=60),
    OWN: EntityOptions(sessions=True),
    "plain": EntityOptions(),
    "step-results": EntityOptions(duplicate_window_s=60),
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def command(tenant_id: str = "contoso", key: str = "run-1/fit", token: int = 1) -> StepCommand:
    deadline_at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    of = {"tenant_id": tenant_id, "run_id": "run-1", "key": key, "token": token, "capability": "calc.fit"}
    return StepCommand(**of, deadline_at=deadline_at, traceparent=TRACE)


async def sent(queue: ServiceBusStepQueue, what: StepCommand) -> None:
    await queue.send(what, session_id=session_of(what.tenant_id, what.key), message_id=f"{what.key}#{what.token}")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    built = Emulator(tmp_path_factory.mktemp("bus"), ENTITIES)
    yield built
    built.close()


@pytest.fixture
async def connection(emulator: Emulator, tmp_path: Path) -> AsyncIterator[BusConnection]:
    file = tmp_path / "connection"
    file.write_text(emulator.connection_string + "\n")
    built = BusConnection(BusSettings(connection_file=file, tenant_queues={"own": OWN}))
    yield built
    await built.close()


def taken(emulator: Emulator, queue: str) -> list:
    """Everything in a queue, in order."""
    found = []
    if emulator.broker.options(queue).sessions:
        while (session := emulator.broker.accept_session(queue)) is not None:
            found += emulator.broker.receive(queue, 100, session)
            for one in found:
                if one.message.session_id == session.session_id:
                    emulator.broker.complete(queue, one.lock_token)
            emulator.broker.release_session(session)
        return found
    found = emulator.broker.receive(queue, 100)
    for one in found:
        emulator.broker.complete(queue, one.lock_token)
    return found


async def test_commands_go_to_the_tenants_queue_and_session_and_the_same_one_only_once(emulator, connection):
    queue = ServiceBusStepQueue(connection)
    await sent(queue, command())
    await sent(queue, command())
    await sent(queue, command("own", "run-2/fit"))
    (shared,), (own,) = taken(emulator, "step-commands"), taken(emulator, OWN)
    assert StepCommand.model_validate_json(shared.message.body) == command()
    assert (shared.message.session_id, shared.message.message_id) == (session_of("contoso", "run-1/fit"), "run-1/fit#1")
    assert (shared.message.subject, shared.message.properties["Diagnostic-Id"]) == ("calc.fit", TRACE)
    assert StepCommand.model_validate_json(own.message.body).tenant_id == "own"


async def test_without_sessions_a_command_has_none(emulator, connection):
    settings = BusSettings(connection=emulator.connection_string, commands_queue="plain", sessions=False)
    plain = BusConnection(settings)
    await sent(ServiceBusStepQueue(plain), command())
    await plain.close()
    assert [one.message.session_id for one in taken(emulator, "plain")] == [None]


async def test_a_result_is_sent_once_and_an_id_that_is_too_long_is_shortened(emulator, connection):
    results = ServiceBusResults(connection)
    ref = PayloadRef(sha256="a" * 64, size_bytes=1)
    for nonce in ("n" * 43, "n" * 43, "m" * 43):
        result = StepResult(
            tenant_id="contoso", run_id="run-1", key="run-1/" + "k" * 200, token=1, nonce=nonce, response_ref=ref
        )
        await results.send(result, traceparent=TRACE)
    found = taken(emulator, "step-results")
    assert [StepResult.model_validate_json(one.message.body).nonce[0] for one in found] == ["n", "m"]
    assert all(len(one.message.message_id) <= 128 for one in found)


async def test_many_at_once_use_one_sender_and_all_arrive(emulator, connection):
    await connection.send("plain", BusMessage(b"first", "first"))
    begun = time.monotonic()
    await asyncio.gather(*(connection.send("plain", BusMessage(b"x", f"m-{n}")) for n in range(100)))
    assert time.monotonic() - begun < 30, "a sender for each message would take half a second each"
    assert len(taken(emulator, "plain")) == 100
    assert len(taken(emulator, "plain")) == 1


async def test_a_bus_that_goes_and_comes_back_is_used_again(emulator, connection):
    await connection.send("plain", BusMessage(b"1", "m-1"))
    emulator.stop()
    try:
        begun = time.monotonic()
        with pytest.raises(LivoaError) as caught:
            await connection.send("plain", BusMessage(b"2", "m-2"))
        assert (caught.value.code, caught.value.status) == ("bus.unavailable", 503)
        with pytest.raises(LivoaError):  # at once, without another try
            await connection.send("plain", BusMessage(b"2", "m-2"))
        assert time.monotonic() - begun < 30
    finally:
        emulator.start()
    await asyncio.sleep(1.1)
    await connection.send("plain", BusMessage(b"3", "m-3"))
    assert [one.message.body for one in taken(emulator, "plain")] == [b"1", b"3"]


async def test_a_bus_that_says_nothing_costs_bounded_time(tmp_path):
    async def silent(reader, writer):
        await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true"
    connection = BusConnection(BusSettings(connection=text))
    with pytest.raises(LivoaError) as caught:
        await asyncio.wait_for(connection.send("plain", BusMessage(b"1", "m"), timeout_s=0.5), 30)
    assert caught.value.code == "bus.unavailable"
    await connection.close()
    server.close()


@pytest.mark.parametrize("text", [None, "nonsense"])
async def test_a_connection_string_that_cannot_be_had_is_the_bus_not_there_and_is_not_shown(tmp_path, text):
    file = tmp_path / "connection"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LivoaError) as caught:
        await BusConnection(BusSettings(connection_file=file)).send("plain", BusMessage(b"1", "m"))
    assert caught.value.code == "bus.unavailable"
    assert "nonsense" not in caught.value.message


async def test_what_comes_while_something_is_on_its_way_goes_together_and_in_order(emulator, connection, monkeypatch):
    await connection.send("plain", BusMessage(b"first", "m-first"))
    taken(emulator, "plain")
    sent_together, schedule = [], emulator.broker.schedule

    def counting(name, messages):
        sent_together.append(len(messages))
        return schedule(name, messages)

    monkeypatch.setattr(emulator.broker, "schedule", counting)
    await asyncio.gather(*(connection.send("plain", BusMessage(b"%d" % n, f"together-{n}")) for n in range(30)))
    assert sum(sent_together) == 30
    assert len(sent_together) <= 5
    assert [one.message.body for one in taken(emulator, "plain")] == [b"%d" % n for n in range(30)]


async def test_messages_of_different_sessions_never_share_a_batch(emulator, connection, monkeypatch):
    batches, schedule = [], emulator.broker.schedule

    def watching(name, messages):
        batches.append({message.session_id for message in messages})
        return schedule(name, messages)

    monkeypatch.setattr(emulator.broker, "schedule", watching)
    messages = [BusMessage(b"x", f"mixed-{n}", session_id=f"contoso--{n % 4}") for n in range(24)]
    await asyncio.gather(*(connection.send("step-commands", message) for message in messages))
    assert {len(batch) for batch in batches} == {1}
    assert len(taken(emulator, "step-commands")) == 24


async def test_a_large_message_fails_for_nobody_else(connection, emulator):
    messages = [BusMessage(b"x", "small-1"), BusMessage(b"x" * 3_000_000, "huge"), BusMessage(b"x", "small-2")]
    await connection.send("plain", BusMessage(b"first", "m-before"))
    taken(emulator, "plain")
    told = await asyncio.gather(*(connection.send("plain", one) for one in messages), return_exceptions=True)
    assert [type(one).__name__ for one in told][1] == "LivoaError"
    arrived = [one.message.message_id for one in taken(emulator, "plain")]
    # What comes at once after a failure is refused without a try, as ever; what was sent before it has arrived.
    assert arrived == [one.message_id for one, error in zip(messages, told, strict=True) if error is None]
    assert "small-1" in arrived


async def test_what_the_sdk_never_promised_to_raise_fails_one_group_and_not_those_that_wait(
    connection, emulator, monkeypatch
):
    await connection.send("plain", BusMessage(b"first", "m-odd-first"))
    (sender,) = connection._senders[asyncio.get_running_loop()].values()
    taken(emulator, "plain")
    send, tried = sender._send, []

    async def odd(messages):
        tried.append(len(messages))
        if len(tried) == 1:
            await asyncio.sleep(0.05)  # so that others come meanwhile
            raise AttributeError("a handler that was shut down")
        await send(messages)

    monkeypatch.setattr(type(sender), "_send", lambda _, messages: odd(messages))
    first = asyncio.create_task(connection.send("plain", BusMessage(b"1", "odd-1")))
    while not tried:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    begun = time.monotonic()
    others = await asyncio.gather(
        *(connection.send("plain", BusMessage(b"x", f"odd-{n}"), timeout_s=5) for n in (2, 3)), return_exceptions=True
    )
    assert time.monotonic() - begun < 4
    with pytest.raises(LivoaError) as caught:
        await first
    assert (caught.value.code, "closed" in caught.value.message) == ("bus.unavailable", False)
    assert [getattr(each, "code", None) for each in others] in ([None, None], ["bus.unavailable"] * 2)
