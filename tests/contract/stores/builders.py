"""Runs, steps and events to fill stores with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.domain.approval import Approval, ApprovalBinding, approval_id_of, asked_sha256
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.bus import Assignment
from engine.domain.events import EventType, NewEvent, StepEventData, new_event
from engine.domain.principal import Principal, Role
from engine.domain.run import PayloadRef, Run, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import IdempotencyClaim

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ref(text: str = "{}") -> PayloadRef:
    return PayloadRef(sha256=sha(text), size_bytes=len(text))


def principal(tenant_id: str = "contoso", subject: str = "tid:ana") -> Principal:
    return Principal(
        tenant_id=tenant_id, subject=subject, kind="user", client_app="cli", roles=frozenset({Role.RUNS_SUBMIT})
    )


def run(run_id: str = "run-1", tenant_id: str = "contoso", *, minute: int = 0, **changes: Any) -> Run:
    created_at = NOON + timedelta(minutes=minute)
    fields: dict[str, Any] = {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "status": RunStatus.ACCEPTED,
        "title": "Why did sales fall?",
        "request_ref": ref(),
        "principal": principal(tenant_id),
        "created_at": created_at,
        "updated_at": created_at,
        "deadline_at": created_at + timedelta(hours=1),
    }
    return Run(**(fields | changes))


def claim(key: str = "key-1", request: str = "{}") -> IdempotencyClaim:
    return IdempotencyClaim(key=key, request_sha256=sha(request))


def step(step_id: str = "spend", run_id: str = "run-1", tenant_id: str = "contoso", **changes: Any) -> StepRecord:
    fields: dict[str, Any] = {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "step_id": step_id,
        "status": StepStatus.RUNNING,
        "capability": "sales.query",
        "started_at": NOON,
    }
    return StepRecord(**(fields | changes))


def event(key: str = "step.started/run-1/spend#1", event_type: EventType = EventType.STEP_STARTED) -> NewEvent:
    return new_event(event_type, StepEventData(step_id="spend"), key)


def broken_event() -> NewEvent:
    """An event that passes for one until its data is written."""
    return NewEvent(type=EventType.STEP_PROGRESSED, key="broken", data={"progress": object()})


def entry(entry_id: str = "run-1/spend/1/dispatch.intended", tenant_id: str = "contoso", **changes: Any) -> AuditEntry:
    fields: dict[str, Any] = {
        "tenant_id": tenant_id,
        "entry_id": entry_id,
        "type": AuditType.DISPATCH_INTENDED,
        "at": NOON,
        "run_id": "run-1",
        "actor": "tid:ana",
        "body": {"step": "spend", "cost_micro_usd": 5},
    }
    return AuditEntry(**(fields | changes))


def approval(now: datetime, step_id: str | None = "mail", arguments: str = "a", **changes: Any) -> Approval:
    """A question of policy about a step of ``run-1``, or about its plan."""
    binding = ApprovalBinding(
        kind="plan" if step_id is None else "step",
        step_id=step_id,
        item=changes.pop("item", None),
        plan_hash="p" * 64,
        arguments_sha256=sha(arguments),
        policy_set_hash=changes.pop("policy_set_hash", "s1"),
    )
    run_id = changes.get("run_id", "run-1")
    fields: dict[str, Any] = {
        "tenant_id": "contoso",
        "run_id": run_id,
        "approval_id": approval_id_of(asked_sha256(run_id, binding)),
        "binding": binding,
        "requested_by": "tid:ana",
        "requested_at": now,
        "expires_at": now + timedelta(hours=1),
        "waiter": run_id,
    }
    return Approval(**(fields | changes))


def assignment(key: str = "run-1/spend", **changes: Any) -> Assignment:
    """The first attempt of a step of ``run-1``, for a worker."""
    created_at = changes.get("created_at", NOON)
    fields: dict[str, Any] = {
        "tenant_id": "contoso",
        "run_id": "run-1",
        "step_id": "spend",
        "attempt": 1,
        "key": key,
        "capability": "mmm.fit",
        "request_ref": ref(),
        "waiter": "run-1",
        "created_at": created_at,
        "deadline_at": created_at + timedelta(hours=1),
        "lease_s": 60.0,
    }
    return Assignment(**(fields | changes))
