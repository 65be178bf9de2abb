"""Runs, their steps and claims on them.

A claim on an idempotency key lies in another partition than the run it is for, so the two cannot be one transaction. The claim is
written first and holds the whole run to be created: whoever meets it finishes that creation before going on, and so at most one
run exists for a key, however many callers ask and wherever one of them stops.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.adapters.cosmos.across_tenants import find_across_tenants
from engine.adapters.cosmos.connection import MovedError, UnsureError
from engine.adapters.cosmos.definitions import RUNS, TENANTS
from engine.adapters.cosmos.repository import Create, Document, Find, TenantRepository
from engine.adapters.cosmos.run_partition import RunPartitions, RunState, Write, created, id_of, run_of
from engine.adapters.run_cursor import cursor_after, position_of
from engine.adapters.store_rules import (
    bounded,
    changed,
    counted,
    distinct,
    event_data,
    event_data_text,
    replaces,
    resumed,
    same_request,
    unfinished_among,
)
from engine.domain.base import iso_utc
from engine.domain.events import EventType, NewEvent
from engine.domain.run import Run, StepRecord
from engine.domain.status import RunStatus
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

_STEPS_AT_ONCE = 10_000
"""More steps or items than any plan may have."""


_NEWEST_FIRST = ("createdAt", "runId")


def _narrowed(which: RunFilter) -> tuple[list[str], dict[str, Any]]:
    """Conditions and their parameters."""
    where, parameters = ["c.kind = 'run'"], dict[str, Any]()
    if which.status is not None:
        where.append("c.status = @status")
        parameters["status"] = which.status.value
    if which.since is not None:
        where.append("c.createdAt >= @since")
        parameters["since"] = iso_utc(which.since)
    if which.until is not None:
        where.append("c.createdAt < @until")
        parameters["until"] = iso_utc(which.until)
    return where, parameters


class CosmosRunStore:
    """Runs and steps in a Cosmos DB database."""

    def __init__(self, partitions: RunPartitions) -> None:
        self._partitions = partitions

    async def create(self, run: Run, events: Sequence[NewEvent], claim: IdempotencyClaim | None) -> CreateResult:
        """See ``RunStore.create``."""
        at, create_id = self._partitions.clock.now(), secrets.token_hex(8)
        planned = _claim_document(run, events, claim.request_sha256 if claim else "", create_id, at)
        if claim is not None:
            known = await self._claim(run, claim)
            if known is not None:
                return await self._rolled_forward(known, claim)
        existing = await self._partitions.head(run.tenant_id, run.run_id)
        if existing is not None:
            return CreateResult("existing" if same_request(existing.run, run) else "mismatch", existing.run)
        if claim is not None:
            stands = await self._claimed(run, claim, planned)
            if stands["createId"] != create_id:
                return await self._rolled_forward(stands, claim)
        head = await created(self._partitions, run, events, create_id, at)
        if head.create_id == create_id:
            return CreateResult("created", run)
        return CreateResult("existing" if same_request(head.run, run) else "mismatch", head.run)

    async def get(self, tenant_id: str, run_id: str) -> Run | None:
        """See ``RunStore.get``."""
        head = await self._partitions.head(tenant_id, run_id)
        return head.run if head is not None else None

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
        size, which = bounded(limit), RunFilter(status, since, until)
        where, parameters = _narrowed(which)
        if cursor is not None:
            parameters["at"], parameters["run"] = position_of(cursor, tenant_id, which)
            where.append("(c.createdAt < @at OR (c.createdAt = @at AND c.runId < @run))")
        find = Find(" AND ".join(where), parameters, size + 1, _NEWEST_FIRST, descending=True)
        found = await self._partitions.repository(tenant_id).find(find)
        runs = tuple(run_of(document) for document in found[:size])
        return RunPage(runs, cursor_after(runs[-1], which) if len(found) > size else None)

    async def counts(self, tenant_id: str, which: RunFilter = ALL_RUNS) -> RunCounts:
        """See ``RunStore.counts``. Only the statuses are fetched."""
        where, parameters = _narrowed(which)
        newest = Find(
            " AND ".join(where),
            parameters,
            MAX_COUNTED + 1,
            _NEWEST_FIRST,
            descending=True,
            fields=("status", "createdAt"),
        )
        found = await self._partitions.repository(tenant_id).find(newest)
        return counted([RunStatus(document["status"]) for document in found])

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

        async def plan(state: RunState) -> Write[Run]:
            new = await state.unknown(events)
            repeated = bool(events) and not new
            now = self._partitions.clock.now()
            run = changed(state.run, change, now, only_from=only_from, repeated=repeated)
            return Write(run, run, new)

        return (await self._partitions.write(tenant_id, run_id, plan)).result

    async def put_step(self, step: StepRecord, events: Sequence[NewEvent] = (), *, add_cost_micro_usd: int = 0) -> bool:
        """See ``RunStore.put_step``."""

        async def plan(state: RunState) -> Write[bool]:
            if state.run.status.is_final:
                return Write(result=False)
            stored = await state.read(_step_id(step.step_id, step.item))
            if not replaces(_step_of(stored) if stored is not None else None, step):
                return Write(result=False)
            new = await state.unknown(events)
            now = self._partitions.clock.now()
            run = resumed(state.run, step, now)
            if add_cost_micro_usd and (new or not events):
                cost = RunChange(add_cost_micro_usd=add_cost_micro_usd)
                run = changed(run or state.run, cost, now, only_from=None, repeated=False)
            return Write(True, run, new, [_step_document(step)])

        return (await self._partitions.write(step.tenant_id, step.run_id, plan)).result

    async def get_step(self, tenant_id: str, run_id: str, step_id: str, item: int | None = None) -> StepRecord | None:
        """See ``RunStore.get_step``."""
        document = await self._partitions.repository(tenant_id).read(run_id, _step_id(step_id, item))
        return _step_of(document) if document is not None else None

    async def get_with_step(
        self, tenant_id: str, run_id: str, step_id: str, item: int | None = None
    ) -> tuple[Run | None, StepRecord | None]:
        """See ``RunStore.get_with_step``. Two reads at the same time, and another one of the step where the run is ending: it may
        have been done just before."""
        run, step = await asyncio.gather(self.get(tenant_id, run_id), self.get_step(tenant_id, run_id, step_id, item))
        if run is None:
            return None, None
        if run.status.is_final or run.status is RunStatus.CANCELLING:
            step = await self.get_step(tenant_id, run_id, step_id, item)
        return run, step

    async def steps(self, tenant_id: str, run_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.steps``."""
        find = Find("c.kind = 'step'", {}, _STEPS_AT_ONCE)
        found = await self._partitions.repository(tenant_id).find(find, run_id)
        return tuple(sorted(map(_step_of, found), key=lambda record: record.step_id))

    async def items(self, tenant_id: str, run_id: str, step_id: str) -> tuple[StepRecord, ...]:
        """See ``RunStore.items``."""
        find = Find("c.kind = 'item' AND c.stepId = @step", {"step": step_id}, _STEPS_AT_ONCE)
        found = await self._partitions.repository(tenant_id).find(find, run_id)
        return tuple(sorted(map(_step_of, found), key=lambda record: record.item or 0))

    async def unfinished(self, limit: int, *, statuses: frozenset[RunStatus] | None = None) -> tuple[Run, ...]:
        """See ``RunStore.unfinished``. At most 1,000 runs."""
        parameters = {"statuses": unfinished_among(statuses)}
        where = "c.kind = 'run' AND ARRAY_CONTAINS(@statuses, c.status)"
        find = Find(where, parameters, bounded(limit), ("createdAt", "runId"))
        found = await find_across_tenants(self._partitions.connection, RUNS, find)
        runs = [run_of(document) for document in found]
        return tuple(sorted(runs, key=lambda run: (iso_utc(run.created_at), run.run_id, run.tenant_id)))

    def _claims(self, run: Run, claim: IdempotencyClaim) -> tuple[TenantRepository, str]:
        repository = TenantRepository(self._partitions.connection, TENANTS, run.tenant_id)
        return repository, id_of("claim", run.principal.subject, claim.key)

    async def _claim(self, run: Run, claim: IdempotencyClaim) -> Document | None:
        repository, scope = self._claims(run, claim)
        return await repository.read(scope, "claim")

    async def _claimed(self, run: Run, claim: IdempotencyClaim, planned: Document) -> Document:
        """Claim the key, or find the claim that stands."""
        repository, scope = self._claims(run, claim)

        async def attempt() -> Document:
            try:
                await repository.write(scope, [Create(planned)])
            except MovedError:
                stands = await repository.read(scope, "claim")
                if stands is None:
                    raise UnsureError from None
                return stands
            return planned

        return await self._partitions.connection.settled(attempt)

    async def _rolled_forward(self, stands: Document, claim: IdempotencyClaim) -> CreateResult:
        """Finish the creation that a claim announces, and answer with its run."""
        run = Run.model_validate_json(stands["run"])
        head = await self._partitions.head(run.tenant_id, run.run_id)
        if head is None:
            events = [_planned_event(event) for event in stands["events"]]
            at = datetime.fromisoformat(stands["at"])
            head = await created(self._partitions, run, events, stands["createId"], at)
        same = stands["requestSha256"] == claim.request_sha256
        return CreateResult("existing" if same else "mismatch", head.run)


def _claim_document(run: Run, events: Sequence[NewEvent], sha256: str, create_id: str, at: datetime) -> Document:
    planned = [
        {"type": event.type.value, "key": event.key, "data": event_data_text(event)}
        for event in distinct(events).values()
    ]
    return {
        "id": "claim",
        "kind": "claim",
        "requestSha256": sha256,
        "createId": create_id,
        "at": iso_utc(at),
        "run": run.model_dump_json(),
        "events": planned,
    }


def _planned_event(planned: Document) -> NewEvent:
    return NewEvent(type=EventType(planned["type"]), key=planned["key"], data=event_data(planned["data"]))


def _step_id(step_id: str, item: int | None) -> str:
    return f"step:{step_id}" if item is None else f"item:{step_id}:{item}"


def _step_document(step: StepRecord) -> Document:
    return {
        "id": _step_id(step.step_id, step.item),
        "kind": "step" if step.item is None else "item",
        "stepId": step.step_id,
        "status": step.status.value,
        "document": step.model_dump_json(),
    }


def _step_of(document: Document) -> StepRecord:
    return StepRecord.model_validate_json(document["document"])
