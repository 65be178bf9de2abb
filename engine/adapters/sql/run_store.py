"""Runs and their steps. Every write takes the run's row first, so that all writers of one run stand in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, insert, or_, select, update

from engine.adapters.run_cursor import cursor_after, position_of
from engine.adapters.sql.engine import Database
from engine.adapters.sql.event_log import insert_events
from engine.adapters.sql.prepared import Prepared
from engine.adapters.sql.tables import CLAIMS, RUNS, STEPS
from engine.adapters.store_rules import (
    NO_ITEM,
    bounded,
    changed,
    counted,
    distinct,
    follows,
    is_over,
    resumed,
    run_not_found,
    same_request,
    unfinished_among,
)
from engine.domain.base import iso_utc
from engine.domain.events import NewEvent
from engine.domain.run import Run, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.ports.calls import StepWrite
from engine.ports.clock import Clock
from engine.ports.run_store import (
    ALL_RUNS,
    MAX_COUNTED,
    CreateResult,
    IdempotencyClaim,
    RunChange,
    RunCounts,
    RunFilter,
    RunPage,
)

_OF_RUN = (RUNS.c.tenant_id == bindparam("p_tenant"), RUNS.c.run_id == bindparam("p_run"))
_SELECT_RUN = select(RUNS).where(*_OF_RUN)
_RUN = Prepared(_SELECT_RUN)
_LOCKED_RUN = Prepared(_SELECT_RUN.with_for_update())
_UPDATE_RUN = (
    update(RUNS)
    .where(*_OF_RUN)
    .values(
        {name: bindparam(f"p_{name}") for name in ("status", "updated_at", "version", "cost_micro_usd", "last_seq")}
    )
)
_SET_RUN = Prepared(_UPDATE_RUN)
_SET_LAST_SEQ = Prepared(update(RUNS).where(*_OF_RUN).values(last_seq=bindparam("p_seq")))
_SET_RUN_DOCUMENT = Prepared(_UPDATE_RUN.values(document=bindparam("p_document")))
_CLAIM = select(CLAIMS.c.request_sha256, CLAIMS.c.run_id).where(
    CLAIMS.c.tenant_id == bindparam("p_tenant"),
    CLAIMS.c.subject == bindparam("p_subject"),
    CLAIMS.c.key_sha256 == bindparam("p_key"),
)
_KEPT_RUNS = 256
"""How many documents of runs a process keeps parsed; one takes a few kilobytes."""
_OF_STEP = (
    STEPS.c.tenant_id == bindparam("p_tenant"),
    STEPS.c.run_id == bindparam("p_run"),
    STEPS.c.step_id == bindparam("p_step"),
    STEPS.c.item == bindparam("p_item"),
)
_STEP = Prepared(select(STEPS.c.document).where(*_OF_STEP))
_STATE_OF_STEP = Prepared(select(STEPS.c.status, STEPS.c.attempt).where(*_OF_STEP))
_ADD_STEP = Prepared(insert(STEPS))
_SET_STEP = Prepared(
    update(STEPS)
    .where(*_OF_STEP)
    .values(status=bindparam("p_status"), attempt=bindparam("p_attempt"), document=bindparam("p_document"))
)
_STEPS_OF_RUN = (
    select(STEPS.c.document)
    .where(STEPS.c.tenant_id == bindparam("p_tenant"), STEPS.c.run_id == bindparam("p_run"), STEPS.c.item == NO_ITEM)
    .order_by(STEPS.c.step_id)
)
_ITEMS_OF_STEP = select(STEPS.c.document).where(*_OF_STEP[:3], STEPS.c.item > NO_ITEM).order_by(STEPS.c.item)
_UNFINISHED = (
    select(RUNS)
    .where(RUNS.c.status.in_(bindparam("p_statuses", expanding=True)))
    .order_by(RUNS.c.created_at, RUNS.c.run_id, RUNS.c.tenant_id)
    .limit(bindparam("p_limit"))
)


class SqlRunStore:
    """Runs and steps in a ``Database``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, run: Run, events: Sequence[NewEvent], claim: IdempotencyClaim | None) -> CreateResult:
        """See ``RunStore.create``."""

        def work(connection: Connection) -> CreateResult:
            found = _existing(connection, run, claim)
            if found is not None:
                return found
            # The row stands before its events refer to it; a run created by a racing twin is a conflict, tried again above.
            connection.execute(insert(RUNS), _run_row(run) | {"last_seq": len(distinct(events))})
            insert_events(connection, run.tenant_id, run.run_id, 0, events, self._clock.now())
            if claim is not None:
                connection.execute(insert(CLAIMS), _claim_row(run, claim))
            return CreateResult("created", run)

        return await self._database.write(work)

    async def get(self, tenant_id: str, run_id: str) -> Run | None:
        """See ``RunStore.get``."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id}
        row = await self._database.read(lambda connection: _RUN.first(connection, parameters))
        return run_of_row(row) if row is not None else None

    async def page(
        self,
        tenant_id: str,
        *,
        status: RunStatus | None,
        cursor: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunPage:
        """See ``RunStore.page``. At most 1,000 runs a page."""
        size = bounded(limit)
        which = RunFilter(status, since, until)
        position = position_of(cursor, tenant_id, which) if cursor is not None else None
        query = _narrowed(select(RUNS), tenant_id, which, position).limit(size + 1)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        runs = tuple(run_of_row(row) for row in rows[:size])
        return RunPage(runs, cursor_after(runs[-1], which) if len(rows) > size else None)

    async def counts(self, tenant_id: str, which: RunFilter = ALL_RUNS) -> RunCounts:
        """See ``RunStore.counts``. An index holds all that is read."""
        newest = _narrowed(select(RUNS.c.status), tenant_id, which, None).limit(MAX_COUNTED + 1)
        rows = await self._database.read(lambda connection: connection.execute(newest).scalars().all())
        return counted([RunStatus(status) for status in rows])

    async def change(
        self,
        tenant_id: str,
        run_id: str,
        change: RunChange,
        events: Sequence[NewEvent] = (),
        *,
        only_from: frozenset[RunStatus] | None = None,
    ) -> Run:
        """See ``RunStore.change``."""

        def work(connection: Connection) -> Run:
            row = _locked(connection, tenant_id, run_id)
            now = self._clock.now()
            appended = insert_events(connection, tenant_id, run_id, row.last_seq, events, now)
            repeated = bool(events) and not appended
            run = changed(run_of_row(row), change, now, only_from=only_from, repeated=repeated)
            values = _run_values(run, row.last_seq + len(appended)) | {"p_document": run.model_dump_json()}
            _SET_RUN_DOCUMENT.run(connection, values)
            return run

        run = await self._database.write(work)
        self._database.wakeups.notify((tenant_id, run_id))
        return run

    async def put_step(self, step: StepRecord, events: Sequence[NewEvent] = (), *, add_cost_micro_usd: int = 0) -> bool:
        """See ``RunStore.put_step``."""

        def work(connection: Connection) -> bool:
            place = place_of_step(connection, step)
            if place is None:
                return False
            write_step(connection, StepWrite(step, tuple(events), add_cost_micro_usd), place, self._clock.now())
            return True

        written = await self._database.write(work)
        if written:
            self._database.wakeups.notify((step.tenant_id, step.run_id))
        return written

    async def get_step(self, tenant_id: str, run_id: str, step_id: str, item: int | None = None) -> StepRecord | None:
        """See ``RunStore.get_step``."""
        parameters = _step_key(tenant_id, run_id, step_id, item)
        document = await self._database.read(lambda connection: _STEP.scalar(connection, parameters))
        return StepRecord.model_validate_json(document) if document is not None else None

    async def get_with_step(
        self, tenant_id: str, run_id: str, step_id: str, item: int | None = None
    ) -> tuple[Run | None, StepRecord | None]:
        """See ``RunStore.get_with_step``."""
        run, step = {"p_tenant": tenant_id, "p_run": run_id}, _step_key(tenant_id, run_id, step_id, item)
        row, document = await self._database.read(
            lambda connection: (_RUN.first(connection, run), _STEP.scalar(connection, step))
        )
        if row is None:
            return None, None
        return run_of_row(row), StepRecord.model_validate_json(document) if document is not None else None

    async def steps(self, tenant_id: str, run_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.steps``."""
        return await self._records(_STEPS_OF_RUN, {"p_tenant": tenant_id, "p_run": run_id})

    async def items(self, tenant_id: str, run_id: str, step_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.items``."""
        return await self._records(_ITEMS_OF_STEP, {"p_tenant": tenant_id, "p_run": run_id, "p_step": step_id})

    async def unfinished(self, limit: int, *, statuses: frozenset[RunStatus] | None = None) -> tuple[Run, ...]:
        """See ``RunStore.unfinished``. At most 1,000 runs."""
        parameters = {"p_limit": bounded(limit), "p_statuses": unfinished_among(statuses)}
        rows = await self._database.read(lambda connection: connection.execute(_UNFINISHED, parameters).all())
        return tuple(run_of_row(row) for row in rows)

    async def _records(self, query: Select[Any], parameters: dict[str, str]) -> tuple[StepRecord, ...]:
        documents = await self._database.read(lambda connection: connection.execute(query, parameters).scalars().all())
        return tuple(StepRecord.model_validate_json(document) for document in documents)


@dataclass(frozen=True, slots=True)
class LockedRun:
    """A run whose row this transaction holds, and the number of its last event."""

    run: Run
    last_seq: int


def lock_run(connection: Connection, tenant_id: str, run_id: str) -> LockedRun:
    """Take the run's row, as every writer of a run does first. Raises ``NotFoundError("run.not_found")``."""
    row = _locked(connection, tenant_id, run_id)
    return LockedRun(run_of_row(row), row.last_seq)


def store_run(connection: Connection, run: Run, last_seq: int) -> None:
    """Write a run that ``lock_run`` gave, as it is now."""
    _SET_RUN_DOCUMENT.run(connection, _run_values(run, last_seq) | {"p_document": run.model_dump_json()})


def _locked(connection: Connection, tenant_id: str, run_id: str) -> Row[Any]:
    row: Row[Any] | None = _LOCKED_RUN.first(connection, {"p_tenant": tenant_id, "p_run": run_id})
    if row is None:
        raise run_not_found(run_id)
    return row


def _existing(connection: Connection, run: Run, claim: IdempotencyClaim | None) -> CreateResult | None:
    """What an earlier create of the same claim, or of the same run id, left behind."""
    if claim is not None:
        key = {"p_tenant": run.tenant_id, "p_subject": run.principal.subject, "p_key": _key_sha256(claim)}
        known = connection.execute(_CLAIM, key).one_or_none()
        if known is not None:
            first = run_of_row(_RUN.first(connection, {"p_tenant": run.tenant_id, "p_run": known.run_id}))
            return CreateResult("existing" if known.request_sha256 == claim.request_sha256 else "mismatch", first)
    row = _RUN.first(connection, {"p_tenant": run.tenant_id, "p_run": run.run_id})
    if row is None:
        return None
    existing = run_of_row(row)
    return CreateResult("existing" if same_request(existing, run) else "mismatch", existing)


@dataclass(frozen=True, slots=True)
class PlaceOfStep:
    """Where a step's record may be written: the run's row, which this transaction holds, and whether there is a record."""

    run: Row[Any]
    is_new: bool


def place_of_step(connection: Connection, step: StepRecord) -> PlaceOfStep | None:
    """Take the run's row. None when the record is void, as in ``RunStore.put_step``. Raises as ``lock_run`` does."""
    row = _locked(connection, step.tenant_id, step.run_id)
    if is_over(row.status):
        return None
    # Not in one statement with the row: PostgreSQL may look at the step before it waits for the row.
    stored = _STATE_OF_STEP.first(connection, _step_key(step.tenant_id, step.run_id, step.step_id, step.item))
    if stored is not None and not follows(StepStatus(stored.status), stored.attempt, step):
        return None
    return PlaceOfStep(row, stored is None)


def write_step(connection: Connection, write: StepWrite, place: PlaceOfStep, now: datetime) -> None:
    """Write a step's record, its events and its cost where ``place_of_step`` said in this transaction."""
    step, row = write.record, place.run
    _write_record(connection, step, is_new=place.is_new)
    appended = insert_events(connection, step.tenant_id, step.run_id, row.last_seq, write.events, now)
    last_seq = row.last_seq + len(appended)
    going_on = resumed(run_of_row(row), step, now) if row.status == RunStatus.AWAITING_APPROVAL.value else None
    if going_on is not None:
        store_run(connection, going_on, last_seq)
    elif write.add_cost_micro_usd and (appended or not write.events):
        # As ``changed`` does it, by columns alone: see ``run_of_row``.
        cost = row.cost_micro_usd + write.add_cost_micro_usd
        told = {"p_status": row.status, "p_updated_at": iso_utc(now), "p_version": row.version + 1}
        key = {"p_tenant": step.tenant_id, "p_run": step.run_id}
        _SET_RUN.run(connection, key | told | {"p_cost_micro_usd": cost, "p_last_seq": last_seq})
    elif appended:
        _SET_LAST_SEQ.run(connection, {"p_tenant": step.tenant_id, "p_run": step.run_id, "p_seq": last_seq})


def _write_record(connection: Connection, step: StepRecord, *, is_new: bool) -> None:
    key = _step_key(step.tenant_id, step.run_id, step.step_id, step.item)
    content = {"status": step.status.value, "attempt": step.attempt, "document": step.model_dump_json()}
    if is_new:
        row = {"tenant_id": step.tenant_id, "run_id": step.run_id, "step_id": step.step_id, "item": key["p_item"]}
        _ADD_STEP.run(connection, row | content)
    else:
        _SET_STEP.run(connection, key | {f"p_{name}": value for name, value in content.items()})


def _narrowed(query: Select[Any], tenant_id: str, which: RunFilter, position: tuple[str, str] | None) -> Select[Any]:
    query = query.where(RUNS.c.tenant_id == tenant_id)
    if which.status is not None:
        query = query.where(RUNS.c.status == which.status.value)
    if which.since is not None:
        query = query.where(RUNS.c.created_at >= iso_utc(which.since))
    if which.until is not None:
        query = query.where(RUNS.c.created_at < iso_utc(which.until))
    if position is not None:
        created_at, run_id = position
        earlier = and_(RUNS.c.created_at == created_at, RUNS.c.run_id < run_id)
        query = query.where(RUNS.c.created_at <= created_at, or_(RUNS.c.created_at < created_at, earlier))
    return query.order_by(RUNS.c.created_at.desc(), RUNS.c.run_id.desc())


def run_of_row(row: Row[Any]) -> Run:
    """The run of a row of ``runs``."""
    run = _run_of(row.document)
    if row.version == run.version:
        return run
    # Costs of steps are added without rewriting the document.
    beside = {"version": row.version, "cost_micro_usd": row.cost_micro_usd}
    return run.model_copy(update=beside | {"updated_at": datetime.fromisoformat(row.updated_at)})


@lru_cache(maxsize=_KEPT_RUNS)
def _run_of(document: str) -> Run:
    """The steps of a run read its document over and over, and hardly any of them changes it. Kept by all that it is read from."""
    return Run.model_validate_json(document)


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "tenant_id": run.tenant_id,
        "run_id": run.run_id,
        "status": run.status.value,
        "created_at": iso_utc(run.created_at),
        "updated_at": iso_utc(run.updated_at),
        "version": run.version,
        "cost_micro_usd": run.cost_micro_usd,
        "document": run.model_dump_json(),
    }


def _run_values(run: Run, last_seq: int) -> dict[str, Any]:
    return {
        "p_tenant": run.tenant_id,
        "p_run": run.run_id,
        "p_status": run.status.value,
        "p_updated_at": iso_utc(run.updated_at),
        "p_version": run.version,
        "p_cost_micro_usd": run.cost_micro_usd,
        "p_last_seq": last_seq,
    }


def _step_key(tenant_id: str, run_id: str, step_id: str, item: int | None) -> dict[str, Any]:
    return {"p_tenant": tenant_id, "p_run": run_id, "p_step": step_id, "p_item": NO_ITEM if item is None else item}


def _key_sha256(claim: IdempotencyClaim) -> str:
    return hashlib.sha256(claim.key.encode("utf-8", "surrogatepass")).hexdigest()


def _claim_row(run: Run, claim: IdempotencyClaim) -> dict[str, str]:
    return {
        "tenant_id": run.tenant_id,
        "subject": run.principal.subject,
        "key_sha256": _key_sha256(claim),
        "request_sha256": claim.request_sha256,
        "run_id": run.run_id,
    }
