"""One namespace: clients and senders for each event loop, opened on first use and kept, because opening costs half a second.

A sender has one message or batch on its way at a time (the SDK promises nothing when several coroutines share one); what comes
meanwhile goes together as the next. Sessions are spread over a few senders, each session on its own. Whatever goes wrong closes a
sender together with its client; the next message opens both anew. Nothing that the SDK says about a failure is passed on: it
names addresses and sometimes more.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import ssl
import sys
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from engine.adapters.bus_settings import BusSettings
from engine.domain.errors import LivoaError

SEND_TIMEOUT_S = 10.0
"""How long a message may take, waiting for its turn and opening the sender included."""
CLOSE_TIMEOUT_S = 5.0
FAIL_FAST_S = 1.0
"""For so long after a failure nothing is tried: whoever waits would wait for nothing, and the sweep sends again anyway."""
MAX_MESSAGE_ID = 128
"""Longest id of a message that Service Bus takes."""
LANES = 4
"""Senders of one entity with sessions: a batch is of one session, so with one sender sixteen sessions would go one by one."""
MAX_TOGETHER = 50
"""Most messages that go out together."""
MAX_TOGETHER_BYTES = 64 * 1024
"""Most content of them; a larger message goes alone, so that no other fails for its size."""
_TRIES = 2
"""A sender that was idle may have lost its connection: what failed on it is sent once more on a new one."""

_LOG = logging.getLogger("livoa.bus")


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message as it goes out. ``session_id`` only for queues with sessions; nobody receives it for ``delay_s``."""

    body: bytes
    message_id: str
    subject: str = ""
    session_id: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    delay_s: float = 0.0


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """How namespaces prove who they are: as the SDK has it, made once."""
    import certifi

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate, and for the name in it
    context.load_verify_locations(certifi.where())
    return context


class BusConnection:
    """Implements nothing by itself: queues and workers are built on it. Connects to nothing before the first use."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self._senders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], _Sender]] = (
            weakref.WeakKeyDictionary()
        )

    async def send(self, entity: str, *messages: BusMessage, timeout_s: float = SEND_TIMEOUT_S) -> None:
        """Send to a queue or topic, durably when it returns; several messages, all of one session, go in order as one batch.

        ``LivoaError("bus.unavailable", status=503)`` when that takes longer or fails; it may have been sent all the same.
        """
        if "azure.servicebus.aio" not in sys.modules:
            # Half a second of work, much more on a busy machine: neither the loop nor the message's time shall pay for it.
            await asyncio.to_thread(importlib.import_module, "azure.servicebus.aio")
        senders = self._senders.setdefault(asyncio.get_running_loop(), {})
        lane = entity, zlib.crc32((messages[0].session_id or "").encode()) % LANES
        if lane not in senders:
            senders[lane] = _Sender(self, entity)
        await senders[lane].send(messages, timeout_s)

    def client(self, **options: Any) -> Any:
        """A new client of the SDK (``azure.servicebus.aio.ServiceBusClient``); the caller closes it.

        ``LivoaError("bus.unavailable")`` when the connection string cannot be read.
        """
        from azure.servicebus.aio import ServiceBusClient

        settings = self.settings
        # The SDK would read all certificates of the world anew for each client, and a session is a client.
        options.setdefault("ssl_context", _tls())
        if settings.namespace is not None:
            from azure.identity.aio import DefaultAzureCredential

            return ServiceBusClient(settings.namespace, DefaultAzureCredential(), **options)
        text = settings.connection
        try:
            if settings.connection_file is not None:
                text = settings.connection_file.read_text(encoding="utf-8").strip()
            return ServiceBusClient.from_connection_string(text or "", **options)
        except (OSError, ValueError) as err:
            # ValueError quotes what it could not parse.
            raise unavailable(f"no usable connection string: {type(err).__name__}") from None

    async def close(self) -> None:
        """Close the senders of the running loop."""
        senders = self._senders.pop(asyncio.get_running_loop(), {})
        await asyncio.gather(*(sender.close() for sender in senders.values()))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Messages that are to go out together, and who waits for that."""

    messages: tuple[Any, ...]
    session_id: str | None
    bytes: int
    sent: asyncio.Future[None]


