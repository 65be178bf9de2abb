"""One namespace: clients and senders for each event loop, opened on first use and kept, because opening costs half a second.

A sender serves one message at a time (the SDK promises nothing when several coroutines share one). Whatever goes wrong closes it
together with its client; the next message opens both anew. Nothing that the SDK says about a failure is passed on: it names
addresses and sometimes more.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import ssl
import sys
import weakref
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
        self._senders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Sender]] = (
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
        if entity not in senders:
            senders[entity] = _Sender(self, entity)
        await senders[entity].send(messages, timeout_s)

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


class _Sender:
    """The sender of one entity on one event loop."""

    def __init__(self, connection: BusConnection, entity: str) -> None:
        self._connection, self._entity = connection, entity
        self._turn = asyncio.Lock()
        self._open: tuple[Any, Any] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    async def send(self, messages: Sequence[BusMessage], timeout_s: float) -> None:
        """See ``BusConnection.send``."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise unavailable("it could not be reached a moment ago")
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                await self._send(messages)
        except TimeoutError:
            raise unavailable(f"nothing was confirmed within {timeout_s:g} s") from None
        except LivoaError:
            self._not_before = loop.time() + FAIL_FAST_S
            raise

    async def _send(self, messages: Sequence[BusMessage]) -> None:
        from azure.core.exceptions import AzureError

        for tried in range(1, _TRIES + 1):
            fresh = self._open is None
            try:
                sender = await self._opened()
                await sender.send_messages([_encoded(message) for message in messages])
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


def unavailable(reason: str) -> LivoaError:
    """The one error of this adapter."""
    return LivoaError("bus.unavailable", f"The bus cannot be used: {reason}.", status=503, retry_after_s=5)
