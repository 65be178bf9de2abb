"""The listener: AMQP on a loopback port, a bounded number of connections, and the connection string that opens it."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from local_host.durable.clock import Clock
from local_host.http.keys import write_private
from local_host.queue_commits import Turns
from local_host.queue_extras import ServiceBusBroker
from local_host.service_bus.access import SharedKey
from local_host.service_bus.connection import Connection

MAX_CONNECTIONS = 256
KEY_NAME = "Root"


CONNECTION_FILE = "service-bus.connection"
"""In the data directory while the host runs, mode 0600: the connection string."""
_KEY_FILE = "service-bus.key"


def shared_secret(data_dir: Path) -> str:
    """The namespace's key, made once for a data directory and kept there (0600), so that a restart locks nobody out."""
    file = data_dir / _KEY_FILE
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32) + "\n")
    return file.read_text().strip()


class ServiceBusServer:
    """Serves one broker. ``secret`` is made anew unless it is given."""

    def __init__(self, broker: ServiceBusBroker, clock: Clock, *, secret: str | None = None) -> None:
        self._broker, self._clock = broker, clock
        self._key = SharedKey(KEY_NAME, secret or secrets.token_urlsafe(32))
        self._turns = Turns(broker.transactions)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listen. ``OSError`` when the port is taken."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=256 * 1024)

    async def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None, "not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connection_string(self) -> str:
        """What a client opens the namespace with; a secret. The flag makes the SDK keep the port and do without TLS."""
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName={self._key.name};"
            f"SharedAccessKey={self._key.secret};UseDevelopmentEmulator=true"
        )

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await Connection(reader, writer, self._broker, self._key, self._clock, self._turns).serve()
        except asyncio.CancelledError:
            # Only `stop` cancels it, and it ends here; asyncio would report a cancelled connection as an error.
            writer.close()
        finally:
            self._open.discard(task)
