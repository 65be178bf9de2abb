"""The emulator's edges: whoever sends what is no AMQP is hung up on, and nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from local_host.durable.clock import RealClock
from local_host.errors import HostError
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import EntityOptions, OutgoingMessage, QueueError
from local_host.service_bus.access import SharedKey
from local_host.service_bus.addresses import Address, parse_address
from local_host.service_bus.codec import DecodeError, Described, Symbol, UInt, ULong, encode
from local_host.service_bus.entities import FILE, declare_entities
from local_host.service_bus.frames import AMQP_HEADER, SASL_HEADER, encode_frame, terminus
from local_host.service_bus.messages import Sections, incoming
from local_host.service_bus.server import ServiceBusServer, shared_secret

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServiceBusServer]:
    broker = ServiceBusBroker(tmp_path / "q.sqlite", RealClock().now)
    broker.declare("q")
    server = ServiceBusServer(broker, RealClock())
    await server.start()
    yield server
    await server.stop()
    broker.close()


async def exchange(server: ServiceBusServer, data: bytes) -> bytes:
    """Send bytes, hang up our side, and read all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


HELLO = AMQP_HEADER + encode_frame(0, "open", container_id="c")


async def test_a_peer_that_speaks_something_else_is_hung_up_on(server: ServiceBusServer) -> None:
    answer = await exchange(server, b"GET / HTTP/1.1\r\n\r\n")
    assert answer.startswith(AMQP_HEADER)
    assert b"amqp:decode-error" in answer


@pytest.mark.parametrize(
    "data",
    [
        HELLO + b"\xff\xff\xff\xff\x02\x00\x00\x00",
        HELLO + b"\x00\x00\x00\x04",
        HELLO + encode_frame(0, "flow", incoming_window=UInt(1)),
        HELLO + encode_frame(200, "begin", next_outgoing_id=UInt(0)) * 2,
        SASL_HEADER + encode_frame(0, "open", container_id="c"),
    ],
    ids=["a huge frame", "a frame without a header", "no session", "a session twice", "no SASL"],
)
async def test_what_breaks_the_protocol_ends_the_connection_with_a_reason(
    server: ServiceBusServer, data: bytes
) -> None:
    answer = await exchange(server, data)
    assert b"amqp:decode-error" in answer
    assert await exchange(server, HELLO + encode_frame(0, "close")), "the others are served"


@pytest.mark.parametrize("seed", range(100))
async def test_random_bytes_after_the_handshake_never_stop_the_server(server: ServiceBusServer, seed: int) -> None:
    chance = random.Random(seed)
    good = [
        encode_frame(0, "begin", next_outgoing_id=UInt(0), incoming_window=UInt(9), outgoing_window=UInt(9)),
        encode_frame(0, "attach", name="l", handle=UInt(0), role=False, target=terminus(0x29, "q")),
        encode_frame(0, "flow", handle=UInt(0), link_credit=UInt(5)),
        encode_frame(0, "transfer", b"\x00Su\xa0\x01x", handle=UInt(0), delivery_id=UInt(0)),
        encode_frame(0, "disposition", role=True, first=UInt(0), last=UInt(2**32 - 1), settled=True),
        encode_frame(0, "detach", handle=UInt(0)),
    ]
    data = bytearray(b"".join(chance.choices(good, k=8)))
    for _ in range(chance.randint(0, 5)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    await exchange(server, HELLO + bytes(data))
    assert await exchange(server, HELLO + encode_frame(0, "close"))


async def test_nobody_reaches_a_queue_without_a_token(server: ServiceBusServer) -> None:
    begin = encode_frame(0, "begin", next_outgoing_id=UInt(0), incoming_window=UInt(9), outgoing_window=UInt(9))
    for role, field in ((False, "target"), (True, "source")):
        attach = encode_frame(
            0,
            "attach",
            name="l",
            handle=UInt(0),
            role=role,
            **{field: terminus(0x29 if field == "target" else 0x28, "q")},
        )
        answer = await exchange(server, HELLO + begin + attach)
        assert b"amqp:unauthorized-access" in answer
        assert b"no valid token" in answer


def sas(key: SharedKey, expiry: int, *, uri: str = "sb://127.0.0.1/q", name: str | None = None) -> str:
    quoted = quote(uri, safe="")
    made = hmac.new(key.secret.encode(), f"{quoted}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(made), safe="")
    return f"SharedAccessSignature sr={quoted}&sig={signature}&se={expiry}&skn={name or key.name}"


def test_a_token_opens_the_namespace_until_it_expires() -> None:
    key, soon = SharedKey("Root", "secret"), int(NOW.timestamp()) + 60
    assert key.valid_until(sas(key, soon), NOW) == datetime.fromtimestamp(soon, UTC)
    assert key.valid_until(sas(key, soon - 61), NOW) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token.replace("sig=", "sig=a"),
        lambda token: token.replace("se=", "se=9"),
        lambda token: token.replace("skn=Root", "skn=Other"),
        lambda token: token.replace("sr=", "sr=x"),
        lambda token: token.removeprefix("SharedAccessSignature "),
        lambda token: "SharedAccessSignature " + "a" * 10_000,
        lambda token: "",
    ],
)
def test_a_token_that_was_changed_opens_nothing(change) -> None:
    key = SharedKey("Root", "secret")
    assert key.valid_until(change(sas(key, int(NOW.timestamp()) + 60)), NOW) is None
    assert "secret" not in repr(key)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$cbs", Address("cbs", "")),
        ("q", Address("entity", "q")),
        ("amqps://127.0.0.1:5672/q", Address("entity", "q")),
        ("q/$management", Address("management", "q")),
        ("t/subscriptions/s/$deadletterqueue", Address("entity", "t/Subscriptions/s/$DeadLetterQueue")),
        ("sb://h/t/Subscriptions/s/$Management", Address("management", "t/Subscriptions/s")),
    ],
)
def test_addresses_are_read_in_every_form(text: str, found: Address) -> None:
    assert parse_address(text) == found


