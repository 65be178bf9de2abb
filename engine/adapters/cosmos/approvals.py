"""Approvals of runs, in the partition of their run: an answer, its event and the run's status are one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from engine.adapters.approval_rules import (
    MAX_OF_RUN,
    ApprovalWrite,
    closed,
    is_call_under_way,
    not_found,
    replied,
    requested,
)
from engine.adapters.cosmos.across_tenants import find_across_tenants
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import Document, Find
from engine.adapters.cosmos.run_partition import RunPartitions, RunState, Write
from engine.adapters.store_rules import bounded, changed
from engine.domain.approval import Approval, ApprovalAnswer
from engine.domain.base import iso_utc
from engine.domain.run import StepRecord
from engine.ports.run_store import RunChange

_ORDER = ("requestedAt", "approvalId")
_OF_RUN = Find("c.kind = 'approval'", {}, MAX_OF_RUN, _ORDER, descending=True)
_PENDING_OF_RUN = Find("c.kind = 'approval' AND c.status = 'pending'", {}, MAX_OF_RUN, _ORDER)
_RUNNING = Find("(c.kind = 'step' OR c.kind = 'item') AND c.status = 'running'", {}, 10_000)


class CosmosApprovalStore:
    """Approvals in a Cosmos DB database."""

    def __init__(self, partitions: RunPartitions) -> None:
        self._partitions = partitions

    async def request(self, approval: Approval) -> Approval:
        """See ``ApprovalStore.request``."""

        async def plan(state: RunState) -> Write[Approval]:
            kept = {other.approval_id: other for other in map(_approval_of, await state.find(_OF_RUN))}
            others = [
                other
                for other in kept.values()
                if other.binding.place == approval.binding.place and other.approval_id != approval.approval_id
            ]
            busy = any(is_call_under_way(_step_of(document)) for document in await state.find(_RUNNING))
            now, known = self._partitions.clock.now(), kept.get(approval.approval_id)
            return await self._planned(state, requested(state.run, approval, known, others, busy=busy, now=now))

        return (await self._partitions.write(approval.tenant_id, approval.run_id, plan)).result

    async def get(self, tenant_id: str, run_id: str, approval_id: str) -> Approval | None:
        """See ``ApprovalStore.get``."""
        document = await self._partitions.repository(tenant_id).read(run_id, _id(approval_id))
        return _approval_of(document) if document is not None else None

    async def of_run(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.of_run``."""
        found = await self._partitions.repository(tenant_id).find(_OF_RUN, run_id)
        return tuple(map(_approval_of, reversed(found)))

    async def pending(self, tenant_id: str, *, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.pending``. At most 1,000 approvals."""
        find = Find("c.kind = 'approval' AND c.status = 'pending'", {}, 10_000, _ORDER)
        found = await self._partitions.repository(tenant_id).find(find)
        return await self._of_open_runs(map(_approval_of, found), bounded(limit))

    async def answer(self, tenant_id: str, run_id: str, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """See ``ApprovalStore.answer``."""

        async def plan(state: RunState) -> Write[Approval]:
            document = await state.read(_id(approval_id))
            if document is None:
                raise not_found()
            write = replied(state.run, _approval_of(document), answer, self._partitions.clock.now())
            return await self._planned(state, write)

        return (await self._partitions.write(tenant_id, run_id, plan)).result

    async def close(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.close``."""

        async def plan(state: RunState) -> Write[tuple[Approval, ...]]:
            pending = map(_approval_of, await state.find(_PENDING_OF_RUN))
            void = closed(pending, self._partitions.clock.now())
            if not void or state.run.status.is_final:
                return Write(void)
            write = await self._planned(state, ApprovalWrite(void[0], void))
            return Write(void, write.run, write.events, write.documents)

        return (await self._partitions.write(tenant_id, run_id, plan)).result

    async def answered_since(self, since: datetime, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.answered_since``. At most 1,000 approvals."""
        where = "c.kind = 'approval' AND c.status IN ('granted', 'refused') AND c.decidedAt >= @since"
        find = Find(where, {"since": iso_utc(since)}, 10_000, ("decidedAt", "approvalId"))
        found = await find_across_tenants(self._partitions.connection, RUNS, find)
        return await self._of_open_runs(map(_approval_of, found), bounded(limit))

    async def _planned(self, state: RunState, write: ApprovalWrite) -> Write[Approval]:
        run = None
        if write.run_status is not None:
            change = RunChange(status=write.run_status)
            run = changed(state.run, change, self._partitions.clock.now(), only_from=None, repeated=False)
        documents = [_document(approval) for approval in write.changed]
        return Write(write.result, run, await state.unknown(write.events), documents)

    async def _of_open_runs(self, approvals: Iterable[Approval], limit: int) -> tuple[Approval, ...]:
        """Without those of runs that are over. Few are: a run closes its approvals before it ends."""
        found: list[Approval] = []
        is_open: dict[tuple[str, str], bool] = {}
        for approval in approvals:
            if len(found) == limit:
                break
            place = (approval.tenant_id, approval.run_id)
            if place not in is_open:
                head = await self._partitions.head(*place)
                is_open[place] = head is not None and not head.run.status.is_final
            if is_open[place]:
                found.append(approval)
        return tuple(found)


def _id(approval_id: str) -> str:
    return f"approval:{approval_id}"


def _document(approval: Approval) -> Document:
    return {
        "id": _id(approval.approval_id),
        "kind": "approval",
        "approvalId": approval.approval_id,
        "status": approval.status.value,
        "requestedAt": iso_utc(approval.requested_at),
        "decidedAt": iso_utc(approval.decided_at) if approval.decided_at is not None else None,
        "document": approval.model_dump_json(),
    }


def _approval_of(document: Document) -> Approval:
    return Approval.model_validate_json(document["document"])


def _step_of(document: Document) -> StepRecord:
    return StepRecord.model_validate_json(document["document"])
