"""One TCP connection of a client: headers, SASL, open, and the frames of its sessions until somebody closes.

A peer that sends what is no AMQP is told so and hung up on; nothing it sends stops the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from datetime import UTC, datetime
from typing import Any

from local_host.durable.clock import Clock
from local_host.queue_commits import Turns
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import SessionLock
from local_host.service_bus.access import SharedKey
from local_host.service_bus.codec import DecodeError, Int, Symbol, SymbolArray, UByte, UInt, UShort
from local_host.service_bus.frames import (
    AMQP_HEADER,
    MAX_FRAME_BYTES,
    MIN_FRAME_BYTES,
    SASL_HEADER,
    Frame,
    decode_frame,
    encode_frame,
    error,
    keep_alive,
)
from local_host.service_bus.links import EntityLink
from local_host.service_bus.messages import Sections, reply
from local_host.service_bus.session import Session

_LOG = logging.getLogger("local_host.service_bus")
MAX_SESSIONS = 64
HANDSHAKE_S = 20.0
"""How long a peer may take until it has opened the connection."""
_IDLE_S = 240.0
"""Without a frame for so long a peer is taken for gone, as in Service Bus."""
_READ_BYTES = 64 * 1024
_NEVER = datetime.min.replace(tzinfo=UTC)


class Connection:
    """A client, from its first byte to its last."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        broker: ServiceBusBroker,
        key: SharedKey,
        clock: Clock,
        turns: Turns,
    ) -> None:
        self.broker = broker
        self.changes = turns.changes
        self.max_frame_bytes = 4_096
        self._reader, self._writer = reader, writer
        self._key, self._clock, self._turns = key, clock, turns
        self._read_bytes, self._held = bytearray(), bytearray()
        self._sessions: dict[int, Session] = {}
        self._authorised_until_at = _NEVER
        self._heart: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        """See ``Peer``."""
        return self._clock.now()

    async def serve(self) -> None:
        """Serve the client until the connection ends."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._shake_hands()
            while await self._serve_some():
                await self._writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        except DecodeError as err:
            self._say_close("amqp:decode-error", str(err))
        except Exception:
            _LOG.exception("a connection of the Service Bus emulator failed")
            self._say_close("amqp:internal-error", "the emulator failed; see its log")
        finally:
            await self._hang_up()

    def _say_close(self, condition: str, words: str) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.write(0, "close", error=error(condition, words))

    async def _hang_up(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
        with self.changes():
            for session in self._sessions.values():
                session.close()
        self._sessions.clear()
        self._turns.commit()  # what is held is said before the end
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    # -- opening

    async def _shake_hands(self) -> None:
        header = await self._reader.readexactly(8)
        if header == SASL_HEADER:
            await self._sasl()
            header = await self._reader.readexactly(8)
        self._writer.write(AMQP_HEADER)
        if header != AMQP_HEADER:
            raise DecodeError("the peer does not speak AMQP 1.0")
        frame = await self._read()
        if frame.performative is None or frame.performative.name != "open":
            raise DecodeError("a connection begins with an open")
        asked = frame.performative["max_frame_size"] or MAX_FRAME_BYTES
        self.max_frame_bytes = max(512, min(asked, MAX_FRAME_BYTES))
        self.write(
            0,
            "open",
            container_id=uuid.uuid4().hex,
            max_frame_size=UInt(MAX_FRAME_BYTES),
            channel_max=UShort(MAX_SESSIONS - 1),
            idle_timeout=UInt(int(_IDLE_S * 1_000)),
        )
        if frame.performative["idle_timeout"]:
            self._heart = asyncio.get_running_loop().create_task(self._beat(frame.performative["idle_timeout"] / 2_000))

    async def _sasl(self) -> None:
        """Anybody may connect; what a connection may do is decided by the token that it puts."""
        self._writer.write(SASL_HEADER)
        mechanisms = SymbolArray((Symbol("ANONYMOUS"), Symbol("MSSBCBS")))
        self._writer.write(encode_frame(0, "sasl_mechanisms", kind=1, sasl_server_mechanisms=mechanisms))
        frame = await self._read()
        if frame.performative is None or frame.performative.name != "sasl_init":
            raise DecodeError("SASL begins with an init")
        self._writer.write(encode_frame(0, "sasl_outcome", kind=1, code=UByte(0)))

    async def _beat(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(max(every_s, 0.5))
            self._writer.write(keep_alive())

    async def _read(self) -> Frame:
        head = await self._reader.readexactly(4)
        size = _checked(int.from_bytes(head, "big"))
        return decode_frame(head + await self._reader.readexactly(size - 4))

    # -- frames

    async def _serve_some(self) -> bool:
        """What has arrived. False when the connection is to end."""
        async with asyncio.timeout(_IDLE_S):
            arrived = await self._reader.read(_READ_BYTES)
        self._read_bytes += arrived
        with self.changes():
            return self._frames() and bool(arrived)

    def _frames(self) -> bool:
        """The frames that are whole. False when the connection is to end."""
        data, at = self._read_bytes, 0
        while len(data) - at >= 4:
            size = _checked(int.from_bytes(data[at : at + 4], "big"))
            if len(data) - at < size:
                break
            if not self._take(decode_frame(bytes(data[at : at + size]))):
                return False
            at += size
        del data[:at]
        return True

    def _take(self, frame: Frame) -> bool:
        """One frame. False when the connection is to end."""
        found = frame.performative
        if found is None:
            return True
        if found.name == "close":
            self.write(0, "close")
            return False
        if found.name == "begin":
            self._begin(frame)
            return True
        session = self._sessions.get(frame.channel)
        if session is None:
            raise DecodeError(f"{found.name} on a channel without a session")
        self._in_session(session, frame)
        return True

    def _begin(self, frame: Frame) -> None:
        assert frame.performative is not None
        if frame.channel in self._sessions or len(self._sessions) >= MAX_SESSIONS:
            raise DecodeError("no session can begin on this channel")
        session = self._sessions[frame.channel] = Session(self, frame.channel)
        session.begin(frame.performative)

    def _in_session(self, session: Session, frame: Frame) -> None:
        found = frame.performative
        assert found is not None
        match found.name:
            case "attach":
                session.attach(found)
            case "flow":
                session.flow(found)
            case "transfer":
                session.transfer(found, frame.payload)
            case "disposition":
                session.disposition(found)
            case "detach":
                session.client_detached(found)
            case "end":
                session.close()
                del self._sessions[session.channel]
                self.write(session.channel, "end")
            case _:
                raise DecodeError(f"{found.name} has no place here")

    def write(self, channel: int, performative: str, payload: bytes = b"", /, **fields: Any) -> None:
        """See ``Peer``. What is written is bounded by what the client gave credit for."""
        if self._writer.is_closing():
            return
        data = encode_frame(channel, performative, payload, **fields)
        if self._turns.is_durable:
            self._writer.write(data)
            return
        if not self._held:
            self._turns.when_durable(self._say_held)
        self._held += data

    def _say_held(self, error: Exception | None) -> None:
        """Say what waited for a commit. Where that failed nothing of it is true, and the client has to ask again."""
        held, self._held = self._held, bytearray()
        if error is not None:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._writer.write(held)

    # -- for sessions

    def is_authorised(self) -> bool:
        """See ``Peer``."""
        return self._authorised_until_at > self.now()

    def put_token(self, payload: bytes) -> bytes:
        """See ``Peer``."""
        request = Sections(payload)
        # The SDK calls its SAS tokens "jwt" too, so the token itself says what it is.
        until_at = self._key.valid_until(_text(request.value), self.now())
        if until_at is None:
            told = {"status-code": Int(401), "status-description": "the token does not open this namespace"}
            return reply(None, request.properties.get("message_id"), told)
        self._authorised_until_at = max(self._authorised_until_at, until_at)
        told = {"status-code": Int(202), "status-description": "Accepted"}
        return reply(None, request.properties.get("message_id"), told)

    def session_lock(self, entity: str, session_id: str) -> SessionLock | None:
        """See ``Peer``."""
        for session in self._sessions.values():
            for link in session.outgoing.values():
                lock = link.session if isinstance(link, EntityLink) and link.node == entity else None
                if lock is not None and lock.session_id == session_id:
                    return lock
        return None


def _checked(size: int) -> int:
    if not MIN_FRAME_BYTES <= size <= MAX_FRAME_BYTES:
        raise DecodeError(f"a frame of {size} bytes")
    return size


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
