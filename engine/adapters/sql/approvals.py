"""Approvals in the database of the runs. Every write takes the run's row first, as all writers of a run do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.adapters.approval_rules import (
    MAX_OF_RUN,
    ApprovalWrite,
    closed,
    is_call_under_way,
    not_found,
    replied,
    requested,
)
from engine.adapters.sql.engine import Database
from engine.adapters.sql.event_log import insert_events
from engine.adapters.sql.run_store import LockedRun, lock_run, store_run
from engine.adapters.sql.tables import APPROVALS, RUNS, STEPS
from engine.adapters.store_rules import NO_ITEM, bounded, changed
from engine.domain.approval import Approval, ApprovalAnswer, ApprovalStatus
from engine.domain.base import iso_utc
from engine.domain.run import StepRecord
from engine.domain.status import FINAL_RUN_STATUSES, StepStatus
from engine.ports.clock import Clock
from engine.ports.run_store import RunChange

T = TypeVar("T")

_OF_RUN = (APPROVALS.c.tenant_id == bindparam("p_tenant"), APPROVALS.c.run_id == bindparam("p_run"))
_ONE = select(APPROVALS.c.document).where(*_OF_RUN, APPROVALS.c.approval_id == bindparam("p_approval"))
_ALL = (
    select(APPROVALS.c.document)
    .where(*_OF_RUN)
    .order_by(APPROVALS.c.requested_at.desc(), APPROVALS.c.approval_id.desc())
    .limit(MAX_OF_RUN)
)
_OF_PLACE = select(APPROVALS.c.document).where(
    *_OF_RUN,
    APPROVALS.c.subject == bindparam("p_subject"),
    APPROVALS.c.item == bindparam("p_item"),
    APPROVALS.c.approval_id != bindparam("p_approval"),
)
_OPEN = select(APPROVALS.c.document).where(*_OF_RUN, APPROVALS.c.status == ApprovalStatus.PENDING.value)
_PENDING = (
    select(APPROVALS.c.document)
    .join(RUNS, (RUNS.c.tenant_id == APPROVALS.c.tenant_id) & (RUNS.c.run_id == APPROVALS.c.run_id))
    .where(
        APPROVALS.c.tenant_id == bindparam("p_tenant"),
        APPROVALS.c.status == ApprovalStatus.PENDING.value,
        RUNS.c.status.not_in(sorted(status.value for status in FINAL_RUN_STATUSES)),
    )
    .order_by(APPROVALS.c.requested_at, APPROVALS.c.approval_id)
    .limit(bindparam("p_limit"))
)
_ANSWERED = (
    select(APPROVALS.c.document)
    .join(RUNS, (RUNS.c.tenant_id == APPROVALS.c.tenant_id) & (RUNS.c.run_id == APPROVALS.c.run_id))
    .where(
        APPROVALS.c.decided_at >= bindparam("p_since"),
        APPROVALS.c.status.in_((ApprovalStatus.GRANTED.value, ApprovalStatus.REFUSED.value)),
        RUNS.c.status.not_in(sorted(status.value for status in FINAL_RUN_STATUSES)),
    )
    .order_by(APPROVALS.c.decided_at, APPROVALS.c.approval_id)
    .limit(bindparam("p_limit"))
)
_SET = (
    update(APPROVALS)
    .where(*_OF_RUN, APPROVALS.c.approval_id == bindparam("p_approval"))
    .values(status=bindparam("p_status"), decided_at=bindparam("p_decided_at"), document=bindparam("p_document"))
)
# Items first: one of them that runs decides it, and steps that run are as few as the cap on parallel steps.
_RUNNING = (
    select(STEPS.c.document)
    .where(
        STEPS.c.tenant_id == bindparam("p_tenant"),
        STEPS.c.run_id == bindparam("p_run"),
        STEPS.c.status == StepStatus.RUNNING.value,
    )
    .order_by(STEPS.c.item.desc())
    .limit(100)
)


class SqlApprovalStore:
    """Approvals in a ``Database``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def request(self, approval: Approval) -> Approval:
        """See ``ApprovalStore.request``."""
        key = {"p_tenant": approval.tenant_id, "p_run": approval.run_id}

        def work(connection: Connection) -> Approval:
            locked = lock_run(connection, approval.tenant_id, approval.run_id)
            one = key | {"p_approval": approval.approval_id}
            document = connection.execute(_ONE, one).scalar()
            known = Approval.model_validate_json(document) if document is not None else None
            place = {"p_subject": approval.subject, "p_item": _item(approval)}
            others = [
                other
                for other in _parsed(connection.execute(_OF_PLACE, one | place).scalars())
                if other.binding.place == approval.binding.place
            ]
            running = (StepRecord.model_validate_json(text) for text in connection.execute(_RUNNING, key).scalars())
            busy = any(is_call_under_way(record) for record in running)
            now = self._clock.now()
            write = requested(locked.run, approval, known, others, busy=busy, now=now)
            if known is None:
                connection.execute(insert(APPROVALS), _row(approval))
            return _apply(connection, locked, write, now)

        return await self._write(work, approval.tenant_id, approval.run_id)

    async def get(self, tenant_id: str, run_id: str, approval_id: str) -> Approval | None:
        """See ``ApprovalStore.get``."""
        one = {"p_tenant": tenant_id, "p_run": run_id, "p_approval": approval_id}
        document = await self._database.read(lambda connection: connection.execute(_ONE, one).scalar())
        return Approval.model_validate_json(document) if document is not None else None

    async def of_run(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.of_run``."""
        return (await self._read(_ALL, {"p_tenant": tenant_id, "p_run": run_id}))[::-1]

    async def pending(self, tenant_id: str, *, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.pending``. At most 1,000 approvals."""
        return await self._read(_PENDING, {"p_tenant": tenant_id, "p_limit": bounded(limit)})

    async def answer(self, tenant_id: str, run_id: str, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """See ``ApprovalStore.answer``."""
        one = {"p_tenant": tenant_id, "p_run": run_id, "p_approval": approval_id}

        def work(connection: Connection) -> Approval:
            locked = lock_run(connection, tenant_id, run_id)
            document = connection.execute(_ONE, one).scalar()
            if document is None:
                raise not_found()
            now = self._clock.now()
            write = replied(locked.run, Approval.model_validate_json(document), answer, now)
            return _apply(connection, locked, write, now)

        return await self._write(work, tenant_id, run_id)

    async def close(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.close``."""

        def work(connection: Connection) -> tuple[Approval, ...]:
            locked = lock_run(connection, tenant_id, run_id)
            now = self._clock.now()
            pending = _parsed(connection.execute(_OPEN, {"p_tenant": tenant_id, "p_run": run_id}).scalars())
            void = closed(pending, now)
            if void and not locked.run.status.is_final:
                _apply(connection, locked, ApprovalWrite(void[0], void), now)
            return void

        return await self._write(work, tenant_id, run_id)

    async def answered_since(self, since: datetime, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.answered_since``. At most 1,000 approvals."""
        return await self._read(_ANSWERED, {"p_since": iso_utc(since), "p_limit": bounded(limit)})

    async def _read(self, query: Any, parameters: dict[str, Any]) -> tuple[Approval, ...]:
        documents = await self._database.read(lambda connection: connection.execute(query, parameters).scalars().all())
        return tuple(_parsed(documents))

    async def _write(self, work: Callable[[Connection], T], tenant_id: str, run_id: str) -> T:
        result = await self._database.write(work)
        self._database.wakeups.notify((tenant_id, run_id))
        return result


def _apply(connection: Connection, locked: LockedRun, write: ApprovalWrite, now: datetime) -> Approval:
    """Write the approvals, their events and the run's status; the rows of new approvals stand already."""
    for approval in write.changed:
        connection.execute(_SET, _values(approval))
    run = locked.run
    rows = insert_events(connection, run.tenant_id, run.run_id, locked.last_seq, write.events, now)
    if write.run_status is not None:
        run = changed(run, RunChange(status=write.run_status), now, only_from=None, repeated=False)
    if rows or write.run_status is not None:
        store_run(connection, run, locked.last_seq + len(rows))
    return write.result


def _parsed(documents: Iterable[str]) -> list[Approval]:
    return [Approval.model_validate_json(document) for document in documents]


def _item(approval: Approval) -> int:
    return NO_ITEM if approval.binding.item is None else approval.binding.item


def _row(approval: Approval) -> dict[str, Any]:
    return {
        "tenant_id": approval.tenant_id,
        "run_id": approval.run_id,
        "approval_id": approval.approval_id,
        "subject": approval.subject,
        "item": _item(approval),
        "status": approval.status.value,
        "requested_at": iso_utc(approval.requested_at),
        "decided_at": iso_utc(approval.decided_at) if approval.decided_at is not None else None,
        "document": approval.model_dump_json(),
    }


def _values(approval: Approval) -> dict[str, Any]:
    row = _row(approval)
    key = {"p_tenant": row["tenant_id"], "p_run": row["run_id"], "p_approval": row["approval_id"]}
    return key | {f"p_{name}": row[name] for name in ("status", "decided_at", "document")}
