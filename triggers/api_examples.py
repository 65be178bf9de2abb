"""Examples for the API description. A test holds each one to its model, so that they cannot go stale."""

from __future__ import annotations

from typing import Any

from engine.domain.status import RunStatus
from engine.domain.tenant import TenantConfig

RUN_ID = "run-01jc5t9w3v7n8q2x4z6b8d0f2h"
PLAN_HASH = "3f0c7d0f5a0e8e5b6f1e6b0f6f3c0b7d4a9e2c1d8b7a6f5e4d3c2b1a09f8e7d6"
_AT = "2026-11-22T12:00:00Z"
_LATER = "2026-11-22T12:00:04Z"
_PATH = f"/api/runs/{RUN_ID}"

RUN_REQUEST: dict[str, Any] = {
    "intent": "Why did paid search return less in the third quarter, and how should the next budget move?",
    "goals": ["Explain the change", "Propose a split of the budget"],
    "context": {
        "values": {"quarter_start": "2026-07-01"},
        "documents": [{"name": "brief.txt", "text": "Paid search was paused for two weeks in August."}],
    },
    "constraints": {"max_cost_micro_usd": 2_000_000, "deadline_s": 600},
}

PLAN: dict[str, Any] = {
    "schema_version": "1.0",
    "goal": "Compare the third quarter with the one before",
    "steps": [
        {
            "id": "spend",
            "capability": "marketing.query_performance",
            "inputs": {"start": "2026-07-01", "end": "2026-09-30"},
        }
    ],
    "answer": {"uses": ["spend"]},
}

ACCEPTED: dict[str, Any] = {
    "id": RUN_ID,
    "run_id": RUN_ID,
    "status": "accepted",
    "statusQueryGetUri": f"https://livoa.example{_PATH}/status",
    "terminatePostUri": f"https://livoa.example{_PATH}/terminate",
    "suspendPostUri": f"https://livoa.example{_PATH}/suspend",
    "resumePostUri": f"https://livoa.example{_PATH}/resume",
}

RUN_SUMMARY: dict[str, Any] = {
    "run_id": RUN_ID,
    "status": "succeeded",
    "title": "Why did paid search return less in the third quarter?",
    "degraded": True,
    "degraded_reason": "no model is configured",
    "suspended_reason": None,
    "parent_run_id": None,
    "rerun_from": None,
    "plan_hash": PLAN_HASH,
    "plan_version": 1,
    "cost_micro_usd": 1200,
    "error": None,
    "submitted_by": "9b0f4a52-6f0a-5c1e-9d64-0f5a1b2c3d4e:1c9d3e7a-2b4f-5a6c-8e0d-3f5b7a9c1d2e",
    "created_at": _AT,
    "updated_at": _LATER,
    "deadline_at": "2026-11-22T13:00:00Z",
    "finished_at": _LATER,
    "links": {
        "self": _PATH,
        "status": f"{_PATH}/status",
        "plan": f"{_PATH}/plan",
        "steps": f"{_PATH}/steps",
        "approvals": f"{_PATH}/approvals",
        "events": f"{_PATH}/events",
        "cancel": f"{_PATH}/cancel",
        "suspend": f"{_PATH}/suspend",
        "resume": f"{_PATH}/resume",
        "rerun": f"{_PATH}/rerun",
        "terminate": f"{_PATH}/terminate",
    },
}

ANSWER: dict[str, Any] = {
    "goal": "Compare the third quarter with the one before",
    "summary": "Paid search spend fell by 12 percent.",
    "kpis": [{"name": "Spend", "value": 120_000, "unit": "EUR", "change": -0.12, "step_id": "spend"}],
    "tables": [],
    "insights": [{"text": "Spend fell.", "step_ids": ["spend"]}],
    "missing": [],
    "degraded_reason": "no model is configured",
}

