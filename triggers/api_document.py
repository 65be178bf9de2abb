"""The API description (OpenAPI 3.1), built from the endpoints and the models they answer with.

What is written by hand is words: a summary, parameters, which models, which refusals. A test holds the list to the endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from engine.domain.checkpoint import Checkpoint
from engine.domain.run import RunRequest
from engine.domain.tenant import TenantConfig
from triggers.api_run_docs import RUN_DOCS
from triggers.api_tenant_docs import TENANT_DOCS
from triggers.api_words import ALWAYS, JSON, REF, WIRE_ID, WITH_TOKEN, Answer, Doc, Refusals, ref
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

_MODELS: tuple[type[BaseModel], ...] = (
    Accepted, AnswerRequest, ApprovalList, ApprovalView, AuditContent, AuditPage, BreakerList, Checkpoint,
    CheckpointPage, DurableStatus, ErasedRun, EventPage, Link, LinkRequest, PendingApprovals, PlanPreview, PlanView,
    Problem, QuotaView, RerunRequest, ResumeRequest, RetentionReport, RetentionRequest, RouteView, RunCountsView,
    RunList, RunRequest, RunSummary, RunView, StepList, TenantConfig, VersionList,
)  # fmt: skip
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")

DOCS: dict[str, Doc] = RUN_DOCS | TENANT_DOCS


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
    _, definitions = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=REF)
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
        {"name": name, "in": "path", "required": True, "schema": WIRE_ID}
        for name in _PATH_PARAMETER.findall(endpoint.path)
    ]
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": doc.summary}
    if parameters := [*path, *doc.parameters]:
        operation["parameters"] = parameters
    if doc.body is not None:
        shape, example = doc.body
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": shape, "example": example}}}
    signed_in = isinstance(endpoint, Endpoint)
    refusals = _merged(ALWAYS, *((WITH_TOKEN,) if signed_in else ()), *doc.refusals)
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
        content = {PROBLEM_JSON: {"schema": ref(Problem), "examples": shown}}
        answers[status] = {"description": f"{title}: {', '.join(codes)}.", "content": content}
    return answers
