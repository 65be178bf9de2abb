"""Waiting for what another task, thread or process writes: woken at once by writers of this process, polling for the rest.

Polling starts fast and slows down to ``LONGEST_POLL_S``, so a waiter costs a few look-ups a second at most and a writer in
another process is noticed within that time. Nothing here knows what is waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress

FIRST_POLL_S = 0.02
LONGEST_POLL_S = 0.5
_SLOWER = 1.6


class Wakeups:
    """Waiters by key. ``notify`` may be called from any thread; waiters may live on several event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    def notify(self, key: Hashable) -> None:
        """Wake whoever waits for ``key``. To be called after the write is visible."""
        with self._lock:
            waiters = tuple(self._waiting.get(key, ()))
        for loop, event in waiters:
            # The loop of an abandoned waiter may be closed: RuntimeError, and nobody left to wake.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def _listen(self, key: Hashable) -> Iterator[asyncio.Event]:
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.setdefault(key, set()).add(waiter)
        try:
            yield waiter[1]
        finally:
            with self._lock:
                waiters = self._waiting[key]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiting[key]

    def _longest_poll_s(self) -> float:
        return LONGEST_POLL_S

    async def wait(self, key: Hashable, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
        """True as soon as ``holds`` answers True, False when ``timeout_s`` seconds passed first.

        ``holds`` is asked once at least, after every notification, and at the polling interval.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_s
        interval = FIRST_POLL_S
        with self._listen(key) as woken:
            while True:
                # Cleared before asking: a write after the question wakes the wait below.
                woken.clear()
                if await holds():
                    return True
                remaining = give_up_at - loop.time()
                if remaining <= 0:
                    return False
                try:
                    async with asyncio.timeout(min(interval, remaining)):
                        await woken.wait()
                    interval = FIRST_POLL_S
                except TimeoutError:
                    interval = min(interval * _SLOWER, self._longest_poll_s())
