"""What a worker process is built of: the dependencies of the app that carry out, and its own connection to the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.bootstrap.settings import Settings, load_settings
from engine.domain.errors import LivoaError
from engine.ports.deps import Deps

if TYPE_CHECKING:
    from engine.adapters.bus_settings import WorkerSettings
    from engine.adapters.service_bus import BusConnection


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts, resolved. One for each process."""

    deps: Deps
    connection: BusConnection
    settings: WorkerSettings

    async def close(self) -> None:
        """Close what the running loop has open on the bus and to agents."""
        from engine.adapters.http_agents import HttpAgentInvoker

        await self.connection.close()
        if isinstance(self.deps.invoker, HttpAgentInvoker):
            await self.deps.invoker.close()


def build_worker(settings: Settings | None = None) -> WorkerParts:
    """Wire a worker. Connects to nothing. Raises like ``build_deps``, and ``LivoaError("bus.not_configured")``."""
    from engine.adapters.service_bus import BusConnection
    from engine.bootstrap.bus_settings import CONNECTION
    from engine.bootstrap.container import build_deps

    settings = settings or load_settings()
    if settings.bus.bus is None:
        raise LivoaError(
            "bus.not_configured", f"setting {CONNECTION}: a worker needs a bus", status=500, pointer=f"/{CONNECTION}"
        )
    return WorkerParts(build_deps(settings, decides=False), BusConnection(settings.bus.bus), settings.bus.worker)