PLANNER: dict[str, Any] = {
    "source": "playbook",
    "playbook": "explain_change",
    "model": None,
    "router": "lexical",
    "fallbacks": [],
    "attempts": 1,
}
RUN_VIEW = RUN_SUMMARY | {"planner": PLANNER, "answer": ANSWER}
CANCELLING = RUN_SUMMARY | {"status": "cancelling", "finished_at": None}
SUSPENDED = RUN_SUMMARY | {"status": "suspended", "finished_at": None, "suspended_reason": "budget"}
RESUMED = RUN_SUMMARY | {"status": "running", "finished_at": None}
TERMINATED = RUN_SUMMARY | {"status": "terminated"}
LINK: dict[str, Any] = {
    "url": f"http://127.0.0.1:7071/api/links/contoso/{RUN_ID}/AQEAAA",
    "link_id": "00112233aabbccdd",
    "expires_at": _AT,
    "size_bytes": 2_000_000,
    "media_type": "application/json",
}
ERASED_RUN: dict[str, Any] = {"run_id": RUN_ID, "objects": 12}
RETENTION_REPORT: dict[str, Any] = {
    "tenant_id": "contoso",
    "dry_run": False,
    "legal_hold": False,
    "instances": 40,
    "contents": 0,
    "runs": 200,
    "ownerless": 3,
    "failed": 0,
    "more": True,
}
AUDIT_CONTENT: dict[str, Any] = {
    "run_id": RUN_ID,
    "sha256": "a" * 64,
    "commitment": "b" * 64,
    "commitment_key": "c" * 64,
    "size_bytes": 17,
    "media_type": "application/json",
    "text": '{"intent": "why"}',
}
CHECKPOINT: dict[str, Any] = {
    "v": 1,
    "tenant_id": "contoso",
    "number": 1,
    "size": 1,
    "head": "a" * 64,
    "root": "a" * 64,
    "peaks": ["a" * 64],
    "at": "2026-11-22T12:00:00Z",
    "prev": "0" * 64,
}
CHECKPOINT_PAGE: dict[str, Any] = {
    "tenant_id": "contoso",
    "checkpoints": [{"number": 1, "jws": "eyJhbGciOiJFUzI1NiJ9.eyJudW1iZXIiOjF9.c2lnbmF0dXJl"}],
    "next_after": 1,
    "more": False,
}
AUDIT_PAGE: dict[str, Any] = {
    "tenant_id": "contoso",
    "records": [
        {
            "v": 1,
            "tenant_id": "contoso",
            "seq": 1,
            "entry_id": f"{RUN_ID}/run.submitted/0123456789abcdef",
            "type": "run.submitted",
            "at": "2026-11-22T12:00:00Z",
            "run_id": RUN_ID,
            "actor": "tid:oid",
            "body": {"own_plan": False},
            "prev": "0" * 64,
            "hash": "a" * 64,
        }
    ],
    "next_after": 1,
    "more": False,
}
RERUN = {"from": "spend"}
RESUME = {"max_cost_micro_usd": 2_000_000}
RUN_COUNTS: dict[str, Any] = {
    "total": 3,
    "by_status": {status.value: 0 for status in RunStatus} | {"succeeded": 2, "running": 1},
    "is_complete": True,
}
RUN_LIST: dict[str, Any] = {"runs": [RUN_SUMMARY], "next_cursor": None}

STATUS_RUNNING: dict[str, Any] = {
    "name": "run_orchestrator",
    "instanceId": RUN_ID,
    "runtimeStatus": "Running",
    "input": {"run_id": RUN_ID},
    "customStatus": {"status": "planning", "degraded": False, "code": None},
    "output": None,
    "createdTime": _AT,
    "lastUpdatedTime": _AT,
}
STATUS_DONE = STATUS_RUNNING | {
    "runtimeStatus": "Completed",
    "customStatus": {"status": "succeeded", "degraded": True, "code": None},
    "output": ANSWER,
    "lastUpdatedTime": _LATER,
}

PLAN_VIEW: dict[str, Any] = {"run_id": RUN_ID, "plan_version": 1, "plan_hash": PLAN_HASH, "plan": PLAN}

STEP_LIST: dict[str, Any] = {
    "run_id": RUN_ID,
    "steps": [
        {
            "id": "spend",
            "status": "succeeded",
            "kind": "call",
            "capability": "marketing.query_performance",
            "attempt": 1,
            "item_count": None,
            "error": None,
            "started_at": _AT,
            "finished_at": _LATER,
            "duration_ms": 4000,
            "cost_micro_usd": 1200,
            "output": f"{_PATH}/steps/spend/output",
        }
    ],
}

STEP_OUTPUT: dict[str, Any] = {"rows": [{"channel": "paid_search", "spend": 120_000}]}

EVENT_PAGE: dict[str, Any] = {
    "events": [{"run_id": RUN_ID, "seq": 1, "type": "run.accepted", "at": _AT, "data": {}}],
    "next_after": 1,
    "ended": False,
}
EVENT_STREAM = (
    f'retry: 1000\n\nid: 1\nevent: run.accepted\ndata: {{"run_id":"{RUN_ID}","seq":1,"type":"run.accepted",'
    f'"at":"{_AT}","data":{{}}}}\n\n: heartbeat\n\n'
)

