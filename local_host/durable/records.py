"""Rows of the durable store as values, and the statements that read and write them.

Each function takes a connection and runs inside a transaction of `storage.Storage`. The one that matters is
`commit_episode`: new history, outgoing work, consumed rows and instance status go in together or not at all.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from local_host.durable.history import Event, SubCompleted, SubFailed, dump_chunk, from_row, load_chunk, to_row

TERMINAL = frozenset({"Completed", "Failed", "Terminated", "Canceled"})


@dataclass(frozen=True, slots=True)
class ParentLink:
    """Who waits for this instance."""

    instance_id: str
    execution_id: str
    task_id: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One orchestration instance. `output` is JSON text when `output_is_json`, else plain text (failures, reasons).

    `status` is Pending, Running, Completed, Failed or Terminated; `suspended` is kept beside it.
    """

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: str
    suspended: bool
    input_json: str | None
    output: str | None
    output_is_json: bool
    custom_status_json: str | None
    created_at: str
    updated_at: str
    parent: ParentLink | None = None

    @property
    def is_terminal(self) -> bool:
        """No further episode will run unless it is rewound or restarted."""
        return self.status in TERMINAL

    @property
    def runtime_status(self) -> str:
        """The status a client sees."""
        return "Suspended" if self.suspended and not self.is_terminal else self.status


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A durable message to an instance. `execution_id` None means "whatever execution is current" (external events).

    `seen_at` is the length of history when an early external event was first held back; `is_seen_saved` says whether the
    row knows it.
    """

    id: int
    execution_id: str | None
    event: Event
    seen_at: int | None = None
    is_seen_saved: bool = False


@dataclass(frozen=True, slots=True)
class WorkItem:
    """An activity (`kind` "activity") or durable HTTP call ("http") to run at least once."""

    instance_id: str
    execution_id: str
    task_id: int
    kind: str
    name: str
    input: str | None


@dataclass(frozen=True, slots=True)
class TimerItem:
    """A timer to fire, cancelled ones included. `known_at` is the instance's time when it was created, or a later one."""

    instance_id: str
    execution_id: str
    task_id: int
    fire_at: str
    known_at: str


@dataclass(frozen=True, slots=True)
class EntityItem:
    """One operation for an entity; `request_id` and caller are None for signals. `input` is JSON text."""

    id: int
    entity_id: str
    operation: str
    input: str
    request_id: str | None = None
    caller_id: str | None = None
    caller_execution_id: str | None = None


@dataclass(slots=True)
class EpisodeWrites:
    """Everything one episode changes. `reset` (continue-as-new) starts a new history for the instance."""

    instance: Instance
    chunk: int
    events: list[Event]
    reset: bool = False
    work: list[WorkItem] = field(default_factory=list)
    timers: list[TimerItem] = field(default_factory=list)
    children: list[Instance] = field(default_factory=list)
    entity_items: list[EntityItem] = field(default_factory=list)
    consumed_inbox: list[int] = field(default_factory=list)
    consumed_work: list[int] = field(default_factory=list)
    consumed_timers: list[int] = field(default_factory=list)
    seen: dict[int, int | None] = field(default_factory=dict)
    carried: list[Event] = field(default_factory=list)
    notify: Event | None = None


@dataclass(slots=True)
class CommitResult:
    """Rows that got their ids in the commit: messages for other instances (or this one), entity operations."""

    inbox: dict[str, list[InboxItem]] = field(default_factory=dict)
    entity_items: list[EntityItem] = field(default_factory=list)
    refused_children: list[str] = field(default_factory=list)


_COLUMNS = (
    "instance_id, execution_id, name, version, status, suspended, input_json, output, output_is_json,"
    " custom_status_json, created_at, updated_at, parent_id, parent_execution_id, parent_task_id"
)


def _instance(row: Sequence[Any]) -> Instance:
    return Instance(
        instance_id=row[0],
        execution_id=row[1],
        name=row[2],
        version=row[3],
        status=row[4],
        suspended=bool(row[5]),
        input_json=row[6],
        output=row[7],
        output_is_json=bool(row[8]),
        custom_status_json=row[9],
        created_at=row[10],
        updated_at=row[11],
        parent=ParentLink(row[12], row[13], row[14]) if row[12] is not None else None,
    )


