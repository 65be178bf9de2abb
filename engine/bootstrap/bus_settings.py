"""Settings of the bus between the app and its workers, and of one worker process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.adapters.bus_settings import MAX_PREFETCH, BusSettings, WorkerSettings
from engine.domain.bus import COMMANDS_QUEUE, RESULTS_QUEUE
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id

CONNECTION = "LIVOA_BUS_CONNECTION"
"""Also what the Functions host looks the connection of a Service Bus trigger up by."""
CONNECTION_FILE = "LIVOA_BUS_CONNECTION_FILE"
NAMESPACE = "LIVOA_BUS_CONNECTION__fullyQualifiedNamespace"
"""The Functions host's own spelling of "this namespace, with the app's identity"."""
_QUEUE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,258}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}")


@dataclass(frozen=True, slots=True)
class BusConfiguration:
    """``bus`` is None where none is configured."""

    bus: BusSettings | None = None
    worker: WorkerSettings = field(default_factory=WorkerSettings)


def is_bus_configured(env: Mapping[str, str]) -> bool:
    """Whether any of the settings that name a bus is there."""
    return any(env.get(name) for name in (CONNECTION, CONNECTION_FILE, NAMESPACE))


def results_queue(env: Mapping[str, str]) -> str:
    """The queue of the results. Raises like ``bus_configuration``."""
    return _queue(env, "LIVOA_BUS_RESULTS", RESULTS_QUEUE)


def bus_configuration(env: Mapping[str, str]) -> BusConfiguration:
    """Read and check them. Raises ``LivoaError("settings.invalid")``."""
    worker = WorkerSettings(
        concurrency=_number(env, "LIVOA_WORKER_CONCURRENCY", 8, 1, 256),
        prefetch=_number(env, "LIVOA_WORKER_PREFETCH", 0, 0, MAX_PREFETCH),
        receivers=_number(env, "LIVOA_WORKER_RECEIVERS", 4, 1, 64),
        queues=tuple(_names(env, "LIVOA_WORKER_QUEUES")),
        drain_s=float(_number(env, "LIVOA_WORKER_DRAIN_S", 30, 0, 3_600)),
    )
    given = [name for name in (CONNECTION, CONNECTION_FILE, NAMESPACE) if env.get(name)]
    if not given:
        return BusConfiguration(None, worker)
    if len(given) > 1:
        raise _error(given[1], f"cannot be set together with {given[0]}")
    namespace = env.get(NAMESPACE) or None
    if namespace is not None and not _HOST.fullmatch(namespace):
        raise _error(NAMESPACE, "must be a host name such as NAME.servicebus.windows.net")
    connection = env.get(CONNECTION) or None
    if connection is not None and not connection.startswith("Endpoint=sb://"):
        raise _error(CONNECTION, "must be a connection string (Endpoint=sb://…)")
    file = env.get(CONNECTION_FILE) or None
    bus = BusSettings(
        connection=connection,
        connection_file=Path(file).resolve() if file is not None else None,
        namespace=namespace,
        commands_queue=_queue(env, "LIVOA_BUS_COMMANDS", COMMANDS_QUEUE),
        results_queue=results_queue(env),
        sessions=_is_on(env, "LIVOA_BUS_SESSIONS"),
        tenant_queues=_tenant_queues(env, "LIVOA_BUS_TENANT_QUEUES"),
    )
    if bus.results_queue in (bus.commands_queue, *bus.tenant_queues.values()):
        raise _error("LIVOA_BUS_RESULTS", "must be another queue than those of the commands")
    return BusConfiguration(bus, worker)


def _tenant_queues(env: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(
        is_wire_id(tenant) and isinstance(queue, str) and _QUEUE_NAME.fullmatch(queue)
        for tenant, queue in value.items()
    ):
        raise _error(name, "must be a JSON object of tenant to the name of its queue")
    if len(set(value.values())) < len(value) or (env.get("LIVOA_BUS_COMMANDS") or COMMANDS_QUEUE) in value.values():
        raise _error(name, "a queue of a tenant's own cannot be another's too")
    return value


def _names(env: Mapping[str, str], name: str) -> list[str]:
    names = [part.strip() for part in (env.get(name) or "").split(",") if part.strip()]
    if not all(_QUEUE_NAME.fullmatch(one) for one in names):
        raise _error(name, "must be names of queues, separated by commas")
    return names


def _queue(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name) or default
    if not _QUEUE_NAME.fullmatch(value):
        raise _error(name, "is no name of a queue")
    return value


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isdecimal() and len(text) <= 6 and least <= int(text) <= most):
        raise _error(name, f"must be a whole number from {least} to {most}")
    return int(text)


def _is_on(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name) or "on"
    if value not in ("on", "off"):
        raise _error(name, "must be one of on, off")
    return value == "on"


def _error(name: str, problem: str) -> LivoaError:
    return LivoaError("settings.invalid", f"setting {name}: {problem}", status=500, pointer=f"/{name}")