ROUTE: dict[str, Any] = {
    "domain": "marketing",
    "capabilities": [{"name": "marketing.compare_periods", "score": 0.9}],
    "in_scope": True,
    "confidence": 0.9,
    "router": "lexical",
    "playbooks": [{"name": "explain_change", "score": 0.9}],
    "fallbacks": [{"router": "small", "reason": "model.timeout"}],
}
_VERDICT: dict[str, Any] = {
    "verdict": "allow",
    "code": "",
    "reasons": [],
    "policy_ids": ["builtin.read"],
    "cures": [],
    "findings": [],
}
DECISION: dict[str, Any] = _VERDICT | {
    "policy_set_hash": PLAN_HASH,
    "steps": {"spend": _VERDICT},
    "approvals": [],
}
PLAN_PREVIEW: dict[str, Any] = {
    "ok": True,
    "errors": [],
    "warnings": [],
    "steps": 1,
    "edges": 0,
    "critical_path": ["spend"],
    "critical_path_s": 1.0,
    "estimated_cost_micro_usd": 1200,
    "plan_hash": PLAN_HASH,
    "plan": PLAN,
    "decision": DECISION,
    "planner": PLANNER,
    "degraded_reason": "no model is configured",
    "route": ROUTE,
    "refusal": None,
    "violations_by_attempt": [],
    "serial_edges": [],
}

READY: dict[str, Any] = {
    "status": "ok",
    "parts": {"tenants": "ok", "runs": "ok", "audit": "ok"},
    "version": "0.1.0",
    "catalog": PLAN_HASH,
    "catalog_files": "as_loaded",
    "policies": "in_force",
}
SCHEMA_LIST: dict[str, Any] = {"schemas": [{"name": "plan", "path": "/api/schemas/plan"}]}

TENANT: dict[str, Any] = TenantConfig(
    tenant_id="contoso",
    version=3,
    display_name="Contoso Retail",
    region="uksouth",
    enabled_capabilities=("insights.summarise", "marketing.query_performance"),
    egress_hosts=("rates.example.com",),
    directories={"recipients": ("marketing@contoso.example",)},
).model_dump(mode="json")
TENANT_VERSIONS: dict[str, Any] = {
    "versions": [{"version": 3, "sha256": PLAN_HASH, "changed_by": "tid:oid", "changed_at": _AT}],
    "operator_version": 1,
    "next_below": None,
}

_ASKED: dict[str, Any] = {
    "run_id": RUN_ID,
    "approval_id": "ap-5d41402abc4b2a76b9719d911017c592",
    "subject": "tell_finance",
    "item": None,
    "kind": "step",
    "status": "pending",
    "capability": "mail.send",
    "reasons": ["mail to somebody who is not in the directory of recipients needs a second person"],
    "requested_by": RUN_SUMMARY["submitted_by"],
    "requested_at": _AT,
    "expires_at": "2026-11-22T13:00:00Z",
    "decided_by": None,
    "decided_at": None,
    "void": None,
    "answer": f"{_PATH}/approvals/tell_finance",
}
PENDING_APPROVALS: dict[str, Any] = {"approvals": [_ASKED]}
APPROVAL: dict[str, Any] = _ASKED | {
    "status": "granted",
    "decided_by": "9b0f4a52-6f0a-5c1e-9d64-0f5a1b2c3d4e:7f2a9c1d-3b5e-5d8f-a1c3-e5d7f9b0a2c4",
    "decided_at": _LATER,
    "comment": "Checked with finance.",
    "findings": [
        {
            "policy_id": "t/contoso/mail-outside",
            "severity": "curable",
            "message": "mail to somebody who is not in the directory of recipients needs a second person",
            "step_id": "tell_finance",
            "pointer": "/to",
            "path": ["run#/context/values/finance_contact"],
            "cure": {"kind": "approval", "detail": "four-eyes"},
        }
    ],
    "redacted": [],
    "arguments": {"capability": "mail.send", "inputs": {"to": ["cfo@contoso.example"], "subject": "Q3", "body": "…"}},
    "arguments_omitted": False,
    "plan": f"{_PATH}/plan",
    "plan_hash": PLAN_HASH,
    "plan_version": 1,
    "arguments_sha256": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
    "policy_set_hash": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "vetting_id": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
}
APPROVAL_LIST: dict[str, Any] = {"run_id": RUN_ID, "approvals": [APPROVAL]}
ANSWER_APPROVAL: dict[str, Any] = {
    "decision": "approve",
    "approval_id": _ASKED["approval_id"],
    "item": None,
    "comment": "Checked with finance.",
}

BREAKERS: dict[str, Any] = {
    "breakers": [
        {
            "circuit": "rates.lookup--any",
            "capability": "rates.lookup",
            "region": "any",
            "phase": "open",
            "failures_in_row": 0.0,
            "breaks": 1,
            "probing": 0,
            "open_until_at": _LATER,
        }
    ]
}
QUOTA: dict[str, Any] = {
    "running": 3,
    "waiting": 0,
    "max_concurrent_runs": 20,
    "submissions_per_minute": 120,
    "burst": 20,
}

GRANT_KEYS = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            "use": "sig",
            "alg": "ES256",
            "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
            "issuer": "livoa-orchestrator",
        }
    ]
}
