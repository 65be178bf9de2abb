"""A namespace for the real SDK: the emulator on a port of its own, or a real one by its connection string.

``LIVOA_TEST_SERVICE_BUS`` holds the connection string of a namespace with the queues ``livoa-test`` (lock 5 s, at most 3
deliveries), ``livoa-test-sessions`` (lock 5 s), ``livoa-test-duplicates`` (a window of a minute), ``livoa-test-expiry`` (what
expires becomes a dead letter) and the topic ``livoa-test-topic`` with the subscriptions ``one`` and ``two``. Clients are shared:
opening a link takes the SDK half a second. What a receiver still has credit for it may get later, so tests in which that matters
have a queue of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from azure.servicebus import ServiceBusClient

from local_host.queues import EntityOptions
from tests.support.bus_emulator import Emulator

REAL = "LIVOA_TEST_SERVICE_BUS"
QUEUE, SESSIONS, DUPLICATES, TOPIC = "livoa-test", "livoa-test-sessions", "livoa-test-duplicates", "livoa-test-topic"
EXPIRY = "livoa-test-expiry"
LOCK_S = 5.0
ENTITIES = {
    QUEUE: EntityOptions(lock_s=LOCK_S, max_delivery_count=3),
    SESSIONS: EntityOptions(lock_s=LOCK_S, sessions=True),
    EXPIRY: EntityOptions(dead_letter_on_expiry=True),
    DUPLICATES: EntityOptions(duplicate_window_s=60),
    f"{TOPIC}/Subscriptions/one": EntityOptions(),
    f"{TOPIC}/Subscriptions/two": EntityOptions(),
}


@dataclass(frozen=True)
class Namespace:
    """What a test needs; ``emulator`` is None for a real one."""

    connection_string: str
    client: ServiceBusClient
    emulator: Emulator | None


@pytest.fixture(scope="session")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    real = os.environ.get(REAL)
    emulator = None if real else Emulator(tmp_path_factory.mktemp("bus"), ENTITIES)
    text = real or (emulator.connection_string if emulator else "")
    with ServiceBusClient.from_connection_string(text, retry_total=1, retry_backoff_factor=0.1) as client:
        yield Namespace(text, client, emulator)
    if emulator is not None:
        emulator.close()
