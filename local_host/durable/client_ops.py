"""What a durable client can ask: start, query, signal and steer instances and entities.

Every operation is durable before it returns. HTTP (status codes, bodies) is `rpc.py`'s business; here a wrong request is an
exception with a meaning.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from dataclasses import dataclass, replace
from uuid import uuid4

from local_host.durable.entities import EntityState, entity_id_of, list_entities, load_entity
from local_host.durable.episodes import missing_function, new_instance
from local_host.durable.history import Event, EventRaised, EventType, Lifecycle
from local_host.durable.protocol import to_stamp
from local_host.durable.records import (
    DuplicateInstanceError,
    EntityItem,
    InboxItem,
    Instance,
    InstanceFilter,
    add_answer,
    add_entity_item,
    add_inbox,
    append_chunk,
    drop_pending,
    get_instance,
    load_history,
    notification,
    purge,
    put_instance,
    query_instances,
    start_instance,
)
from local_host.durable.rewinding import rewind_instance
from local_host.durable.runtime import Runtime

_FORBIDDEN = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f]")
MAX_ID_CHARS = 256
MAX_NAME_CHARS = 1024
MAX_QUEUED_MESSAGES = 10_000
"""Messages an instance may have waiting before further external events are refused."""


class ClientError(Exception):
    """A request the engine refuses; the text is for the caller."""


class UnknownInstanceError(ClientError):
    """No instance of that id."""


class InstanceEndedError(ClientError):
    """The instance has ended (or, for rewind, has not failed)."""


class ConflictError(ClientError):
    """The instance is in a state that does not allow this now."""


class UnknownFunctionError(ClientError):
    """The app has no orchestrator or entity of that name."""


def check_instance_id(instance_id: str) -> None:
    """Rules of the extension for ids a client chooses; ClientError otherwise."""
    if instance_id.startswith("@"):
        raise ClientError("Orchestration instance IDs must not start with '@'.")
    if _FORBIDDEN.search(instance_id):
        raise ClientError("Orchestration instance IDs must not contain /, \\, #, ?, or control characters.")
    if not 1 <= len(instance_id) <= MAX_ID_CHARS:
        raise ClientError(f"Instance ID lengths must not exceed {MAX_ID_CHARS} characters.")


def check_document(input_json: str | None) -> None:
    """ClientError when the text is not JSON."""
    if input_json is None:
        return
    try:
        json.loads(input_json)
    except ValueError as err:
        raise ClientError(f"The request body is not valid JSON: {err}") from err


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An instance and, when asked for, its history."""

    instance: Instance
    events: list[Event] | None = None


