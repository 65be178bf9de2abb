"""Every store, asked by another tenant with the right ids: nothing is found, nothing changes.

The calls are listed per method; a test holds the list to the ports, so that a new method cannot be forgotten.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.memory import MemoryPayloadStore
from engine.domain.approval import ApprovalAnswer
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.status import RunStatus, StepStatus
from engine.ports.approvals import ApprovalStore
from engine.ports.assignments import Assignments, NotLeased
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger, BudgetState, DailyState
from engine.ports.model_results import ModelCallKey, ModelResultRecord, ModelResults
from engine.ports.models import ModelUsage
from engine.ports.payload_store import PayloadStore
from engine.ports.result_cache import CachedResult, ResultCache
from engine.ports.run_messages import Outbox
from engine.ports.run_store import EventLog, RunChange, RunCounts, RunStore
from tests.contract.stores.builders import NOON, approval, assignment, claim, entry, event, ref, run, sha, step
from tests.contract.stores.conftest import Stores
from tests.support.payloads import sealed_payloads

FOREIGN = "fabrikam"
DAY = run().created_at.date()

Call = Callable[[Stores], Awaitable[Any]]
YES = ApprovalAnswer(granted=True, by="tid:bo")
LENT = (FOREIGN, "run-1", assignment().key)
NONCE = "n" * 43
KEY = ModelCallKey("contoso", "run-1", 1, "plan", sha("prompt"))


def _approval_id(stores: Stores) -> str:
    return approval(stores.clock.now()).approval_id


CALLS: dict[tuple[type, str], tuple[Call, Any]] = {
    (RunStore, "get"): (lambda s: s.runs.get(FOREIGN, "run-1"), None),
    (RunStore, "page"): (lambda s: _runs(s), ()),
    (RunStore, "counts"): (lambda s: s.runs.counts(FOREIGN), RunCounts({}, is_complete=True)),
    (RunStore, "change"): (
        lambda s: s.runs.change(FOREIGN, "run-1", RunChange(status=RunStatus.CANCELLING), [event("foreign")]), NotFoundError),
    (RunStore, "put_step"): (lambda s: s.runs.put_step(step(tenant_id=FOREIGN, status=StepStatus.FAILED)), NotFoundError),
    (RunStore, "get_step"): (lambda s: s.runs.get_step(FOREIGN, "run-1", "spend"), None),
    (RunStore, "get_with_step"): (lambda s: s.runs.get_with_step(FOREIGN, "run-1", "spend"), (None, None)),
    (RunStore, "steps"): (lambda s: s.runs.steps(FOREIGN, "run-1"), ()),
    (RunStore, "items"): (lambda s: s.runs.items(FOREIGN, "run-1", "map"), ()),
    (EventLog, "append"): (lambda s: s.events.append(FOREIGN, "run-1", [event("foreign")]), NotFoundError),
    (EventLog, "read"): (lambda s: s.events.read(FOREIGN, "run-1", after_seq=0, limit=9), ()),
    (EventLog, "wait"): (lambda s: s.events.wait(FOREIGN, "run-1", after_seq=0, timeout_s=0.01), False),
    (AuditLog, "read"): (lambda s: s.audit.read(FOREIGN, after_seq=0, limit=9, run_id="run-1"), ()),
    (AuditLog, "find"): (lambda s: s.audit.find(FOREIGN, "run-1/spend/1/dispatch.intended"), None),
    (BudgetLedger, "reserve"): (lambda s: s.budgets.reserve(FOREIGN, "run-1", "run-1/b", amount_micro_usd=1), False),
    (BudgetLedger, "raise_limit"): (lambda s: s.budgets.raise_limit(FOREIGN, "run-1", limit_micro_usd=9_999), None),
    (BudgetLedger, "settle"): (lambda s: s.budgets.settle(FOREIGN, "run-1", "run-1/a", spent_micro_usd=9), None),
    (BudgetLedger, "close"): (lambda s: s.budgets.close(FOREIGN, "run-1"), 0),
    (BudgetLedger, "state"): (lambda s: s.budgets.state(FOREIGN, "run-1"), None),
    (BudgetLedger, "daily_state"): (lambda s: s.budgets.daily_state(FOREIGN, DAY), DailyState()),
    (ApprovalStore, "request"): (
        lambda s: s.approvals.request(approval(s.clock.now(), tenant_id=FOREIGN)), NotFoundError),
    (ApprovalStore, "get"): (lambda s: s.approvals.get(FOREIGN, "run-1", _approval_id(s)), None),
    (ApprovalStore, "of_run"): (lambda s: s.approvals.of_run(FOREIGN, "run-1"), ()),
    (ApprovalStore, "pending"): (lambda s: s.approvals.pending(FOREIGN, limit=9), ()),
    (ApprovalStore, "answer"): (
        lambda s: s.approvals.answer(FOREIGN, "run-1", _approval_id(s), YES), NotFoundError),
    (ApprovalStore, "close"): (lambda s: s.approvals.close(FOREIGN, "run-1"), NotFoundError),
    (Assignments, "get"): (lambda s: s.assignments.get(*LENT), None),
    (Assignments, "sent"): (lambda s: s.assignments.sent(*LENT, 1, NOON), None),
    (Assignments, "lease"): (
        lambda s: s.assignments.lease(*LENT, 1, worker="w", nonce=NONCE, now=NOON), NotLeased("unknown")),
    (Assignments, "heartbeat"): (
        lambda s: s.assignments.heartbeat(*LENT, 1, nonce=NONCE, now=NOON), NotLeased("unknown")),
    (Assignments, "finish"): (
        lambda s: s.assignments.finish(*LENT, 1, nonce=NONCE, response_ref=ref(), now=NOON), NotLeased("unknown")),
    (Assignments, "release"): (lambda s: s.assignments.release(*LENT, 1, nonce=NONCE), None),
    (Assignments, "void"): (lambda s: s.assignments.void(*LENT, 1, now=NOON, lapsed_only=False), None),
    (Assignments, "void_run"): (lambda s: s.assignments.void_run(FOREIGN, "run-1", NOON), ()),
    (Assignments, "remove_run"): (lambda s: s.assignments.remove_run(FOREIGN, "run-1"), 0),
    (ResultCache, "get"): (lambda s: s.result_cache.get(FOREIGN, sha("asked")), None),
    (ResultCache, "remove_run"): (lambda s: s.result_cache.remove_run(FOREIGN, "run-1"), 0),
    (Outbox, "waiting"): (lambda s: s.outbox.waiting(FOREIGN, "run-1", 9), ()),
    (Outbox, "told"): (lambda s: s.outbox.told(FOREIGN, "run-1", through_seq=99), None),
    (ModelResults, "get"): (lambda s: s.model_results.get(replace(KEY, tenant_id=FOREIGN)), None),
}  # fmt: skip
"""Method → a call by another tenant with ids that exist, and what must come of it (an exception's type is raised)."""

OWN = {
    (RunStore, "create"): "creates under the tenant it names; tested below",
    (AuditLog, "append"): "appends to the chain it names; tested below",
    (BudgetLedger, "open"): "opens an account of its own; tested below",
    (ModelResults, "begin"): "counts under its own key; tested below",
    (ModelResults, "put"): "refused without a request of its own key; tested below",
    (Assignments, "assign"): "assigns under the tenant it names; tested over every store",
    (Assignments, "overdue"): "the sweep's, across tenants",
    (Assignments, "ended_since"): "the sweep's, across tenants",
    (ResultCache, "put"): "remembers under the tenant it names; tested over every store",
    (Outbox, "runs_waiting"): "the relay's, across tenants",
    (RunStore, "unfinished"): "recovery's, across tenants",
    (ApprovalStore, "answered_since"): "recovery's, across tenants",
}


async def _runs(stores: Stores) -> tuple[Any, ...]:
    return (await stores.runs.page(FOREIGN, status=None, cursor=None, limit=9)).runs


async def filled(stores: Stores) -> Stores:
    """A run of contoso with everything a run can have."""
    await stores.runs.create(run(), [new_event(EventType.RUN_ACCEPTED, RunEventData()), event("created")], claim())
    await stores.runs.put_step(step())
    await stores.runs.put_step(step("map", item=0))
    await stores.audit.append(entry())
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "run-1/a", amount_micro_usd=10)
    await stores.approvals.request(approval(stores.clock.now()))
    await stores.model_results.begin(KEY)
    await stores.assignments.assign(assignment())
    await stores.assignments.lease("contoso", "run-1", LENT[2], 1, worker="w", nonce=NONCE, now=NOON)
    await stores.result_cache.put("contoso", sha("asked"), CachedResult("run-1", ref(), NOON))
    return stores


