"""Wake-ups across processes through a Redis channel. Redis is a help here, never a need: without it everybody polls as before.

A message is the digest of a key, so whoever reads the channel learns no tenant and no run. Messages may get lost (a full outbox,
a connection that breaks), so waiting still polls, only less often while the channel is heard. Publishing never waits and never
fails towards the writer: the write is done by then. Two threads do the talking, because writers notify from any thread and
waiters live on any event loop.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from engine.adapters import wakeups
from engine.adapters.wakeups import Wakeups

if TYPE_CHECKING:
    import asyncio

CHANNEL = "livoa:wakeups"
LONGEST_POLL_S = 5.0
"""While the channel is heard. It bounds what a lost message costs."""
MAX_OUTBOX = 10_000
"""Most messages that wait to be sent; what does not fit is left to polling."""
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 5.0
_HEALTH_CHECK_S = 10
_LISTEN_FOR_S = 0.25
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_LOG = logging.getLogger("livoa.stores")


class RedisWakeups(Wakeups):
    """``Wakeups`` of all processes with the same ``url`` and ``channel``. Connects when first used.

    ``url`` may hold a password; it appears in no log line.
    """

    def __init__(self, url: str, *, channel: str = CHANNEL) -> None:
        super().__init__()
        self._url, self._channel = url, channel
        self._origin = secrets.token_hex(8)
        self._outbox: queue.Queue[str] = queue.Queue(MAX_OUTBOX)
        self._by_digest: dict[str, Hashable] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._heard = threading.Event()
        self._missed = False

    @property
    def is_heard(self) -> bool:
        """True while messages of other processes arrive."""
        return self._heard.is_set()

    def notify(self, key: Hashable) -> None:
        """See ``Wakeups.notify``. Other processes hear of it soon, or poll."""
        super().notify(key)
        self._start()
        with suppress(queue.Full):
            self._outbox.put_nowait(_digest(key))

    def close(self) -> None:
        """Stop talking. Waiting goes on by polling."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_ANSWER_TIMEOUT_S)
        self._heard.clear()

    @contextmanager
    def _listen(self, key: Hashable) -> Iterator[asyncio.Event]:
        digest = _digest(key)
        self._start()
        with super()._listen(key) as woken:
            with self._lock:
                self._by_digest[digest] = key
            try:
                yield woken
            finally:
                with self._lock:
                    # Another waiter for the same key still needs it; the last one takes it along.
                    if len(self._waiting.get(key, ())) <= 1:
                        self._by_digest.pop(digest, None)

    def _longest_poll_s(self) -> float:
        return LONGEST_POLL_S if self.is_heard else wakeups.LONGEST_POLL_S

    def _start(self) -> None:
        if self._threads:
            return
        with self._lock:
            if self._threads or self._stopping.is_set():
                return
            self._threads = [
                threading.Thread(target=work, name=name, daemon=True)
                for name, work in (("livoa-redis-listen", self._hear_all), ("livoa-redis-publish", self._tell_all))
            ]
        for thread in self._threads:
            thread.start()

    def _client(self) -> Any:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_TIMEOUT_S,
            health_check_interval=_HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
        )

    def _hear_all(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                self._hear()
            except Exception as err:  # whatever Redis or the network does, polling goes on
                if self._heard.is_set() or not self._missed:
                    _LOG.warning("redis cannot be heard (%s); readers poll until it can", type(err).__name__)
                    pause_s = _FIRST_PAUSE_S
                self._missed = True
                self._heard.clear()
                # Waiters go back to polling often at once.
                self._wake_all()
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _hear(self) -> None:
        client = self._client()
        try:
            channel = client.pubsub()
            channel.subscribe(self._channel)
            while not self._stopping.is_set():
                message = channel.get_message(timeout=_LISTEN_FOR_S)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._heard.set()
                    # What was said before we listened is lost: everybody looks once.
                    self._wake_all()
                elif message["type"] == "message":
                    self._told(message["data"])
        finally:
            client.close()

    def _told(self, data: Any) -> None:
        if not isinstance(data, bytes) or len(data) > 100:
            return
        origin, _, digest = data.decode("ascii", "replace").partition(" ")
        if origin == self._origin:
            return
        with self._lock:
            key = self._by_digest.get(digest)
        if key is not None:
            super().notify(key)

    def _wake_all(self) -> None:
        with self._lock:
            keys = tuple(self._by_digest.values())
        for key in keys:
            super().notify(key)

    def _tell_all(self) -> None:
        client = self._client()
        while not self._stopping.is_set():
            try:
                digest = self._outbox.get(timeout=_LISTEN_FOR_S)
            except queue.Empty:
                continue
            # A message that cannot be sent is worth nothing later: whoever waits has polled by then.
            with suppress(Exception):
                client.publish(self._channel, f"{self._origin} {digest}")
        client.close()


def _digest(key: Hashable) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]