class _Sender:
    """The sender of one entity on one event loop. What comes while something is on its way goes together afterwards."""

    def __init__(self, connection: BusConnection, entity: str) -> None:
        self._connection, self._entity = connection, entity
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None
        self._open: tuple[Any, Any] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    async def send(self, messages: Sequence[BusMessage], timeout_s: float) -> None:
        """See ``BusConnection.send``."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise _too_soon()
        sent: asyncio.Future[None] = loop.create_future()
        encoded = tuple(map(_encoded, messages))
        self._waiting.append(_Waiting(encoded, messages[0].session_id, sum(len(one.body) for one in messages), sent))
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send_waiting())
        try:
            async with asyncio.timeout(timeout_s):
                await sent
        except TimeoutError:
            raise unavailable(f"nothing was confirmed within {timeout_s:g} s") from None

    async def _send_waiting(self) -> None:
        """Until nobody waits. Whoever has gone is left out, unless the message is on its way already."""
        while group := self._next_group():
            error: LivoaError | None = None
            try:
                if asyncio.get_running_loop().time() < self._not_before:
                    raise _too_soon()
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._send([message for one in group for message in one.messages])
            except TimeoutError:
                error = unavailable(f"nothing was confirmed within {SEND_TIMEOUT_S:g} s")
            except LivoaError as err:
                self._not_before = max(self._not_before, asyncio.get_running_loop().time() + FAIL_FAST_S)
                error = err
            except Exception as err:
                # Not what the SDK promises. Whoever waits must not be left without anybody who sends.
                _LOG.warning("nothing can be sent: %s", type(err).__name__, extra={"queue": self._entity})
                self._not_before = asyncio.get_running_loop().time() + FAIL_FAST_S
                error = unavailable(f"sending failed: {type(err).__name__}")
            except BaseException:
                self._end(group, unavailable("it was closed"))
                raise
            self._end(group, error)

    def _end(self, group: Sequence[_Waiting], error: LivoaError | None) -> None:
        for one in group:
            if one.sent.done():
                continue
            if error is None:
                one.sent.set_result(None)
            else:
                one.sent.set_exception(error)

    def _next_group(self) -> list[_Waiting]:
        """The first that waits, and what may go with it: a batch is of one session, goes or fails as a whole, and has bounds."""
        self._waiting = [one for one in self._waiting if not one.sent.done()]
        group: list[_Waiting] = []
        count = size = 0
        for one in self._waiting:
            if group and one.session_id != group[0].session_id:
                continue
            count, size = count + len(one.messages), size + one.bytes
            if group and (count > MAX_TOGETHER or size > MAX_TOGETHER_BYTES):
                break
            group.append(one)
        self._waiting = [one for one in self._waiting if one not in group]
        return group

    async def _send(self, messages: Sequence[Any]) -> None:
        from azure.core.exceptions import AzureError

        for tried in range(1, _TRIES + 1):
            fresh = self._open is None
            try:
                sender = await self._opened()
                await sender.send_messages(messages[0] if len(messages) == 1 else list(messages))
                return
            except (AzureError, OSError, ValueError) as err:
                # ValueError is what the SDK raises for a handler that was shut down under it.
                self._drop()
                if fresh or tried == _TRIES:
                    _LOG.warning("nothing can be sent: %s", type(err).__name__, extra={"queue": self._entity})
                    raise unavailable(f"sending failed: {type(err).__name__}") from None
            except BaseException:
                self._drop()  # cut off in the middle, it is in nobody knows which state
                raise

    async def _opened(self) -> Any:
        if self._open is None:
            client = self._connection.client(retry_total=0)
            sender = client.get_queue_sender(self._entity)
            self._open = client, sender
            await sender.__aenter__()
        return self._open[1]

    def _drop(self) -> None:
        if self._open is not None:
            task = asyncio.get_running_loop().create_task(_closed(*self._open))
            self._open = None
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close it, and wait for what is being closed."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._end(self._waiting, unavailable("it was closed"))
        self._drop()
        await asyncio.gather(*self._closing)


async def _closed(client: Any, sender: Any) -> None:
    # Closing speaks to the other side too; when that is gone, there is nobody to say goodbye to.
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await sender.close()
            await client.close()


def _encoded(message: BusMessage) -> Any:
    from azure.servicebus import ServiceBusMessage

    properties: dict[str | bytes, Any] = dict(message.properties.items())
    return ServiceBusMessage(
        message.body,
        message_id=_fitting(message.message_id),
        session_id=message.session_id,
        subject=message.subject or None,
        content_type=message.content_type,
        application_properties=properties or None,
        scheduled_enqueue_time_utc=(
            datetime.now(UTC) + timedelta(seconds=message.delay_s) if message.delay_s > 0 else None
        ),
    )


def _fitting(message_id: str) -> str:
    """An id that the bus takes: keys of steps may be longer."""
    if len(message_id) <= MAX_MESSAGE_ID:
        return message_id
    return f"sha256-{hashlib.sha256(message_id.encode()).hexdigest()}"


def _too_soon() -> LivoaError:
    return unavailable("it could not be reached a moment ago")


def unavailable(reason: str) -> LivoaError:
    """The one error of this adapter."""
    return LivoaError("bus.unavailable", f"The bus cannot be used: {reason}.", status=503, retry_after_s=5)
