"""The real stores without threads, and the faults in front of them.

The SQL adapters and the durable storage do their work in threads of their own, which is right in a process and makes a seed
unrepeatable. Here the same transactions run inline, with a seeded number of turns of the loop around each of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, event

from engine.adapters.memory import (
    MemoryApprovalStore,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryEventLog,
    MemoryPayloadStore,
    MemoryRunStore,
)
from engine.adapters.sql import (
    Database,
    SqlApprovalStore,
    SqlAuditLog,
    SqlBudgetLedger,
    SqlCallLedger,
    SqlEventLog,
    SqlRunStore,
)
from engine.domain.audit import AuditRecord
from engine.domain.errors import LivoaError
from engine.domain.run import StepRecord
from engine.domain.tenant import TenantConfig
from engine.ports.calls import CallLedger, Closing, Opened, Opening, OutOfBudget
from local_host.durable.clock import VirtualClock
from local_host.durable.storage import Storage, StorageError
from tests.chaos.adversary import Adversary
from tests.chaos.observer import Observer
from tests.chaos.plans import REVOCABLE

T = TypeVar("T")


class Mortal(Protocol):
    """A host that may die."""

    adversary: Adversary
    observer: Observer
    clock: VirtualClock

    @property
    def is_dead(self) -> bool:
        """True when nothing of this host has an effect any more."""
        ...

    def die(self, place: str) -> None:
        """Die."""
        ...

    async def point(self, place: str) -> None:
        """A place where others may overtake and the host may die; a dead host never gets past it."""
        ...


class InlineDatabase(Database):
    """The database with its transactions on the calling thread. Without syncing: it is the process that dies here."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See ``Database.read``."""
        return self._transact(work, False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See ``Database.write``."""
        return self._transact(work, True)

    def _open(self) -> Engine:
        engine = super()._open()
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return engine


class InlineStorage(Storage):
    """The durable storage with its transactions on the calling thread; its host may die before or after each of them."""

    def __init__(self, path: Path, host: Mortal) -> None:
        super().__init__(path, synchronous="NORMAL")
        self._host = host
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See ``Storage.open``."""
        self._connection = self._connect()

    async def close(self) -> None:
        """See ``Storage.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """See ``Storage.write``."""
        await asyncio.sleep(0)
        fault = self._host.adversary.crashes_at_commit() if not self._host.is_dead else "no"
        if fault == "before":
            self._host.die("commit:before")
        value = await self._request(change)
        if fault == "after":
            self._host.die("commit:after")
            raise OSError("the host is dead")
        return value

    async def _request(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._host.is_dead:
            raise OSError("the host is dead")
        connection = self._connection
        if connection is None:
            raise StorageError("not open")
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = function(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return value


class RawStores:
    """The stores themselves, which outlive every host."""

    def __init__(self, lane: str, path: Path, clock: VirtualClock, tenant: TenantConfig) -> None:
        self.payloads = MemoryPayloadStore()
        self.tenants = RevocableTenants(tenant)
        self.database = InlineDatabase(f"sqlite:///{path / 'livoa.db'}", clock) if lane == "sqlite" else None
        self.ledger: type[SqlCallLedger] = SqlCallLedger
        self.runs: Any
        self.events: Any
        self.audit: Any
        self.budgets: Any
        self.approvals: Any
        if self.database is not None:
            self.runs, self.events = SqlRunStore(self.database, clock), SqlEventLog(self.database, clock)
            self.audit, self.budgets = SqlAuditLog(self.database), SqlBudgetLedger(self.database)
            self.approvals = SqlApprovalStore(self.database, clock)
        else:
            self.runs = MemoryRunStore(clock)
            self.events, self.audit, self.budgets = MemoryEventLog(self.runs), MemoryAuditLog(), MemoryBudgetLedger()
            self.approvals = MemoryApprovalStore(self.runs, clock)

    def calls(self, host: Mortal) -> CallLedger | None:
        """The ledger of calls as one host has it."""
        return observed(self.ledger)(FaultyCommits(self.database, host), self.audit) if self.database else None

    async def close(self) -> None:
        """Close what is open."""
        if self.database is not None:
            self.database._dispose()


class RevocableTenants:
    """One tenant, which may lose a capability while its runs go on."""

    def __init__(self, tenant: TenantConfig) -> None:
        self._tenant = tenant
        self.revoked = False

    def revoke(self) -> None:
        """Take the revocable capability away."""
        self.revoked = True
        enabled = tuple(name for name in self._tenant.enabled_capabilities if name != REVOCABLE)
        self._tenant = self._tenant.model_copy(update={"enabled_capabilities": enabled})

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.get``."""
        return self._tenant if tenant_id == self._tenant.tenant_id else None


class FaultyCommits:
    """The database as a ledger of calls has it: each commit may be refused, or made and denied, or its host dies around it.

    Faults of all stores whose writes are in it are faults of the commit.
    """

    def __init__(self, database: InlineDatabase, host: Mortal) -> None:
        self._database, self._host = database, host
        self.clock, self.wakeups = database.clock, database.wakeups
        self._audit = SqlAuditLog(database)
        self.done: list[tuple[str, StepRecord, AuditRecord | None, bool | None]] = []

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See ``Database.write``."""
        host = self._host
        await host.point("calls.commit:before")
        for store in ("runs", "budgets", "audit"):
            if (refusal := host.adversary.refusal(store, host.clock.steady_at)) is not None:
                host.observer.faults["calls.commit refused"] += 1
                raise refusal
        self.done.clear()
        result = await self._database.write(work)
        for method, step, record, written in self.done:
            stands = record is not None and await self._audit.find(record.tenant_id, record.entry_id) == record
            host.observer.wrote("calls", method, (step, record.entry_id if record and stands else None), written)
        await host.point("calls.commit:after")
        if host.adversary.loses_answer("calls"):
            host.observer.faults["calls.commit answer lost"] += 1
            raise LivoaError("store.unavailable", "the answer was lost", status=503)
        return result


def observed(ledger: type[SqlCallLedger]) -> type[Any]:
    """The same ledger, which tells its database what each transaction was about."""

    class Observed(ledger):  # type: ignore[valid-type, misc]  # made for the ledger that a test plants
        def _open(self, connection: Connection, opening: Opening, wanted: Any) -> Any:
            result = super()._open(connection, opening, wanted)
            record = result.intent if isinstance(result, Opened) else None
            written = None if isinstance(result, OutOfBudget) else isinstance(result, Opened)
            self._database.done.append(("open", opening.step.record, record, written))
            return result

        def _close(self, connection: Connection, closing: Closing, wanted: Any) -> Any:
            written, record = super()._close(connection, closing, wanted)
            self._database.done.append(("close", closing.step.record, record, written))
            return written, record

    return Observed


class Chaotic:
    """Any store behind the faults of one host: it refuses, it does it and says it did not, or the host dies around it."""

    def __init__(self, inner: Any, name: str, host: Mortal) -> None:
        self._inner, self._name, self._host = inner, name, host

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._inner, method)
        name, host = self._name, self._host
        place = f"{name}.{method}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            await host.point(f"{place}:before")
            refusal = host.adversary.refusal(name, host.clock.steady_at)
            if refusal is not None:
                host.observer.faults[f"{place} refused"] += 1
                raise refusal
            result = await real(*args, **kwargs)
            host.observer.wrote(name, method, args, result)
            await host.point(f"{place}:after")
            if host.adversary.loses_answer(name):
                host.observer.faults[f"{place} answer lost"] += 1
                raise LivoaError("store.unavailable", "the answer was lost", status=503)
            return result

        return call