class ClientOperations:
    """Mixed into the engine; `_runtime` does the work."""

    _runtime: Runtime

    def _at(self) -> str:
        return to_stamp(self._runtime.clock.now())

    async def start_new(
        self,
        name: str,
        instance_id: str | None = None,
        input_json: str | None = None,
        version: str | None = None,
        *,
        from_within: bool = False,
    ) -> str:
        """Start an orchestration; returns its id. `input_json` is the JSON document stored as input.

        Raises UnknownFunctionError, ClientError (bad id or document), ConflictError when that id is still alive, and
        HostFullError unless it is `from_within`: asked for by work of this host.
        """
        runtime = self._runtime
        if not runtime.functions.has_orchestrator(name):
            raise UnknownFunctionError(missing_function(name, "orchestrator"))
        chosen = instance_id if instance_id else uuid4().hex
        check_instance_id(chosen)
        check_document(input_json)
        effective = version if version is not None else runtime.options.default_version
        item = new_instance(chosen, name, effective, input_json, self._at())
        if not from_within:
            runtime.admission.require_room()
        is_counted = runtime.admission.add(chosen)
        try:
            await runtime.storage.write(lambda c: start_instance(c, item))
        except BaseException as err:
            if is_counted:
                runtime.admission.remove(chosen)
            if isinstance(err, DuplicateInstanceError):
                raise ConflictError(str(err)) from err
            raise
        runtime.actor(chosen).evict()
        runtime.wake(chosen)
        return chosen

    async def status(self, instance_id: str, *, with_history: bool = False) -> Snapshot | None:
        """The instance, None when unknown."""

        def query(connection: sqlite3.Connection) -> Snapshot | None:
            item = get_instance(connection, instance_id)
            if item is None:
                return None
            return Snapshot(item, load_history(connection, instance_id)[0] if with_history else None)

        return await self._runtime.storage.read(query)

    async def query(self, wanted: InstanceFilter) -> list[Instance]:
        """Instances that match, in order of creation."""
        return await self._runtime.storage.read(lambda c: query_instances(c, wanted))

    async def raise_event(self, instance_id: str, name: str, input_json: str | None) -> None:
        """Store an external event.

        Raises UnknownInstanceError, InstanceEndedError, ClientError (bad document or name), ConflictError (queue full).
        """
        check_document(input_json)
        if not 1 <= len(name) <= MAX_NAME_CHARS:
            raise ClientError(f"Event names have 1 to {MAX_NAME_CHARS} characters.")
        event = EventRaised(self._at(), name, input_json)

        def change(connection: sqlite3.Connection) -> InboxItem:
            _alive(connection, instance_id)
            query = "SELECT count(*) FROM (SELECT 1 FROM inbox WHERE instance_id = ? LIMIT ?)"
            if connection.execute(query, (instance_id, MAX_QUEUED_MESSAGES)).fetchone()[0] >= MAX_QUEUED_MESSAGES:
                raise ConflictError(f"The orchestration instance '{instance_id}' has too many events waiting.")
            return add_inbox(connection, instance_id, None, event)

        self._runtime.post(instance_id, await self._runtime.storage.write(change))

    async def terminate(self, instance_id: str, reason: str) -> None:
        """End the instance at once. Running activities finish and are ignored; children are not touched."""
        runtime = self._runtime
        actor = runtime.actor(instance_id)
        async with actor.lock:
            at = self._at()
            parent_message = await runtime.storage.write(lambda c: _terminate(c, instance_id, reason, at))
            actor.evict()
            actor.completions.clear()
        runtime.timers.forget(instance_id)
        runtime.pool.forget_waiting(instance_id)
        if parent_message is not None:
            runtime.post(*parent_message)
        runtime.announce_end(instance_id)

    async def suspend(self, instance_id: str, reason: str) -> None:
        """Hold everything that arrives until `resume`. ConflictError when already suspended."""
        await self._set_suspended(instance_id, reason, suspended=True)

    async def resume(self, instance_id: str, reason: str) -> None:
        """Deliver what was held. ConflictError when not suspended."""
        await self._set_suspended(instance_id, reason, suspended=False)
        self._runtime.wake(instance_id)

    async def _set_suspended(self, instance_id: str, reason: str, *, suspended: bool) -> None:
        actor = self._runtime.actor(instance_id)
        async with actor.lock:
            at = self._at()
            await self._runtime.storage.write(lambda c: _suspend(c, instance_id, reason, at, suspended))
            actor.evict()

    async def rewind(self, instance_id: str, reason: str) -> None:
        """Run a failed instance again from before its failures. InstanceEndedError unless it is Failed."""
        actor = self._runtime.actor(instance_id)
        async with actor.lock:
            at = self._at()
            woken = await self._runtime.storage.write(lambda c: _rewind(c, instance_id, reason, at))
            actor.evict()
        for each in woken:
            self._runtime.actor(each).evict()
            self._runtime.wake(each)

    async def restart(self, instance_id: str, *, new_id: bool, from_within: bool = False) -> str:
        """Start the same orchestrator with the same input and version; returns the id. Raises like `start_new`."""
        found = await self.status(instance_id)
        if found is None:
            raise UnknownInstanceError(f"An orchestration with the instanceId {instance_id} was not found.")
        item = found.instance
        target = uuid4().hex if new_id else instance_id
        return await self.start_new(item.name, target, item.input_json, item.version, from_within=from_within)

    async def purge(self, instance_id: str) -> int:
        """Delete an ended instance; returns how many were deleted (0 or 1)."""
        runtime = self._runtime
        actor = runtime.actor(instance_id)
        async with actor.lock:
            deleted = await runtime.storage.write(lambda c: _purge(c, instance_id))
            if deleted:
                actor.evict()
        return deleted

    async def purge_by(self, wanted: InstanceFilter) -> int:
        """Delete all ended instances that match; returns how many."""
        return sum([await self.purge(item.instance_id) for item in await self.query(wanted) if item.is_terminal])

    async def signal_entity(self, name: str, key: str, operation: str, input_json: str = "null") -> None:
        """Queue an operation. `input_json` is the JSON text user code decodes. UnknownFunctionError, ClientError."""
        if not self._runtime.functions.has_entity(name):
            raise UnknownFunctionError(missing_function(name, "entity"))
        if not operation:
            raise ClientError("An operation name is needed.")
        check_document(input_json)
        item = EntityItem(0, entity_id_of(name, key), operation, input_json)
        await self._runtime.storage.write(lambda c: add_entity_item(c, item))
        self._runtime.entities.wake(item.entity_id)

    async def read_entity(self, name: str, key: str) -> EntityState:
        """The entity's committed state."""
        entity_id = entity_id_of(name, key)
        return await self._runtime.storage.read(lambda c: load_entity(c, entity_id))

    async def list_entities(self, name: str | None) -> list[tuple[EntityState, str]]:
        """Existing entities with the stamp of their last operation."""
        return await self._runtime.storage.read(lambda c: list_entities(c, name))

    async def wait_for_end(self, instance_id: str, timeout_s: float | None = None) -> Snapshot | None:
        """The snapshot once the instance has ended; the current one when `timeout_s` (real time) passes first."""
        with contextlib.suppress(TimeoutError):
            await self._runtime.wait_for_end(instance_id, timeout_s)
        return await self.status(instance_id)


