"""The Service Bus emulator in a thread with a loop of its own, as it is in the host's process; it can stop and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

from local_host.durable.clock import RealClock
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import EntityOptions
from local_host.service_bus.server import ServiceBusServer


class Emulator:
    """Listens until ``close``. ``stop`` hangs up on everybody; ``start`` comes back on the same port with the same messages."""

    def __init__(self, path: Path, entities: Mapping[str, EntityOptions]) -> None:
        self._path, self._entities = path / "queues.sqlite", entities
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._port, self._secret = 0, "secret-of-the-emulator"
        self.start()

    def start(self) -> None:
        self.broker = ServiceBusBroker(self._path, RealClock().now)
        for name, options in self._entities.items():
            self.broker.declare(name, options)
        self.server = ServiceBusServer(self.broker, RealClock(), secret=self._secret)
        self._run(self.server.start(self._port))
        self._port = self.server.port

    def stop(self) -> None:
        self._run(self.server.stop())
        self.broker.close()

    @property
    def connection_string(self) -> str:
        return self.server.connection_string

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]  # a coroutine

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
