"""Where the bus is and how its queues are named. Apart from the adapter, so that reading settings loads no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.domain.bus import COMMANDS_QUEUE, RESULTS_QUEUE

MAX_PREFETCH = 1_000


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How to reach a Service Bus namespace, and its queues.

    One of ``connection`` (a connection string, a secret), ``connection_file`` (a file that holds one; read anew for every
    connection, so that a new key or port is taken up) and ``namespace`` (a host name, reached with the app's own identity).
    ``tenant_queues`` names the queue of commands of each tenant that has one of its own.
    """

    connection: str | None = field(default=None, repr=False)
    connection_file: Path | None = None
    namespace: str | None = None
    commands_queue: str = COMMANDS_QUEUE
    results_queue: str = RESULTS_QUEUE
    sessions: bool = True
    tenant_queues: Mapping[str, str] = field(default_factory=dict)

    def commands_of(self, tenant_id: str) -> str:
        """The queue that a tenant's commands go to."""
        return self.tenant_queues.get(tenant_id, self.commands_queue)

    def tenant_of(self, queue: str) -> str | None:
        """The one tenant whose commands a queue may hold; None for a shared queue."""
        return next((tenant for tenant, name in self.tenant_queues.items() if name == queue), None)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How much one worker process takes on.

    ``concurrency``: steps at once. ``prefetch``: messages the SDK may hold in advance for each receiver; while they wait there,
    nobody else can have them. ``receivers``: side by side for each queue, fewer where all queues together would have more than
    there are slots; with sessions each serves one. ``queues``: what it serves; empty for the shared queue and those of all
    tenants that have their own.
    """

    concurrency: int = 8
    prefetch: int = 0
    receivers: int = 4
    queues: tuple[str, ...] = ()
    drain_s: float = 30.0