def _alive(connection: sqlite3.Connection, instance_id: str) -> Instance:
    item = get_instance(connection, instance_id)
    if item is None:
        raise UnknownInstanceError(f"No instance with ID '{instance_id}' found.")
    if item.is_terminal:
        raise InstanceEndedError(f"The orchestration instance '{instance_id}' has ended ({item.status}).")
    return item


def _append(connection: sqlite3.Connection, instance_id: str, events: list[Event]) -> None:
    _, chunk = load_history(connection, instance_id)
    append_chunk(connection, instance_id, chunk, events)


def _terminate(connection: sqlite3.Connection, instance_id: str, reason: str, at: str) -> tuple[str, InboxItem] | None:
    item = _alive(connection, instance_id)
    ended = replace(
        item,
        status="Terminated",
        suspended=False,
        output=reason,
        output_is_json=False,
        updated_at=max(at, item.updated_at),
    )
    put_instance(connection, ended)
    _append(connection, instance_id, [Lifecycle(EventType.EXECUTION_TERMINATED, at, reason)])
    drop_pending(connection, instance_id)
    connection.execute("DELETE FROM inbox WHERE instance_id = ?", (instance_id,))
    message = notification(ended, at)
    if message is None or item.parent is None:
        return None
    stored = add_answer(connection, item.parent.instance_id, item.parent.execution_id, message)
    return (item.parent.instance_id, stored) if stored is not None else None


def _suspend(connection: sqlite3.Connection, instance_id: str, reason: str, at: str, suspended: bool) -> None:
    item = _alive(connection, instance_id)
    if item.suspended is suspended:
        word = "already" if suspended else "not"
        raise ConflictError(f"The orchestration instance '{instance_id}' is {word} suspended.")
    put_instance(connection, replace(item, suspended=suspended, updated_at=max(at, item.updated_at)))
    kind = EventType.EXECUTION_SUSPENDED if suspended else EventType.EXECUTION_RESUMED
    _append(connection, instance_id, [Lifecycle(kind, at, reason)])


def _rewind(connection: sqlite3.Connection, instance_id: str, reason: str, at: str) -> list[str]:
    item = get_instance(connection, instance_id)
    if item is None:
        raise UnknownInstanceError(f"No instance with ID '{instance_id}' found.")
    if item.status in ("Completed", "Terminated", "Canceled"):
        raise InstanceEndedError("The rewind operation is only supported on failed orchestration instances.")
    if item.status != "Failed":
        raise ConflictError("The rewind operation is only supported on failed orchestration instances.")
    return rewind_instance(connection, item, reason, at)


def _purge(connection: sqlite3.Connection, instance_id: str) -> int:
    item = get_instance(connection, instance_id)
    if item is None or not item.is_terminal:
        return 0
    purge(connection, instance_id)
    return 1