async def everything(stores: Stores) -> Any:
    """All of contoso's data, to compare."""
    return (
        await stores.runs.get("contoso", "run-1"),
        await stores.runs.steps("contoso", "run-1"),
        await stores.runs.items("contoso", "run-1", "map"),
        await stores.events.read("contoso", "run-1", after_seq=0, limit=99),
        await stores.audit.read("contoso", after_seq=0, limit=99),
        await stores.budgets.state("contoso", "run-1"),
        await stores.budgets.daily_state("contoso", DAY),
        await stores.approvals.of_run("contoso", "run-1"),
        await stores.assignments.get("contoso", "run-1", LENT[2]),
        await stores.result_cache.get("contoso", sha("asked")),
        await stores.outbox.waiting("contoso", "run-1", 9),
    )


def test_no_method_is_forgotten() -> None:
    ports = (RunStore, EventLog, AuditLog, BudgetLedger, ApprovalStore, Assignments, ModelResults, Outbox, ResultCache)
    methods = {
        (port, name) for port in ports for name, member in vars(port).items() if inspect.iscoroutinefunction(member)
    }
    assert methods == set(CALLS) | set(OWN)


@pytest.mark.parametrize("method", CALLS, ids=lambda method: f"{method[0].__name__}.{method[1]}")
async def test_another_tenant_finds_and_changes_nothing(stores: Stores, method: tuple[type, str]) -> None:
    call, expected = CALLS[method]
    await filled(stores)
    before = await everything(stores)
    if inspect.isclass(expected):
        with pytest.raises(expected):
            await call(stores)
    else:
        assert await call(stores) == expected
    assert await everything(stores) == before


