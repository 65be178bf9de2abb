"""Entities: a durable FIFO of operations per entity, one at a time, state and answer committed together.

Operations are handed to the SDK one per batch. It does not roll back a failed operation and leaks a result into the next one of
a batch; with one per batch neither can happen, because the host simply keeps the old state when an operation failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from local_host.durable.clock import Clock
from local_host.durable.episodes import missing_function
from local_host.durable.functions import DurableFunctions
from local_host.durable.history import EventRaised
from local_host.durable.protocol import to_stamp
from local_host.durable.records import EntityItem, InboxItem, add_answer
from local_host.durable.storage import Storage

_LOG = logging.getLogger("local_host.durable")

Answer = Callable[[str, InboxItem], None]
"""(caller's instance id, durable message)."""


@dataclass(frozen=True, slots=True)
class EntityState:
    """What is stored: `state_json` is JSON text, None when nothing was ever set."""

    entity_id: str
    exists: bool
    state_json: str | None


@dataclass(frozen=True, slots=True)
class Performed:
    """One operation's effect: the state to keep and the answer's JSON text (`is_error`: text of the message)."""

    state: EntityState
    result_json: str
    is_error: bool


def entity_id_of(name: str, key: str) -> str:
    """`@name@key`; names are lower-cased, keys keep their case."""
    return f"@{name.lower()}@{key}"


def split_entity_id(entity_id: str) -> tuple[str, str]:
    """Inverse of `entity_id_of`; ValueError when it is not an entity id."""
    head, at, key = entity_id[1:].partition("@")
    if not entity_id.startswith("@") or not at or not head:
        raise ValueError(f"'{entity_id}' is not an entity id")
    return head, key


def perform(functions: DurableFunctions, state: EntityState, item: EntityItem) -> Performed:
    """Run one operation through the SDK. Never raises for what user code does."""
    name, key = split_entity_id(item.entity_id)
    request = {
        "self": {"name": name, "key": key},
        "exists": state.exists,
        "state": state.state_json,
        "batch": [{"name": item.operation, "input": json.dumps(item.input), "isSignal": item.request_id is None}],
    }
    try:
        response = json.loads(functions.entity(name)(json.dumps(request)))
    except KeyError:
        return Performed(state, json.dumps(missing_function(name, "entity")), True)
    except (Exception, SystemExit) as err:  # the SDK itself failed: the state could not be encoded, for instance
        return Performed(state, json.dumps(str(err) or repr(type(err))), True)
    outcome = response["results"][0]
    if outcome["isError"]:
        return Performed(state, outcome["result"], True)
    exists = bool(response["entityExists"])
    kept = EntityState(item.entity_id, exists, response["entityState"] if exists else None)
    return Performed(kept, outcome["result"], False)


def load_entity(connection: sqlite3.Connection, entity_id: str) -> EntityState:
    """The stored state; not existing when nothing is stored."""
    row = connection.execute("SELECT present, state FROM entities WHERE entity_id = ?", (entity_id,)).fetchone()
    return EntityState(entity_id, bool(row[0]), row[1]) if row else EntityState(entity_id, False, None)


def next_item(connection: sqlite3.Connection, entity_id: str) -> EntityItem | None:
    """The oldest operation waiting."""
    row = connection.execute(
        "SELECT id, entity_id, operation, input, request_id, caller_id, caller_execution_id FROM entity_inbox"
        " WHERE entity_id = ? ORDER BY id LIMIT 1",
        (entity_id,),
    ).fetchone()
    return EntityItem(*row) if row else None


def list_entities(connection: sqlite3.Connection, name: str | None) -> list[tuple[EntityState, str]]:
    """Existing entities (all, or of one name) with the time of their last operation."""
    prefix = f"@{name.lower()}@" if name else "@"
    rows = connection.execute(
        "SELECT entity_id, state, updated_at FROM entities WHERE present = 1 AND substr(entity_id, 1, ?) = ?"
        " ORDER BY entity_id",
        (len(prefix), prefix),
    )
    return [(EntityState(row[0], True, row[1]), row[2]) for row in rows]


def _commit(connection: sqlite3.Connection, item: EntityItem, done: Performed, at: str) -> InboxItem | None:
    connection.execute("DELETE FROM entity_inbox WHERE id = ?", (item.id,))
    if done.state.exists:
        connection.execute(
            "INSERT OR REPLACE INTO entities VALUES (?,1,?,?)", (item.entity_id, done.state.state_json, at)
        )
    else:
        connection.execute("DELETE FROM entities WHERE entity_id = ?", (item.entity_id,))
    if item.request_id is None or item.caller_id is None:
        return None
    answer: dict[str, object] = {"result": done.result_json}
    if done.is_error:
        answer["exceptionType"] = "Error"
    event = EventRaised(at, item.request_id, json.dumps(answer))
    return add_answer(connection, item.caller_id, item.caller_execution_id, event)


class EntityRunner:
    """Drains each entity's queue on a task of its own; user code runs in a worker thread."""

    def __init__(self, functions: DurableFunctions, storage: Storage, clock: Clock, answer: Answer) -> None:
        self._functions, self._storage, self._clock, self._answer = functions, storage, clock, answer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._stopping = False

    @property
    def running(self) -> int:
        """Entities being drained."""
        return len(self._tasks)

    def wake(self, entity_id: str) -> None:
        """There may be operations for this entity."""
        if self._stopping:
            return
        if entity_id in self._tasks:
            self._again.add(entity_id)
            return
        self._tasks[entity_id] = asyncio.get_running_loop().create_task(self._drain(entity_id))

    async def stop(self) -> None:
        """Finish the operation under way in each entity; the rest stays queued on disk."""
        self._stopping = True
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _drain(self, entity_id: str) -> None:
        try:
            while not self._stopping:
                self._again.discard(entity_id)
                if not await self._step(entity_id) and entity_id not in self._again:
                    return
        except Exception:
            _LOG.exception("Entity %s stopped; its queue is kept", entity_id)
        finally:
            self._tasks.pop(entity_id, None)

    async def _step(self, entity_id: str) -> bool:
        item, state = await self._storage.read(lambda c: (next_item(c, entity_id), load_entity(c, entity_id)))
        if item is None:
            return False
        done = await asyncio.to_thread(perform, self._functions, state, item)
        at = to_stamp(self._clock.now())
        message = await self._storage.write(lambda c: _commit(c, item, done, at))
        if message is not None and item.caller_id is not None:
            self._answer(item.caller_id, message)
        return True