def put_instance(connection: sqlite3.Connection, item: Instance) -> None:
    """Insert or replace the instance row."""
    parent = item.parent
    connection.execute(
        f"INSERT OR REPLACE INTO instances ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608  # constant
        (
            *(item.instance_id, item.execution_id, item.name, item.version, item.status, int(item.suspended)),
            *(item.input_json, item.output, int(item.output_is_json), item.custom_status_json),
            *(item.created_at, item.updated_at),
            *((parent.instance_id, parent.execution_id, parent.task_id) if parent else (None, None, None)),
        ),
    )


def _touch_instance(connection: sqlite3.Connection, item: Instance) -> None:
    """Update what an ordinary episode changes, leaving the row in place.

    The status rarely changes, and to set it writes a page of its index: a quarter of what the commit has to sync.
    """
    touched = connection.execute(
        "UPDATE instances SET custom_status_json = ?, updated_at = ? WHERE instance_id = ? AND status = ?",
        (item.custom_status_json, item.updated_at, item.instance_id, item.status),
    )
    if touched.rowcount == 0:
        connection.execute(
            "UPDATE instances SET status = ?, custom_status_json = ?, updated_at = ? WHERE instance_id = ?",
            (item.status, item.custom_status_json, item.updated_at, item.instance_id),
        )


def get_instance(connection: sqlite3.Connection, instance_id: str) -> Instance | None:
    """The instance, or None."""
    query = f"SELECT {_COLUMNS} FROM instances WHERE instance_id = ?"  # noqa: S608  # constant column list
    row = connection.execute(query, (instance_id,)).fetchone()
    return _instance(row) if row else None


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Query conditions, all optional; times are stamps, `after` is the (created_at, instance_id) of the last row seen."""

    created_from: str | None = None
    created_to: str | None = None
    statuses: frozenset[str] = frozenset()
    prefix: str | None = None
    after: tuple[str, str] | None = None
    limit: int | None = None


def query_instances(connection: sqlite3.Connection, wanted: InstanceFilter) -> list[Instance]:
    """Instances in order of creation."""
    clauses, values = ["1=1"], list[object]()
    if wanted.created_from:
        clauses.append("created_at >= ?")
        values.append(wanted.created_from)
    if wanted.created_to:
        clauses.append("created_at <= ?")
        values.append(wanted.created_to)
    if wanted.prefix:
        clauses.append("substr(instance_id, 1, ?) = ?")
        values.extend((len(wanted.prefix), wanted.prefix))
    if wanted.after:
        clauses.append("(created_at, instance_id) > (?, ?)")
        values.extend(wanted.after)
    if wanted.statuses:
        marks = ",".join("?" * len(wanted.statuses))
        shown = "CASE WHEN suspended = 1 AND status IN ('Pending', 'Running') THEN 'Suspended' ELSE status END"
        clauses.append(f"{shown} IN ({marks})")
        values.extend(sorted(wanted.statuses))
    limit = f" LIMIT {int(wanted.limit)}" if wanted.limit is not None else ""
    query = f"SELECT {_COLUMNS} FROM instances WHERE {' AND '.join(clauses)}"  # noqa: S608  # values are parameters
    return [_instance(row) for row in connection.execute(f"{query} ORDER BY created_at, instance_id{limit}", values)]


def load_history(connection: sqlite3.Connection, instance_id: str) -> tuple[list[Event], int]:
    """All events of the current execution and the number of the next chunk."""
    rows = connection.execute(
        "SELECT chunk, events FROM history WHERE instance_id = ? ORDER BY chunk", (instance_id,)
    ).fetchall()
    events = [event for _, text in rows for event in load_chunk(text)]
    return events, rows[-1][0] + 1 if rows else 0


def load_inbox(connection: sqlite3.Connection, instance_id: str) -> list[InboxItem]:
    """Messages not consumed yet, oldest first."""
    rows = connection.execute(
        "SELECT id, execution_id, event, seen_at FROM inbox WHERE instance_id = ? ORDER BY id", (instance_id,)
    )
    return [InboxItem(row[0], row[1], from_row(json.loads(row[2])), row[3], row[3] is not None) for row in rows]


def add_inbox(connection: sqlite3.Connection, instance_id: str, execution_id: str | None, event: Event) -> InboxItem:
    """Store one message."""
    cursor = connection.execute(
        "INSERT INTO inbox (instance_id, execution_id, event) VALUES (?,?,?)",
        (instance_id, execution_id, json.dumps(to_row(event))),
    )
    assert cursor.lastrowid is not None
    return InboxItem(cursor.lastrowid, execution_id, event)


def add_answer(
    connection: sqlite3.Connection, instance_id: str, execution_id: str | None, event: Event
) -> InboxItem | None:
    """Store a message for one execution, unless that execution is over (then nobody would ever read it)."""
    found = connection.execute(
        "SELECT 1 FROM instances WHERE instance_id = ? AND execution_id = ? AND status IN ('Pending', 'Running')",
        (instance_id, execution_id),
    ).fetchone()
    return add_inbox(connection, instance_id, execution_id, event) if found else None


def add_entity_item(connection: sqlite3.Connection, item: EntityItem) -> EntityItem:
    """Store one entity operation; the result carries its queue number."""
    cursor = connection.execute(
        "INSERT INTO entity_inbox (entity_id, operation, input, request_id, caller_id, caller_execution_id)"
        " VALUES (?,?,?,?,?,?)",
        (item.entity_id, item.operation, item.input, item.request_id, item.caller_id, item.caller_execution_id),
    )
    assert cursor.lastrowid is not None
    return replace(item, id=cursor.lastrowid)


def append_chunk(connection: sqlite3.Connection, instance_id: str, chunk: int, events: Iterable[Event]) -> None:
    """Store one episode's events."""
    connection.execute("INSERT INTO history VALUES (?,?,?)", (instance_id, chunk, dump_chunk(events)))


