"""What descriptions of endpoints are made of: the parts, the refusals that many share, and parameters in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

JSON = "application/json"
SSE = "text/event-stream"
REF = "#/components/schemas/{model}"

Refusals = Mapping[int, tuple[str, ...]]
ALWAYS: Refusals = {500: ("internal.unexpected",)}
WITH_TOKEN: Refusals = {
    400: ("auth.header_repeated",),
    401: (
        "auth.missing", "auth.scheme", "auth.token_invalid", "auth.token_expired", "auth.token_not_yet_valid",
        "auth.claims_missing", "auth.audience_wrong", "auth.issuer_wrong", "auth.token_kind", "auth.tenant_unknown",
        "auth.client_not_allowed",
    ),
    403: ("auth.role_missing", "auth.scope_missing", "auth.tenant_suspended"),
    503: ("auth.keys_unavailable",),
}  # fmt: skip
JSON_BODY: Refusals = {
    400: (
        "json.syntax", "json.trailing_data", "json.encoding", "json.bom", "json.too_deep", "json.not_a_number",
        "json.integer_range", "json.number_range", "json.duplicate_key", "json.lone_surrogate",
    ),
    413: ("http.body_too_large",),
    415: ("http.media_type",),
}  # fmt: skip
NO_RUN: Refusals = {404: ("run.not_found",), 410: ("run.erased",)}
NO_TENANT: Refusals = {404: ("tenant.not_found",), 503: ("tenants.invalid", "tenants.unavailable")}


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


def ref(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model, by reference."""
    return {"$ref": REF.format(model=model.__name__)}


def in_json(description: str, model: type[BaseModel], example: Any, headers: tuple[str, ...] = ()) -> Answer:
    """One JSON object."""
    return Answer(description, {JSON: (ref(model), example)}, headers)


def query(name: str, description: str, schema_: dict[str, Any]) -> dict[str, Any]:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": description, "schema": schema_}


def header(name: str, description: str, schema_: dict[str, Any]) -> dict[str, Any]:
    """A header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": schema_}


OBJECT = {"type": "object"}
LIMIT = {"type": "integer", "minimum": 1}
POLL = ("Location", "Retry-After")
WIRE_ID = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$"}
_TIME = {"type": "string", "format": "date-time"}
WITHIN = (
    query("since", "Only runs created at or after this time.", _TIME),
    query("until", "Only runs created before this time.", _TIME),
)
PAGE_OF_AUDIT = (
    query("after", "next_after of the page before; 0 for the first.", {"type": "integer", "minimum": 0, "default": 0}),
    query("limit", "Records a page.", LIMIT | {"maximum": 1_000, "default": 1_000}),
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key", "Same key and same request: the first run again. Same key, other request: 422.", WIRE_ID
)
