"""A Service Bus namespace in this process, and the real SDK as its client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus.aio import ServiceBusClient

from local_host.durable.clock import RealClock
from local_host.queue_extras import ServiceBusBroker
from local_host.service_bus.entities import declare_entities
from local_host.service_bus.server import ServiceBusServer

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Bus:
    """The broker behind, and clients in front."""

    broker: ServiceBusBroker
    server: ServiceBusServer

    def client(self, **options: Any) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.server.connection_string, retry_total=1, **options)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    broker = ServiceBusBroker(tmp_path / "queues.sqlite", RealClock().now)
    declare_entities(ROOT, broker)
    server = ServiceBusServer(broker, RealClock())
    await server.start()
    yield Bus(broker, server)
    await server.stop()
    broker.close()