def drop_pending(connection: sqlite3.Connection, instance_id: str) -> None:
    """Forget work and timers of an instance that ended or continued as new."""
    for table in ("work", "timers"):
        connection.execute(f"DELETE FROM {table} WHERE instance_id = ?", (instance_id,))  # noqa: S608  # fixed names


def purge(connection: sqlite3.Connection, instance_id: str) -> None:
    """Remove every trace of an instance."""
    drop_pending(connection, instance_id)
    for table in ("history", "inbox", "instances"):
        connection.execute(f"DELETE FROM {table} WHERE instance_id = ?", (instance_id,))  # noqa: S608  # fixed names


class DuplicateInstanceError(Exception):
    """An instance of that id exists and has not ended."""

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(f"An Orchestration instance with the status {status} already exists.")
        self.instance_id, self.status = instance_id, status


def start_instance(connection: sqlite3.Connection, item: Instance) -> None:
    """Create a pending instance, replacing a finished one of that id. DuplicateInstanceError if it is still alive."""
    existing = get_instance(connection, item.instance_id)
    if existing is not None:
        if not existing.is_terminal:
            raise DuplicateInstanceError(item.instance_id, existing.runtime_status)
        purge(connection, item.instance_id)
    put_instance(connection, item)


def commit_episode(connection: sqlite3.Connection, writes: EpisodeWrites) -> CommitResult:
    """One episode, all of it."""
    result = CommitResult()
    item = writes.instance
    if writes.reset:
        connection.execute("DELETE FROM history WHERE instance_id = ?", (item.instance_id,))
    if writes.reset or item.is_terminal:
        drop_pending(connection, item.instance_id)
    _consume(connection, writes)
    if writes.chunk > 0 and not item.is_terminal:
        _touch_instance(connection, item)
    else:
        put_instance(connection, item)
    if writes.events:
        append_chunk(connection, item.instance_id, writes.chunk, writes.events)
    _add_outgoing(connection, writes, result)
    if item.is_terminal:
        connection.execute("DELETE FROM inbox WHERE instance_id = ?", (item.instance_id,))
        if item.parent is not None and writes.notify is not None:
            message = add_answer(connection, item.parent.instance_id, item.parent.execution_id, writes.notify)
            if message is not None:
                result.inbox.setdefault(item.parent.instance_id, []).append(message)
    return result


