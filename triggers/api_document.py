"""The API description (OpenAPI 3.1), built from the endpoints and the models they answer with.

What is written by hand is words: a summary, parameters, which models, which refusals. A test holds the list to the endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from engine.domain.checkpoint import Checkpoint
from engine.domain.run import RunRequest
from engine.domain.status import RunStatus
from engine.domain.tenant import TenantConfig
from triggers import api_examples as examples
from triggers.approval_views import AnswerRequest, ApprovalList, ApprovalView, PendingApprovals
from triggers.endpoint import AnyEndpoint, Endpoint
from triggers.http_admin import VersionList
from triggers.http_audit import AuditPage
from triggers.http_audit_content import AuditContent
from triggers.http_checkpoints import CheckpointPage
from triggers.http_control import ResumeRequest
from triggers.http_limits import BreakerList, QuotaView
from triggers.http_links import Link, LinkRequest
from triggers.http_rerun import RerunRequest
from triggers.http_retention import ErasedRun, RetentionRequest
from triggers.plan_views import PlanPreview, RouteView
from triggers.problems import PROBLEM_JSON, TYPE_PREFIX
from triggers.retention import RetentionReport
from triggers.schemas import Problem, schema
from triggers.views import (
    Accepted,
    DurableStatus,
    EventPage,
    PlanView,
    RunCountsView,
    RunList,
    RunSummary,
    RunView,
    StepList,
)

_JSON = "application/json"
_SSE = "text/event-stream"
_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    Accepted, AnswerRequest, ApprovalList, ApprovalView, AuditContent, AuditPage, BreakerList, Checkpoint,
    CheckpointPage, DurableStatus, ErasedRun, EventPage, Link, LinkRequest, PendingApprovals, PlanPreview, PlanView,
    Problem, QuotaView, RerunRequest, ResumeRequest, RetentionReport, RetentionRequest, RouteView, RunCountsView,
    RunList, RunRequest, RunSummary, RunView, StepList, TenantConfig, VersionList,
)  # fmt: skip
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")

Refusals = Mapping[int, tuple[str, ...]]
_ALWAYS: Refusals = {500: ("internal.unexpected",)}
_WITH_TOKEN: Refusals = {
    400: ("auth.header_repeated",),
    401: (
        "auth.missing", "auth.scheme", "auth.token_invalid", "auth.token_expired", "auth.token_not_yet_valid",
        "auth.claims_missing", "auth.audience_wrong", "auth.issuer_wrong", "auth.token_kind", "auth.tenant_unknown",
        "auth.client_not_allowed",
    ),
    403: ("auth.role_missing", "auth.scope_missing", "auth.tenant_suspended"),
    503: ("auth.keys_unavailable",),
}  # fmt: skip
_JSON_BODY: Refusals = {
    400: (
        "json.syntax", "json.trailing_data", "json.encoding", "json.bom", "json.too_deep", "json.not_a_number",
        "json.integer_range", "json.number_range", "json.duplicate_key", "json.lone_surrogate",
    ),
    413: ("http.body_too_large",),
    415: ("http.media_type",),
}  # fmt: skip
_NO_RUN: Refusals = {404: ("run.not_found",), 410: ("run.erased",)}
_NO_TENANT: Refusals = {404: ("tenant.not_found",), 503: ("tenants.invalid", "tenants.unavailable")}


@dataclass(frozen=True, slots=True)
class Answer:
    """One successful response. ``content`` maps media types to (schema, example)."""

    description: str
    content: Mapping[str, tuple[dict[str, Any], Any]] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Doc:
    """Words about one endpoint."""

    summary: str
    answers: Mapping[int, Answer]
    parameters: tuple[dict[str, Any], ...] = ()
    body: tuple[dict[str, Any], Any] | None = None
    refusals: tuple[Refusals, ...] = ()


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def _json(description: str, model: type[BaseModel], example: Any, headers: tuple[str, ...] = ()) -> Answer:
    return Answer(description, {_JSON: (_ref(model), example)}, headers)


def _query(name: str, description: str, schema_: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema_}


def _header(name: str, description: str, schema_: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema_}


_OBJECT = {"type": "object"}
_LIMIT = {"type": "integer", "minimum": 1}
_POLL = ("Location", "Retry-After")
_WIRE_ID = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$"}
_TIME = {"type": "string", "format": "date-time"}
_WITHIN = (
    _query("since", "Only runs created at or after this time.", _TIME),
    _query("until", "Only runs created before this time.", _TIME),
)
_PAGE_OF_AUDIT = (
    _query("after", "next_after of the page before; 0 for the first.", {"type": "integer", "minimum": 0, "default": 0}),
    _query("limit", "Records a page.", _LIMIT | {"maximum": 1_000, "default": 1_000}),
)
_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key", "Same key and same request: the first run again. Same key, other request: 422.", _WIRE_ID
)

DOCS: dict[str, Doc] = {
    "submit_run": Doc(
        "Submit an intent; the run is planned and executed in the background.",
        {202: _json("Accepted.", Accepted, examples.ACCEPTED, _POLL)},
        (_IDEMPOTENCY_KEY,),
        (_ref(RunRequest), examples.RUN_REQUEST),
        (
            _JSON_BODY,
            {
                400: ("idempotency.key_invalid",),
                409: ("idempotency.in_flight",),
                422: ("request.invalid", "plan.invalid", "idempotency.mismatch"),
                429: ("quota.submissions",),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "list_runs": Doc(
        "List runs, newest first. Without the role Runs.Read the caller's own only; pages can then be short.",
        {200: _json("A page.", RunList, examples.RUN_LIST)},
        (
            _query("status", "Only runs of this status.", {"enum": [status.value for status in RunStatus]}),
            *_WITHIN,
            _query("cursor", "next_cursor of the page before, with the same filters.", {"type": "string"}),
            _query("limit", "Runs a page.", _LIMIT | {"maximum": 200, "default": 50}),
        ),
        refusals=({400: ("query.invalid", "cursor.invalid")},),
    ),
    "count_runs": Doc(
        "How many runs of the tenant stand where; of at most 10,000, the newest.",
        {200: _json("The counts.", RunCountsView, examples.RUN_COUNTS)},
        _WITHIN,
        refusals=({400: ("query.invalid",)},),
    ),
    "get_run": Doc(
        "One run, with its answer once there is one.",
        {200: _json("The run.", RunView, examples.RUN_VIEW)},
        refusals=(_NO_RUN,),
    ),
    "get_run_status": Doc(
        "A run in the status-query shape of durable functions; the exact status is in customStatus.status.",
        {
            200: _json("The run is over.", DurableStatus, examples.STATUS_DONE),
            202: _json("The run is going on.", DurableStatus, examples.STATUS_RUNNING, _POLL),
        },
        refusals=(_NO_RUN,),
    ),
    "get_run_plan": Doc(
        "The checked plan of a run.",
        {200: _json("The plan.", PlanView, examples.PLAN_VIEW, ("ETag",))},
        refusals=({404: ("run.not_found", "plan.not_found")},),
    ),
    "list_run_steps": Doc(
        "Every step of a run's plan, in its order; empty before there is a plan.",
        {200: _json("The steps.", StepList, examples.STEP_LIST)},
        refusals=(_NO_RUN,),
    ),
    "get_step_output": Doc(
        "The output of a step that succeeded, or of one item of a for_each step.",
        {200: Answer("The output.", {_JSON: ({}, examples.STEP_OUTPUT)}, ("ETag",))},
        (_query("item", "Which item, from 0.", {"type": "integer", "minimum": 0, "maximum": 9_999}),),
        refusals=(_NO_RUN, {400: ("query.invalid",), 409: ("step.no_output",), 422: ("step.unknown",)}),
    ),
    "list_run_events": Doc(
        "The event log: server-sent events, or a page of JSON with Accept: application/json. Streams end after a while; "
        "resume with Last-Event-ID.",
        {
            200: Answer(
                "Events.",
                {_SSE: ({"type": "string"}, examples.EVENT_STREAM), _JSON: (_ref(EventPage), examples.EVENT_PAGE)},
            ),
            204: Answer("Server-sent events only: the log has ended and was read to its end; do not come back."),
        },
        (
            _header("Last-Event-ID", "Go on after this event; wins over after.", {"type": "integer", "minimum": 0}),
            _query("after", "Go on after this event.", {"type": "integer", "minimum": 0, "default": 0}),
            _query("limit", "Events a page.", _LIMIT | {"maximum": 500, "default": 500}),
            _query("wait_s", "JSON only: wait this long for an event.", {"type": "integer", "minimum": 0}),
        ),
        refusals=(_NO_RUN, {400: ("query.invalid", "events.position_invalid")}),
    ),
    "cancel_run": Doc(
        "Cancel a run: no new steps, and it ends cancelled with what it has. Asking again changes nothing.",
        {202: _json("The run is being cancelled.", RunSummary, examples.CANCELLING, _POLL)},
        refusals=(_NO_RUN, {409: ("run.finished",), 503: ("audit.unavailable", "engine.unavailable")}),
    ),
    "suspend_run": Doc(
        "Suspend a run: what has begun ends, nothing starts, its deadline holds. Asking again changes nothing.",
        {202: _json("The run is suspended.", RunSummary, examples.SUSPENDED)},
        refusals=(_NO_RUN, {409: ("run.finished", "run.cancelling"), 503: ("audit.unavailable",)}),
    ),
    "resume_run": Doc(
        "Resume a suspended run, with a higher budget in micro-USD where it was suspended for want of one.",
        {202: _json("The run goes on.", RunSummary, examples.RESUMED)},
        body=(_ref(ResumeRequest), examples.RESUME),
        refusals=(
            _JSON_BODY,
            _NO_RUN,
            {
                409: ("run.finished", "run.cancelling", "run.not_suspended"),
                422: ("request.invalid", "budget.out_of_bounds", "budget.not_raised"),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "make_link": Doc(
        "A link that opens the output of a step for some minutes, for whoever has it. On record.",
        {201: _json("The link.", Link, examples.LINK)},
        body=(_ref(LinkRequest), {"step_id": "spend", "valid_s": 300}),
        refusals=(
            _JSON_BODY,
            _NO_RUN,
            {
                409: ("step.no_output",),
                410: ("run.erased", "payload.erased"),
                422: ("request.invalid",),
                429: ("quota.links",),
                503: ("audit.unavailable", "payload.key_unavailable", "link.unavailable"),
            },
        ),
    ),
    "follow_link": Doc(
        "The output that a link is for, as a download. Needs no token; its first use is on record.",
        {200: Answer("The stored bytes.", {_JSON: ({}, {"rows": []})}, ("Content-Disposition",))},
        refusals=(
            {404: ("link.invalid",), 410: ("link.expired",), 500: ("payload.corrupt",)},
            {503: ("audit.unavailable", "payload.unavailable", "payload.key_unavailable")},
        ),
    ),
    "erase_run": Doc(
        "Erase a run that is over: its content, from every copy, and everything else but its audit records. Repeatable.",
        {200: _json("The run is gone.", ErasedRun, examples.ERASED_RUN)},
        refusals=(
            {404: ("run.not_found",), 409: ("run.not_finished", "run.winding_up", "retention.held")},
            {503: ("audit.unavailable", "engine.unavailable", "payload.unavailable")},
        ),
    ),
    "run_retention": Doc(
        "Take one batch of the caller's tenant through its retention, or say what is due. Ask again while more is true.",
        {200: _json("What the batch did, or would do.", RetentionReport, examples.RETENTION_REPORT)},
        body=(_ref(RetentionRequest), {"dry_run": True}),
        refusals=(_JSON_BODY, {422: ("request.invalid",)}),
    ),
    "rerun_run": Doc(
        "Do a finished run again: what succeeded is taken over, except a step, where one is named, and what depends on it.",
        {202: _json("A new run, with this one as its parent.", Accepted, examples.ACCEPTED, _POLL)},
        body=(_ref(RerunRequest), examples.RERUN),
        parameters=(_IDEMPOTENCY_KEY,),
        refusals=(
            _JSON_BODY,
            _NO_RUN,
            {
                400: ("idempotency.key_invalid",),
                409: ("run.not_finished", "run.no_plan", "idempotency.in_flight"),
                422: ("request.invalid", "step.unknown", "idempotency.mismatch"),
                429: ("quota.submissions",),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "terminate_run": Doc(
        "End a run at once: nothing is undone, no answer is composed, what is under way is not waited for.",
        {200: _json("The run is over.", RunSummary, examples.TERMINATED)},
        refusals=(_NO_RUN, {409: ("run.finished",), 503: ("audit.unavailable",)}),
    ),
    "list_run_approvals": Doc(
        "What of this run a person must approve, with the arguments as they will be used, and what was answered.",
        {200: _json("The approvals, oldest first.", ApprovalList, examples.APPROVAL_LIST)},
        refusals=(_NO_RUN,),
    ),
    "answer_approval": Doc(
        "Answer an approval; the subject is plan or the id of a step. The same answer again changes nothing.",
        {200: _json("The approval with its answer.", ApprovalView, examples.APPROVAL)},
        body=(_ref(AnswerRequest), examples.ANSWER_APPROVAL),
        refusals=(
            _JSON_BODY,
            {
                403: ("approval.self", "approval.app_only"),
                404: ("run.not_found", "approval.not_found"),
                409: ("approval.closed",),
                410: ("approval.expired",),
                422: ("request.invalid", "approval.item_missing"),
                503: ("audit.unavailable",),
            },
        ),
    ),
    "list_pending_approvals": Doc(
        "What waits for an answer in the caller's tenant.",
        {200: _json("The open approvals, oldest first.", PendingApprovals, examples.PENDING_APPROVALS)},
        (_query("limit", "Approvals a page.", _LIMIT | {"maximum": 200, "default": 50}),),
        refusals=({400: ("query.invalid",)},),
    ),
    "check_plan": Doc(
        "Look at a plan, or at the plan for an intent, without running it: findings, policy decision, critical path, cost. "
        "An intent needs the role Runs.Submit, because models may be asked.",
        {200: _json("The findings.", PlanPreview, examples.PLAN_PREVIEW)},
        body=({"anyOf": [{"$ref": "#/components/schemas/TaskGraph"}, _ref(RunRequest)]}, examples.PLAN),
        refusals=(_JSON_BODY, {422: ("request.invalid",)}),
    ),
    "route_intent": Doc(
        "What an intent is about: domain, capabilities, and which router said so.",
        {200: _json("The route.", RouteView, examples.ROUTE)},
        body=(_ref(RunRequest), examples.RUN_REQUEST),
        refusals=(_JSON_BODY, {422: ("request.invalid",)}),
    ),
    "list_schemas": Doc(
        "Names of the published JSON Schemas.", {200: Answer("Names.", {_JSON: (_OBJECT, examples.SCHEMA_LIST)})}
    ),
    "get_schema": Doc(
        "One JSON Schema (2020-12).",
        {200: Answer("The schema.", {"application/schema+json": (_OBJECT, {"$id": "urn:livoa:schema:plan:1.0"})})},
        refusals=({404: ("schema.not_found",)},),
    ),
    "grant_keys": Doc(
        "The public keys with which agents check execution grants (a JWKS document).",
        {200: Answer("The keys.", {_JSON: (_OBJECT, examples.GRANT_KEYS)})},
        refusals=({503: ("audit.key_unavailable",)},),
    ),
    "health_live": Doc("Is the process alive?", {200: Answer("Yes.", {_JSON: (_OBJECT, {"status": "ok"})})}),
    "health_ready": Doc(
        "Can it do its work?",
        {
            200: Answer("Every part answers.", {_JSON: (_OBJECT, examples.READY)}),
            503: Answer("Some part does not.", {_JSON: (_OBJECT, examples.READY | {"status": "failing"})}),
        },
    ),
    "get_tenant": Doc(
        "The configuration that holds for the caller's own tenant.",
        {200: _json("The configuration.", TenantConfig, examples.TENANT, ("ETag",))},
        refusals=(_NO_TENANT,),
    ),
    "put_tenant": Doc(
        "Replace the configuration of the caller's own tenant. An admin may narrow what the operator gives, not widen it.",
        {200: _json("The configuration that holds now.", TenantConfig, examples.TENANT, ("ETag",))},
        (
            _header("If-Match", "The ETag of the configuration that is changed.", {"type": "string"})
            | {"required": True},
        ),
        (_ref(TenantConfig), examples.TENANT),
        (
            _NO_TENANT,
            _JSON_BODY,
            {
                409: ("tenant.version_conflict",),
                412: ("tenant.version_mismatch",),
                422: ("tenant.invalid",),
                428: ("tenant.if_match_required",),
                503: ("audit.unavailable",),
            },
        ),
    ),
    "list_tenant_versions": Doc(
        "Who changed the configuration of the caller's own tenant when, newest first.",
        {200: _json("A page.", VersionList, examples.TENANT_VERSIONS)},
        (
            _query("below", "next_below of the page before.", {"type": "integer", "minimum": 1}),
            _query("limit", "Versions a page.", _LIMIT | {"maximum": 100, "default": 50}),
        ),
        refusals=(_NO_TENANT, {400: ("query.invalid",)}),
    ),
    "get_run_audit": Doc(
        "The audit records of a run, for auditors. Looking is recorded.",
        {200: _json("Records, in the order of the tenant's chain.", AuditPage, examples.AUDIT_PAGE)},
        _PAGE_OF_AUDIT,
        refusals=(_NO_RUN, {400: ("query.invalid",), 503: ("audit.unavailable",)}),
    ),
    "list_audit": Doc(
        "The audit chain of the caller's tenant, for auditors. Looking is recorded.",
        {200: _json("Records, in the order of the chain.", AuditPage, examples.AUDIT_PAGE)},
        _PAGE_OF_AUDIT,
        refusals=({400: ("query.invalid",), 503: ("audit.unavailable",)},),
    ),
    "get_audit_content": Doc(
        "Content of a run that its audit records commit to, by its SHA-256, for auditors. Looking is recorded.",
        {200: _json("The content.", AuditContent, examples.AUDIT_CONTENT)},
        refusals=(
            _NO_RUN,
            {
                404: ("audit.no_such_content", "payload.not_found"),
                410: ("payload.erased", "run.erased"),
                500: ("payload.corrupt",),
                503: ("audit.unavailable", "payload.unavailable"),
            },
        ),
    ),
    "make_checkpoint": Doc(
        "Sign and anchor the audit chain of the caller's tenant as it stands, for auditors.",
        {200: _json("The latest checkpoint.", Checkpoint, examples.CHECKPOINT)},
        refusals=(
            {
                409: ("checkpoint.none",),
                500: (
                    "checkpoint.chain_broken",
                    "checkpoint.anchor_missing",
                    "checkpoint.signature_invalid",
                    "checkpoint.anchor_misplaced",
                    "anchor.unreadable",
                    "audit.key_invalid",
                ),
                503: ("checkpoint.contended", "anchors.unavailable", "audit.key_unavailable"),
            },
        ),
    ),
    "list_checkpoints": Doc(
        "The signed checkpoints of the caller's tenant, for auditors.",
        {200: _json("Checkpoints, in order.", CheckpointPage, examples.CHECKPOINT_PAGE)},
        (
            _query("after", "next_after of the page before.", {"type": "integer", "minimum": 0, "default": 0}),
            _query("limit", "Checkpoints a page.", _LIMIT | {"maximum": 1_000, "default": 1_000}),
        ),
        refusals=({400: ("query.invalid",), 503: ("anchors.unavailable",)},),
    ),
    "list_breakers": Doc(
        "The circuits of the capabilities that the caller's tenant may use: which are open, and until when.",
        {200: _json("The circuits, by capability.", BreakerList, examples.BREAKERS)},
        refusals=(_NO_TENANT,),
    ),
    "get_quota": Doc(
        "How many runs of the caller's tenant are under way or wait for a place, and its limits.",
        {200: _json("The quota.", QuotaView, examples.QUOTA)},
        refusals=(_NO_TENANT, {503: ("engine.unavailable",)}),
    ),
    "openapi": Doc("This description.", {200: Answer("OpenAPI 3.1.", {_JSON: (_OBJECT, {"openapi": "3.1.0"})})}),
}


def build_document(endpoints: tuple[AnyEndpoint, ...]) -> dict[str, Any]:
    """The whole description of these endpoints. Raises ``KeyError`` for one that has no words in ``DOCS``."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault("/" + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, DOCS[endpoint.name])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Livoa Orchestrator Agent",
            "version": "1",
            "description": "Turns an intent into a governed task graph and executes it. "
            "Every refusal is problem+json with a stable code.",
        },
        "servers": [{"url": "/api"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


@cache
def _schemas() -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_REF)
    plan = {key: value for key, value in schema("plan").items() if not key.startswith("$")}
    nested = schema("plan").get("$defs", {})
    found = {**definitions["$defs"], "TaskGraph": plan, **{f"TaskGraph{name}": value for name, value in nested.items()}}
    return {name: _renamed(value) if name.startswith("TaskGraph") else value for name, value in found.items()}


def _renamed(value: Any) -> Any:
    """References inside the plan's schema, pointing to where its definitions stand here."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/$defs/", "#/components/schemas/TaskGraph") if key == "$ref" else _renamed(item)
            for key, item in value.items()
        }
    return [_renamed(item) for item in value] if isinstance(value, list) else value


def _operation(endpoint: AnyEndpoint, doc: Doc) -> dict[str, Any]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": _WIRE_ID}
        for name in _PATH_PARAMETER.findall(endpoint.path)
    ]
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": doc.summary}
    if parameters := [*path, *doc.parameters]:
        operation["parameters"] = parameters
    if doc.body is not None:
        shape, example = doc.body
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": shape, "example": example}}}
    signed_in = isinstance(endpoint, Endpoint)
    refusals = _merged(_ALWAYS, *((_WITH_TOKEN,) if signed_in else ()), *doc.refusals)
    answers = {status: _answer(answer) for status, answer in doc.answers.items()}
    operation["responses"] = {
        str(status): answer for status, answer in sorted((_refusal_answers(refusals) | answers).items())
    }
    operation["security"] = [{"bearer": []}] if signed_in else []
    if isinstance(endpoint, Endpoint) and endpoint.roles:
        operation["description"] = "Needs the role " + " or ".join(sorted(role.value for role in endpoint.roles)) + "."
    return operation


def _merged(*all_refusals: Refusals) -> dict[int, tuple[str, ...]]:
    merged: dict[int, tuple[str, ...]] = {}
    for refusals in all_refusals:
        for status, codes in refusals.items():
            merged[status] = (*merged.get(status, ()), *codes)
    return merged


def _answer(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.description}
    if answer.content:
        shown["content"] = {
            kind: {"schema": shape, "example": example} for kind, (shape, example) in answer.content.items()
        }
    if answer.headers:
        shown["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
    return shown


def _refusal_answers(refusals: Mapping[int, tuple[str, ...]]) -> dict[int, Any]:
    answers = {}
    for status, codes in refusals.items():
        title = HTTPStatus(status).phrase
        shown = {
            code: {
                "value": {
                    "type": TYPE_PREFIX + code, "title": title, "status": status, "detail": "…", "instance": "/api/…",
                    "code": code,
                }
            }
            for code in codes
        }  # fmt: skip
        content = {PROBLEM_JSON: {"schema": _ref(Problem), "examples": shown}}
        answers[status] = {"description": f"{title}: {', '.join(codes)}.", "content": content}
    return answers