def test_the_key_of_a_data_directory_stays(tmp_path: Path) -> None:
    assert shared_secret(tmp_path) == shared_secret(tmp_path)
    assert (tmp_path / "service-bus.key").stat().st_mode & 0o777 == 0o600


def test_the_entities_of_a_file_are_declared(tmp_path: Path) -> None:
    broker = ServiceBusBroker(tmp_path / "q.sqlite", lambda: NOW)
    queues = [{"name": "a", "sessions": True, "lock_s": 7}]
    topics = [{"name": "t", "subscriptions": [{"name": "s"}]}]
    (tmp_path / FILE).write_text(json.dumps({"queues": queues, "topics": topics}))
    declare_entities(tmp_path, broker)
    assert broker.options("a") == EntityOptions(sessions=True, lock_s=7)
    assert broker.is_topic("t")
    assert broker.options("t/Subscriptions/s") == EntityOptions()
    broker.close()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", FILE),
        ('{"queue": []}', FILE),
        ('{"queues": {}}', f"{FILE}#/queues"),
        ('{"queues": [{"lock_s": 3}]}', f"{FILE}#/queues/0"),
        ('{"queues": [{"name": "a", "lock": 3}]}', f"{FILE}#/queues/0"),
        ('{"queues": [{"name": "a", "lock_s": 3000}]}', f"{FILE}#/queues/0"),
        ('{"topics": [{"name": "t", "x": 1}]}', f"{FILE}#/topics/0"),
        ('{"topics": [{"name": "t", "subscriptions": [{}]}]}', f"{FILE}#/topics/0/subscriptions/0"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, where: str) -> None:
    broker = ServiceBusBroker(tmp_path / "q.sqlite", lambda: NOW)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(HostError) as caught:
        declare_entities(tmp_path, broker)
    assert (caught.value.code, caught.value.where) == ("host.bad_entities", where)
    broker.close()


def test_the_settings_of_the_repository_are_good(tmp_path: Path) -> None:
    broker = ServiceBusBroker(tmp_path / "q.sqlite", lambda: NOW)
    declare_entities(Path(__file__).parents[3], broker)
    assert broker.options("step-commands").sessions
    broker.close()


@pytest.mark.parametrize("value", [2**40, "text", None], ids=str)
def test_a_data_section_holds_bytes_and_no_number_becomes_so_many(value: object) -> None:
    given = ULong(value) if isinstance(value, int) else value
    with pytest.raises(DecodeError):
        Sections(encode(Described(ULong(0x75), given)))


def test_a_property_that_could_not_be_delivered_is_refused() -> None:
    payload = encode(Described(ULong(0x74), {"n": ULong(2**63)})) + encode(Described(ULong(0x75), b"x"))
    with pytest.raises(QueueError, match="no long"):
        incoming(payload, None)


async def test_a_client_that_gives_up_waiting_takes_no_session(server: ServiceBusServer) -> None:
    broker = server._broker
    broker.declare("s", EntityOptions(sessions=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    session = encode_frame(0, "begin", next_outgoing_id=UInt(0), incoming_window=UInt(9), outgoing_window=UInt(9))
    put = (
        encode_frame(0, "attach", name="o", handle=UInt(0), role=False, target=terminus(0x29, "$cbs"))
        + encode_frame(0, "attach", name="i", handle=UInt(1), role=True, source=terminus(0x28, "$cbs"))
        + encode_frame(0, "flow", handle=UInt(1), link_credit=UInt(9))
        + encode_frame(0, "transfer", _token(server), handle=UInt(0), delivery_id=UInt(0))
    )
    source = terminus(0x28, "s", {Symbol("com.microsoft:session-filter"): None})
    wait = encode_frame(0, "attach", name="w", handle=UInt(2), role=True, source=source)
    writer.write(HELLO + session + put + wait + encode_frame(0, "detach", handle=UInt(2), closed=True))
    writer.write(encode_frame(0, "attach", name="z", handle=UInt(3), role=True, source=terminus(0x28, "none")))
    await asyncio.wait_for(reader.readuntil(b"amqp:not-found"), 10)
    broker.send("s", OutgoingMessage(b"x", session_id="a"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert broker.accept_session("s", "a") is not None, "nobody has it"
    writer.close()


def _token(server: ServiceBusServer) -> bytes:
    token = sas(server._key, int(RealClock().now().timestamp()) + 600)
    return b"".join(
        encode(Described(ULong(code), value))
        for code, value in ((0x73, ["m"]), (0x74, {"operation": "put-token"}), (0x77, token))
    )