def _consume(connection: sqlite3.Connection, writes: EpisodeWrites) -> None:
    item = writes.instance
    if writes.consumed_inbox:
        connection.executemany("DELETE FROM inbox WHERE id = ?", [(row,) for row in writes.consumed_inbox])
    for table, ids in (("work", writes.consumed_work), ("timers", writes.consumed_timers)):
        if ids:
            connection.executemany(
                f"DELETE FROM {table} WHERE instance_id = ? AND execution_id = ? AND task_id = ?",  # noqa: S608  # fixed
                [(item.instance_id, item.execution_id, task_id) for task_id in ids],
            )
    if writes.seen:
        marks = [(at, row) for row, at in writes.seen.items()]
        connection.executemany("UPDATE inbox SET seen_at = ? WHERE id = ?", marks)


def _add_outgoing(connection: sqlite3.Connection, writes: EpisodeWrites, result: CommitResult) -> None:
    item = writes.instance
    if writes.work:
        connection.executemany(
            "INSERT OR REPLACE INTO work VALUES (?,?,?,?,?,?)",
            [(w.instance_id, w.execution_id, w.task_id, w.kind, w.name, w.input) for w in writes.work],
        )
    if writes.timers:
        connection.executemany(
            "INSERT OR REPLACE INTO timers VALUES (?,?,?,?)",
            [(t.instance_id, t.execution_id, t.task_id, t.fire_at) for t in writes.timers],
        )
    for child in writes.children:
        _start_child(connection, child, result)
    result.entity_items = [add_entity_item(connection, entity) for entity in writes.entity_items]
    for event in writes.carried:
        message = add_inbox(connection, item.instance_id, None, event)
        result.inbox.setdefault(item.instance_id, []).append(message)


def _start_child(connection: sqlite3.Connection, child: Instance, result: CommitResult) -> None:
    try:
        start_instance(connection, child)
    except DuplicateInstanceError as err:
        assert child.parent is not None
        result.refused_children.append(child.instance_id)
        failed = SubFailed(child.created_at, child.parent.task_id, str(err), "")
        message = add_inbox(connection, child.parent.instance_id, child.parent.execution_id, failed)
        result.inbox.setdefault(child.parent.instance_id, []).append(message)


def notification(item: Instance, at: str) -> SubCompleted | SubFailed | None:
    """What the parent hears when `item` has ended."""
    if item.parent is None:
        return None
    if item.status == "Completed":
        return SubCompleted(at, item.parent.task_id, item.output)
    message = item.output or item.status
    return SubFailed(at, item.parent.task_id, message, f"Message: {message}, StackTrace: ")


PENDING_STARTS = "status = 'Pending' AND suspended = 0 AND parent_id IS NULL"
"""Rows of instances that a client started and that have not run yet."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a restarted host finds to do. `pending`: those of `instances` that a client started and that have not run yet."""

    instances: list[str]
    pending: list[str]
    work: list[WorkItem]
    timers: list[TimerItem]
    entities: list[str]


def load_unfinished(connection: sqlite3.Connection) -> Unfinished:
    """Instances to wake (pending, or with messages), work to dispatch again, timers to arm, entities to drain."""
    wake = connection.execute(
        "SELECT instance_id FROM instances i WHERE status = 'Pending' OR (status = 'Running' AND NOT EXISTS"
        " (SELECT 1 FROM history h WHERE h.instance_id = i.instance_id)) UNION"
        " SELECT i.instance_id FROM inbox b JOIN instances i ON i.instance_id = b.instance_id"
        " WHERE i.status IN ('Pending', 'Running')"
    )
    instances = [row[0] for row in wake]
    pending = [row[0] for row in connection.execute(f"SELECT instance_id FROM instances WHERE {PENDING_STARTS}")]  # noqa: S608  # constant
    work = [WorkItem(*row) for row in connection.execute("SELECT * FROM work ORDER BY instance_id, task_id")]
    timers = [
        TimerItem(*row)
        for row in connection.execute(
            "SELECT t.instance_id, t.execution_id, t.task_id, t.fire_at, coalesce(i.updated_at, '') FROM timers t"
            " LEFT JOIN instances i ON i.instance_id = t.instance_id ORDER BY t.fire_at"
        )
    ]
    entities = [row[0] for row in connection.execute("SELECT DISTINCT entity_id FROM entity_inbox")]
    return Unfinished(instances, pending, work, timers, entities)
