"""One Cosmos DB database, reached through the SDK's asynchronous client: opening, bounded retries, request units.

Whatever goes wrong becomes one of four answers: ``AbsentError``, ``MovedError`` (somebody else was quicker), ``UnsureError``
(a write that may or may not have happened) or a ``LivoaError``. What was certainly not carried out (429, 449) is tried again
here; a write that may have been is not, because only its store can find out. Note that the SDK by itself repeats some writes
after a lost connection or a 503, so even ``MovedError`` may be the echo of one's own write: stores must look for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from engine.adapters.cosmos.definitions import CONTAINERS, ContainerDefinition
from engine.adapters.cosmos_settings import CosmosSettings
from engine.domain.errors import LivoaError
from engine.ports.telemetry import Telemetry

MAX_TRIES = 6
"""Most times one request is sent because the service could not take it."""
MAX_RACES = 80
"""Most times one write is worked out again because somebody else was quicker."""
MAX_UNSURE = 4
"""Most times the outcome of one write may stay unknown."""
LONGEST_WAIT_S = 5.0
CONSISTENCY = "BoundedStaleness"
"""Asked for with every read. One process reads what another has just written, of which a session of its own knows nothing: with
less a step would not find what it needs, and fail for it. An account that gives less refuses the request."""
_REQUEST_TIMEOUT_S = 10
_THROTTLED = (429, 449)

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
ResponseHook = Callable[[Mapping[str, Any], Any], None]


class AbsentError(Exception):
    """There is no such document."""


class MovedError(Exception):
    """It is there already, or it has another etag by now."""


class UnsureError(Exception):
    """No answer, or one that does not tell whether the write was carried out."""


class CosmosConnection:
    """Opens one client per event loop, on first use. ``sleep`` waits between tries (seconds)."""

    def __init__(self, settings: CosmosSettings, telemetry: Telemetry, *, sleep: Sleep = asyncio.sleep) -> None:
        self._settings, self._telemetry, self._sleep = settings, telemetry, sleep
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def call(
        self,
        definition: ContainerDefinition,
        operation: str,
        work: Callable[[Any, ResponseHook], Awaitable[T]],
        *,
        writes: bool = False,
    ) -> T:
        """Do ``work`` with the container. ``operation`` names it in the metric ``livoa.cosmos.request_units``.

        Raises ``AbsentError``, ``MovedError``, ``UnsureError`` (writes only) and ``LivoaError``: ``store.busy`` or
        ``store.unavailable`` (503) when all tries failed, ``store.too_large`` (413).
        """
        from azure.core.exceptions import AzureError

        labels = {"container": definition.name, "operation": operation}

        def charge(headers: Mapping[str, Any], _: Any) -> None:
            self._telemetry.record(
                "livoa.cosmos.request_units", float(headers.get("x-ms-request-charge") or 0.0), labels
            )

        container = self._client().get_database_client(self._settings.database).get_container_client(definition.name)
        for tried in range(MAX_TRIES):
            try:
                return await work(container, charge)
            except AzureError as err:
                wait_s, final = _judged(err, tried, writes=writes)
                if tried + 1 == MAX_TRIES:
                    raise final from err
            await self._sleep(wait_s)
        raise AssertionError("the last try either answers or raises")

    async def settled(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write that looks at what is there first, until nobody is quicker and its outcome is known.

        ``attempt`` must recognise its own earlier write. Raises ``LivoaError``: ``store.busy`` or ``store.unavailable`` (503).
        """
        races = unsure = 0
        while True:
            try:
                return await attempt()
            except MovedError as err:
                races += 1
                if races >= MAX_RACES:
                    raise _busy() from err
                await self._sleep(random.uniform(0, min(0.002 * races, 0.05)))  # noqa: S311 - spreads writers, no secret
            except UnsureError as err:
                unsure += 1
                if unsure >= MAX_UNSURE:
                    raise _unavailable("no answer tells whether a write was carried out") from err
                await self._sleep(_backoff_s(unsure))

    async def create_containers(self) -> None:
        """Create the database and the containers that are missing. For tests and emulators: an app's identity may not do this."""
        from azure.cosmos import PartitionKey

        database = await self._client().create_database_if_not_exists(self._settings.database)
        for definition in CONTAINERS:
            found = definition.properties
            key = PartitionKey(path=found["partitionKey"]["paths"], kind="MultiHash")
            await database.create_container_if_not_exists(
                definition.name,
                key,
                indexing_policy=found["indexingPolicy"],
                default_ttl=definition.default_ttl_s,
                **({"unique_key_policy": found["uniqueKeyPolicy"]} if definition.unique else {}),
            )

    async def close(self) -> None:
        """Close the client of this event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            from azure.cosmos.aio import CosmosClient

            client = self._clients[loop] = CosmosClient(
                self._settings.endpoint,
                self._settings.key or _own_identity(),
                consistency_level=CONSISTENCY,
                retry_throttle_total=1,
                retry_total=1,
                connection_timeout=_REQUEST_TIMEOUT_S,
                read_timeout=_REQUEST_TIMEOUT_S,
            )
        return client


def _own_identity() -> Any:
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential()


def _judged(err: Any, tried: int, *, writes: bool) -> tuple[float, Exception]:
    """How many seconds to wait before the next try, and what to raise when there is none. Raises what no other try changes."""
    status = getattr(err, "status_code", None)
    if status == 404 and not getattr(err, "sub_status", None):
        raise AbsentError from err
    if status in (409, 412):
        raise MovedError from err
    if status == 413:
        raise LivoaError("store.too_large", "this is more than the store takes at once", status=413) from err
    if status in _THROTTLED:
        told_ms = (getattr(err, "headers", None) or {}).get("x-ms-retry-after-ms")
        return min(float(told_ms) / 1_000 if told_ms else _backoff_s(tried), LONGEST_WAIT_S), _busy()
    # 404 with a substatus is not about the document: its container is missing, or no replica is up to this session yet.
    if status is not None and status < 500 and status not in (404, 408):
        # Its message may name documents; the type and the status are enough to go by.
        raise _unavailable(f"the database refused a request with status {status}") from err
    if writes:
        raise UnsureError from err
    return _backoff_s(tried), _unavailable(f"the database failed: {type(err).__name__}")


def _backoff_s(tried: int) -> float:
    return min(0.05 * float(2**tried), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers, no secret


def _busy() -> LivoaError:
    return LivoaError("store.busy", "the database was too busy several times in a row", status=503, retry_after_s=1)


def _unavailable(message: str) -> LivoaError:
    return LivoaError("store.unavailable", message, status=503, retry_after_s=1)
