"""Everything of one run lies in one logical partition, so that a change and the events that report it are one transaction.

Every write replaces the run's own document under its etag; that puts all writers of a run in one line, as a row lock would. One
write makes at most one document of events (1 to n of them), whose id is the number of its first event: created twice, it is a
conflict, so the log has no gap and no fork even if the etag were not there.

A write whose answer was lost is found again by its ``writeId``: in its document of events or, when it has none, in a marker that
expires by itself. The look comes after the run was read anew, so that a write which lands later than the look fails on the etag.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from engine.adapters.cosmos.connection import CosmosConnection, MovedError, UnsureError
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.event_keys import EventKeys, events_id
from engine.adapters.cosmos.repository import Create, Document, Find, Operation, Put, Replace, TenantRepository
from engine.adapters.store_rules import MAX_LIMIT, distinct, event_data, event_data_text, run_not_found
from engine.adapters.wakeups import Wakeups
from engine.domain.base import iso_utc
from engine.domain.events import EventType, NewEvent, RunEvent
from engine.domain.run import Run
from engine.domain.run_messages import LIFECYCLE_EVENTS
from engine.ports.clock import Clock

T = TypeVar("T")
RUN_ID = "run"
MARKER_TTL_S = 600
_KEYS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Write(Generic[T]):
    """What one write makes of a run: the run as it is now (None: as before), new events, other documents. ``result`` is the
    answer to its caller."""

    result: T
    run: Run | None = None
    events: Sequence[NewEvent] = ()
    documents: Sequence[Document] = ()
    appended: list[RunEvent] = field(default_factory=list)
    """Filled with the events as they were numbered."""

    @property
    def is_nothing(self) -> bool:
        """True when there is nothing to write."""
        return self.run is None and not self.events and not self.documents


@dataclass(frozen=True, slots=True)
class Head:
    """A run as it stands, the number of its last event, and the etag that both hold under."""

    run: Run
    last_seq: int
    etag: str
    create_id: str


class RunState:
    """One run during one attempt of a write."""

    def __init__(self, repository: TenantRepository, head: Head, known: EventKeys) -> None:
        self._repository, self.head, self._known = repository, head, known

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return self.head.run

    async def unknown(self, events: Sequence[NewEvent]) -> list[NewEvent]:
        """Those of ``events`` whose keys the log does not have yet."""
        by_key = distinct(events)
        for event in by_key.values():
            event_data_text(event)
        if self.head.last_seq == 0 or not by_key:
            return list(by_key.values())
        there = await self._known.of(self._repository, self.run.tenant_id, self.run.run_id, self.head.last_seq)
        if there is not None:
            return [event for key, event in by_key.items() if key not in there]
        return await self._asked(by_key)

    async def _asked(self, by_key: dict[str, NewEvent]) -> list[NewEvent]:
        """As ``unknown``, by a query: for a log that is too long to be held."""
        keys = list(by_key)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            wanted = {f"k{n}": key for n, key in enumerate(keys[start : start + _KEYS_AT_ONCE])}
            where = " OR ".join(f"ARRAY_CONTAINS(c.eventKeys, @{name})" for name in wanted)
            find = Find(f"c.kind = 'events' AND ({where})", wanted, MAX_LIMIT, fields=("eventKeys",))
            for document in await self._repository.find(find, self.run.run_id):
                for key in document["eventKeys"]:
                    by_key.pop(key, None)
        return list(by_key.values())

    async def find(self, find: Find) -> list[Document]:
        """Other documents of the run."""
        return await self._repository.find(find, self.run.run_id)

    async def read(self, document_id: str) -> Document | None:
        """Another document of the run."""
        return await self._repository.read(self.run.run_id, document_id)


@dataclass(frozen=True, slots=True)
class _Tried(Generic[T]):
    document_id: str
    write_id: str
    write: Write[T]


class RunPartitions:
    """Runs by tenant and id, and the writing of them. Shared by the stores that write into a run.

    With ``outbox``, events that other systems are told of are put there too, in the same transaction.
    """

    def __init__(
        self, connection: CosmosConnection, clock: Clock, *, wakeups: Wakeups | None = None, outbox: bool = False
    ) -> None:
        self.connection, self.clock, self._outbox = connection, clock, outbox
        self.wakeups = wakeups or Wakeups()
        self._known = EventKeys()
        self._locks: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()

    def repository(self, tenant_id: str) -> TenantRepository:
        """The tenant's documents in the container of runs."""
        return TenantRepository(self.connection, RUNS, tenant_id)

    async def head(self, tenant_id: str, run_id: str) -> Head | None:
        """The run, or None."""
        document = await self.repository(tenant_id).read(run_id, RUN_ID)
        return _head(document) if document is not None else None

    async def create(self, run: Run, events: Sequence[NewEvent], create_id: str, at: datetime) -> None:
        """Create a run and its first events. Raises ``MovedError`` and ``UnsureError``."""
        new = list(distinct(events).values())
        documents: list[Operation] = [Create(run_document(run, len(new), create_id, create_id))]
        if new:
            first = numbered(run, 0, new, at)
            documents.append(Create(events_document(first, [e.key for e in new], create_id)))
            documents += self._for_others(first)
        await self.repository(run.tenant_id).write(run.run_id, documents)

    async def write(self, tenant_id: str, run_id: str, plan: Callable[[RunState], Awaitable[Write[T]]]) -> Write[T]:
        """Carry out what ``plan`` makes of the run, all of it or nothing. ``plan`` may be asked several times.

        Raises ``NotFoundError("run.not_found")``, what ``plan`` raises, and ``LivoaError`` when the database cannot.
        """
        tried: list[_Tried[T]] = []
        lock = self._locks.setdefault((id(asyncio.get_running_loop()), tenant_id, run_id), asyncio.Lock())

        async def attempt() -> Write[T]:
            head = await self.head(tenant_id, run_id)
            if head is None:
                raise run_not_found(run_id)
            if tried and await self._landed(tenant_id, run_id, tried[-1]):
                return tried[-1].write
            tried.clear()
            write = await plan(RunState(self.repository(tenant_id), head, self._known))
            if not write.is_nothing:
                await self._carry_out(head, write, tried)
            return write

        # Writers of this process wait for each other instead of running into each other's etags.
        async with lock:
            done = await self.connection.settled(attempt)
        if not done.is_nothing:
            self.wakeups.notify((tenant_id, run_id))
        return done

    async def _carry_out(self, head: Head, write: Write[T], tried: list[_Tried[T]]) -> None:
        run, write_id = write.run or head.run, secrets.token_hex(8)
        write.appended[:] = numbered(run, head.last_seq, write.events, self.clock.now())
        if write.appended:
            trace = events_document(write.appended, [event.key for event in write.events], write_id)
        else:
            trace = {"id": f"write:{write_id}", "kind": "write", "writeId": write_id, "ttl": MARKER_TTL_S}
        document = run_document(run, head.last_seq + len(write.appended), head.create_id, write_id)
        operations: list[Operation] = [Replace(document, head.etag), Create(trace)]
        operations += [Put(other) for other in write.documents]
        operations += self._for_others(write.appended)
        tried[:] = [_Tried(trace["id"], write_id, write)]
        await self.repository(run.tenant_id).write(run.run_id, operations)
        if write.appended:
            self._known.written(run.tenant_id, run.run_id, head.last_seq + 1, [event.key for event in write.events])

    def _for_others(self, events: Sequence[RunEvent]) -> list[Operation]:
        """What goes into the outbox with these events, where there is one."""
        told = [event for event in events if event.type in LIFECYCLE_EVENTS] if self._outbox else []
        return [Create(outbox_document(told))] if told else []

    async def _landed(self, tenant_id: str, run_id: str, tried: _Tried[T]) -> bool:
        found = await self.repository(tenant_id).read(run_id, tried.document_id)
        return found is not None and found.get("writeId") == tried.write_id