async def test_the_same_ids_under_another_tenant_are_other_things(stores: Stores) -> None:
    await filled(stores)
    before = await everything(stores)
    theirs = await stores.runs.create(run(tenant_id=FOREIGN, title="theirs"), [event("created")], claim())
    assert theirs.outcome == "created", "the same run id and the same idempotency key are another tenant's own"
    assert (await stores.audit.append(entry(tenant_id=FOREIGN))).seq == 1
    await stores.budgets.open(FOREIGN, "run-1", limit_micro_usd=7)
    assert await stores.budgets.state(FOREIGN, "run-1") == BudgetState(0, 0, 7)
    foreign_key = replace(KEY, tenant_id=FOREIGN)
    assert await stores.model_results.begin(foreign_key) == 1
    await stores.runs.change(FOREIGN, "run-1", RunChange(status=RunStatus.CANCELLING))
    assert await everything(stores) == before


async def test_a_reply_cannot_be_put_under_a_key_of_anothers_request(stores: Stores) -> None:
    await filled(stores)
    usage = ModelUsage(input_tokens=1, output_tokens=1)
    record = ModelResultRecord(1, "d", "m", "stop", usage, 1, 0.1)
    with pytest.raises(LivoaError):
        await stores.model_results.put(replace(KEY, tenant_id=FOREIGN), record)
    assert await stores.model_results.get(KEY) is None


async def test_a_cursor_of_one_tenant_opens_nothing_of_another(stores: Stores) -> None:
    for number in range(3):
        await stores.runs.create(run(f"run-{number}", minute=number), [], None)
        await stores.runs.create(run(f"run-{number}", FOREIGN, minute=number), [], None)
    page = await stores.runs.page("contoso", status=None, cursor=None, limit=1)
    with pytest.raises(LivoaError) as caught:
        await stores.runs.page(FOREIGN, status=None, cursor=page.next_cursor, limit=1)
    assert caught.value.code == "cursor.invalid"


@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_content_is_nobody_elses_even_by_its_hash(kind: str, tmp_path: Path) -> None:
    store: PayloadStore = MemoryPayloadStore() if kind == "memory" else sealed_payloads(tmp_path)
    ref = await store.put("contoso", "run-1", b"secret")
    for tenant_id, run_id in ((FOREIGN, "run-1"), ("contoso", "run-2"), (FOREIGN, "../contoso/run-1")):
        with pytest.raises(LivoaError):
            await store.get(tenant_id, run_id, ref)
    assert await store.delete_run(FOREIGN, "run-1") == 0
    assert await store.get("contoso", "run-1", ref) == b"secret"
