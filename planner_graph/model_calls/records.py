"""The audit entries of one model request. Bodies hold names, counts and commitments; prompts and completions are payloads."""

from __future__ import annotations

from datetime import datetime

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.run import PayloadRef
from engine.ports.model_results import ModelResultRecord
from engine.ports.models import ModelDeployment, ModelUsage
from planner_graph.model_calls.question import Question


def entry_id(question: Question, request: int, kind: AuditType) -> str:
    """Deterministic, one per request and kind."""
    return f"{question.site.run_id}/{question.budget_prefix}{request}/{kind.value}"


def _entry(question: Question, request: int, kind: AuditType, at: datetime, body: JsonObject) -> AuditEntry:
    site = question.site
    where = {"work": question.work, "node": site.node, "plan_version": site.plan_version, "request": request}
    return AuditEntry(
        tenant_id=site.tenant.tenant_id,
        entry_id=entry_id(question, request, kind),
        type=kind,
        at=at,
        run_id=site.run_id,
        actor=site.actor,
        body=where | body,
    )


def prompt_entry(
    question: Question,
    request: int,
    at: datetime,
    *,
    deployment: ModelDeployment,
    prompt: PayloadRef,
    reserved_micro_usd: int,
) -> AuditEntry:
    """The request that is about to be made. Durable before it is made."""
    body: JsonObject = {
        "deployment": deployment.name,
        "model": deployment.model,
        "provider": deployment.provider,
        "prompt_sha256": prompt.sha256,
        "prompt_bytes": prompt.size_bytes,
        "schema_name": question.schema_name if question.schema is not None else None,
        "max_output_tokens": question.output_tokens(deployment),
        "temperature_milli": round(question.temperature * 1_000),
        "seed": question.seed,
        "reserved_micro_usd": reserved_micro_usd,
    }
    if question.prompt_file is not None:
        body["prompt_file"] = {"name": question.prompt_file.name, "sha256": question.prompt_file.sha256}
    return _entry(question, request, AuditType.PLANNER_PROMPT, at, body)


def completion_entry(question: Question, at: datetime, record: ModelResultRecord) -> AuditEntry:
    """What came of a request."""
    body: JsonObject = {
        "deployment": record.deployment,
        "status": "succeeded" if record.code is None else "failed",
        "model": record.model,
        "finish_reason": record.finish_reason,
        "latency_ms": round(record.latency_s * 1_000),
        "cost_micro_usd": record.cost_micro_usd,
        "seed": question.seed,
        "prompt_sha256": question.prompt_sha256,
        "usage": _usage(record.usage),
    }
    if record.code is not None:
        body["code"] = record.code
    if record.output is not None:
        body |= {"output_sha256": record.output.sha256, "output_bytes": record.output.size_bytes}
    return _entry(question, record.request, AuditType.PLANNER_COMPLETION, at, body)


def exhausted_entry(question: Question, request: int, at: datetime, *, deployment: str, code: str) -> AuditEntry:
    """A request that the budget did not cover, and that was therefore not made."""
    body: JsonObject = {"deployment": deployment, "code": code}
    return _entry(question, request, AuditType.BUDGET_EXHAUSTED, at, body)


def egress_entry(question: Question, request: int, at: datetime, *, deployment: str, code: str) -> AuditEntry:
    """A request that the egress guard did not let through to its deployment, or a redirect that was not followed."""
    body: JsonObject = {"deployment": deployment, "code": code}
    return _entry(question, request, AuditType.EGRESS_REFUSED, at, body)


def _usage(usage: ModelUsage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "estimated": usage.estimated,
    }