async def created(
    partitions: RunPartitions, run: Run, events: Sequence[NewEvent], create_id: str, at: datetime
) -> Head:
    """Create the run, or find the one that is there: ``head.create_id`` tells whose it is."""

    async def attempt() -> Head:
        # Who was first shows when the run is read.
        with suppress(MovedError):
            await partitions.create(run, events, create_id, at)
        head = await partitions.head(run.tenant_id, run.run_id)
        if head is None:
            raise UnsureError
        return head

    return await partitions.connection.settled(attempt)


def run_document(run: Run, last_seq: int, create_id: str, write_id: str) -> Document:
    """A run as it is stored: the text of it, and the fields that queries look at."""
    return {
        "id": RUN_ID,
        "kind": "run",
        "status": run.status.value,
        "createdAt": iso_utc(run.created_at),
        "updatedAt": iso_utc(run.updated_at),
        "lastSeq": last_seq,
        "createId": create_id,
        "writeId": write_id,
        "document": run.model_dump_json(),
    }


def run_of(document: Document) -> Run:
    """The inverse of ``run_document``."""
    return Run.model_validate_json(document["document"])


def numbered(run: Run, last_seq: int, events: Sequence[NewEvent], at: datetime) -> list[RunEvent]:
    """Events as they stand in the log after ``last_seq``."""
    return [
        RunEvent(
            tenant_id=run.tenant_id,
            run_id=run.run_id,
            seq=seq,
            type=event.type,
            at=at,
            data=event_data(event_data_text(event)),
        )
        for seq, event in enumerate(events, start=last_seq + 1)
    ]


def events_document(events: Sequence[RunEvent], keys: Sequence[str], write_id: str) -> Document:
    """The events of one write as one document, so that any number of them is written or not."""
    return {
        "id": events_id(events[0].seq),
        "kind": "events",
        "seq": events[0].seq,
        "lastSeq": events[-1].seq,
        "eventKeys": list(keys),
        "writeId": write_id,
        "events": [event.model_dump_json() for event in events],
    }


def outbox_document(events: Sequence[RunEvent]) -> Document:
    """Events of one write that other systems are to be told of."""
    return {
        "id": f"outbox:{events[0].seq:010d}",
        "kind": "outbox",
        "seq": events[0].seq,
        "lastSeq": events[-1].seq,
        "at": iso_utc(events[0].at),
        "events": [event.model_dump_json() for event in events],
    }


def events_of(document: Document) -> list[RunEvent]:
    """The inverse of ``events_document``."""
    return [RunEvent.model_validate_json(text) for text in document["events"]]


def id_of(kind: str, *parts: str) -> str:
    """An id out of text that an id may not contain, of bounded length."""
    return f"{kind}:{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()}"


def _head(document: Document) -> Head:
    return Head(run_of(document), document["lastSeq"], document["_etag"], document["createId"])


__all__ = ["EventType", "Head", "RunPartitions", "RunState", "Write", "created", "events_of", "id_of", "run_of"]
