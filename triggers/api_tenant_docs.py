"""Words about everything but runs: a tenant's configuration, limits, evidence and retention, and the app itself."""

from __future__ import annotations

from engine.domain.checkpoint import Checkpoint
from engine.domain.tenant import TenantConfig
from triggers import api_examples as examples
from triggers.api_words import (
    JSON,
    JSON_BODY,
    LIMIT,
    NO_RUN,
    NO_TENANT,
    OBJECT,
    PAGE_OF_AUDIT,
    Answer,
    Doc,
    header,
    in_json,
    query,
    ref,
)
from triggers.http_admin import VersionList
from triggers.http_audit import AuditPage
from triggers.http_audit_content import AuditContent
from triggers.http_checkpoints import CheckpointPage
from triggers.http_limits import BreakerList, QuotaView
from triggers.http_retention import ErasedRun, RetentionRequest
from triggers.retention import RetentionReport

TENANT_DOCS: dict[str, Doc] = {
    "erase_run": Doc(
        "Erase a run that is over: its content, from every copy, and everything else but its audit records. Repeatable.",
        {200: in_json("The run is gone.", ErasedRun, examples.ERASED_RUN)},
        refusals=(
            {404: ("run.not_found",), 409: ("run.not_finished", "run.winding_up", "retention.held")},
            {503: ("audit.unavailable", "engine.unavailable", "payload.unavailable")},
        ),
    ),
    "run_retention": Doc(
        "Take one batch of the caller's tenant through its retention, or say what is due. Ask again while more is true.",
        {200: in_json("What the batch did, or would do.", RetentionReport, examples.RETENTION_REPORT)},
        body=(ref(RetentionRequest), {"dry_run": True}),
        refusals=(JSON_BODY, {422: ("request.invalid",)}),
    ),
    "list_schemas": Doc(
        "Names of the published JSON Schemas.", {200: Answer("Names.", {JSON: (OBJECT, examples.SCHEMA_LIST)})}
    ),
    "get_schema": Doc(
        "One JSON Schema (2020-12).",
        {200: Answer("The schema.", {"application/schema+json": (OBJECT, {"$id": "urn:livoa:schema:plan:1.0"})})},
        refusals=({404: ("schema.not_found",)},),
    ),
    "grant_keys": Doc(
        "The public keys with which agents check execution grants (a JWKS document).",
        {200: Answer("The keys.", {JSON: (OBJECT, examples.GRANT_KEYS)})},
        refusals=({503: ("audit.key_unavailable",)},),
    ),
    "health_live": Doc("Is the process alive?", {200: Answer("Yes.", {JSON: (OBJECT, {"status": "ok"})})}),
    "health_ready": Doc(
        "Can it do its work?",
        {
            200: Answer("Every part answers.", {JSON: (OBJECT, examples.READY)}),
            503: Answer("Some part does not.", {JSON: (OBJECT, examples.READY | {"status": "failing"})}),
        },
    ),
    "get_tenant": Doc(
        "The configuration that holds for the caller's own tenant.",
        {200: in_json("The configuration.", TenantConfig, examples.TENANT, ("ETag",))},
        refusals=(NO_TENANT,),
    ),
    "put_tenant": Doc(
        "Replace the configuration of the caller's own tenant. An admin may narrow what the operator gives, not widen it.",
        {200: in_json("The configuration that holds now.", TenantConfig, examples.TENANT, ("ETag",))},
        (
            header("If-Match", "The ETag of the configuration that is changed.", {"type": "string"})
            | {"required": True},
        ),
        (ref(TenantConfig), examples.TENANT),
        (
            NO_TENANT,
            JSON_BODY,
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
        {200: in_json("A page.", VersionList, examples.TENANT_VERSIONS)},
        (
            query("below", "next_below of the page before.", {"type": "integer", "minimum": 1}),
            query("limit", "Versions a page.", LIMIT | {"maximum": 100, "default": 50}),
        ),
        refusals=(NO_TENANT, {400: ("query.invalid",)}),
    ),
    "get_run_audit": Doc(
        "The audit records of a run, for auditors. Looking is recorded.",
        {200: in_json("Records, in the order of the tenant's chain.", AuditPage, examples.AUDIT_PAGE)},
        PAGE_OF_AUDIT,
        refusals=(NO_RUN, {400: ("query.invalid",), 503: ("audit.unavailable",)}),
    ),
    "list_audit": Doc(
        "The audit chain of the caller's tenant, for auditors. Looking is recorded.",
        {200: in_json("Records, in the order of the chain.", AuditPage, examples.AUDIT_PAGE)},
        PAGE_OF_AUDIT,
        refusals=({400: ("query.invalid",), 503: ("audit.unavailable",)},),
    ),
    "get_audit_content": Doc(
        "Content of a run that its audit records commit to, by its SHA-256, for auditors. Looking is recorded.",
        {200: in_json("The content.", AuditContent, examples.AUDIT_CONTENT)},
        refusals=(
            NO_RUN,
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
        {200: in_json("The latest checkpoint.", Checkpoint, examples.CHECKPOINT)},
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
        {200: in_json("Checkpoints, in order.", CheckpointPage, examples.CHECKPOINT_PAGE)},
        (
            query("after", "next_after of the page before.", {"type": "integer", "minimum": 0, "default": 0}),
            query("limit", "Checkpoints a page.", LIMIT | {"maximum": 1_000, "default": 1_000}),
        ),
        refusals=({400: ("query.invalid",), 503: ("anchors.unavailable",)},),
    ),
    "list_breakers": Doc(
        "The circuits of the capabilities that the caller's tenant may use: which are open, and until when.",
        {200: in_json("The circuits, by capability.", BreakerList, examples.BREAKERS)},
        refusals=(NO_TENANT,),
    ),
    "get_quota": Doc(
        "How many runs of the caller's tenant are under way or wait for a place, and its limits.",
        {200: in_json("The quota.", QuotaView, examples.QUOTA)},
        refusals=(NO_TENANT, {503: ("engine.unavailable",)}),
    ),
    "openapi": Doc("This description.", {200: Answer("OpenAPI 3.1.", {JSON: (OBJECT, {"openapi": "3.1.0"})})}),
}
