"""HTTP functions of a tenant's own admin: look at the configuration, change it, see what was before.

An admin sees and changes the tenant of the token and no other; another's does not exist (404). What may be changed stands in
``engine.domain.tenant_changes``; onboarding and everything that widens is the operator's, in ``catalog/tenants``, without a
route.

A change is on record twice: as intended before it is written, without which it is not, and as applied after. Sending the same
change again finds it done and completes the record.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import ConflictError, LivoaError, NotFoundError
from engine.domain.principal import Role
from engine.domain.tenant import MAX_CONFIG_VERSION, TenantConfig
from engine.domain.tenant_changes import changed_fields, config_sha256, etag_of, violations_of_change
from engine.ports.deps import DepsProvider
from engine.ports.tenant_configs import CurrentTenant, TenantVersion
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.run_access import integer_query
from triggers.submission import append_audit, read_json_body, violations_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

ADMINS = frozenset({Role.TENANTS_ADMIN})
MAX_CONFIG_BYTES = 256 * 1024
MAX_PAGE = 100


class VersionView(Frozen):
    """One change, by its hash; what it said is the configuration's business."""

    version: int
    sha256: str
    changed_by: str
    changed_at: UtcDatetime


class VersionList(Frozen):
    """Changes, newest first. ``operator_version`` is that of the operator's page; ``next_below`` leads to older ones."""

    versions: tuple[VersionView, ...]
    operator_version: int
    next_below: int | None


async def get_tenant(call: Call) -> HttpResponse:
    """``GET /api/tenants/{tenant}``: the configuration that holds, with its ETag."""
    return _shown((await _current(call)).config)


async def put_tenant(call: Call) -> HttpResponse:
    """``PUT /api/tenants/{tenant}`` with ``If-Match``: replace the configuration.

    422 ``tenant.invalid`` with every bad field, 412 ``tenant.version_mismatch`` when it has changed since it was read, 409
    ``tenant.version_conflict`` when somebody else was quicker in this very moment, 428 without ``If-Match``.
    """
    current = await _current(call)
    tag = (call.request.header("if-match") or "").strip()
    if not tag or tag == "*":
        message = "A change needs an If-Match header with the ETag of what it changes."
        raise LivoaError("tenant.if_match_required", message, status=428)
    value = await read_json_body(call.request, MAX_CONFIG_BYTES)
    wanted = _parsed(value)
    if not changed_fields(current.config, wanted):
        await _complete_record(call, current)
        return _shown(current.config)
    if tag != etag_of(current.config) or ("version" in value and wanted.version != current.config.version):
        message = "The configuration has changed since it was read; read it again."
        raise LivoaError("tenant.version_mismatch", message, status=412)
    if violations := violations_of_change(current.base, wanted):
        raise LivoaError(
            "tenant.invalid", "The configuration is not valid; see errors.", status=422, violations=violations
        )
    return _shown(await _apply(call, current, wanted))


async def list_versions(call: Call) -> HttpResponse:
    """``GET /api/tenants/{tenant}/versions?below=&limit=``: who changed the configuration when, newest first."""
    current = await _current(call)
    limit = integer_query(call, "limit", default=50, low=1, high=MAX_PAGE)
    below = None
    if "below" in call.request.query:
        below = integer_query(call, "below", default=1, low=1, high=MAX_CONFIG_VERSION)
    found = await call.deps.tenant_configs.versions(call.principal.tenant_id, below=below, limit=limit)
    shown = tuple(
        VersionView(version=v.config.version, sha256=v.sha256, changed_by=v.changed_by, changed_at=v.changed_at)
        for v in found
    )
    more = found[-1].config.version if len(found) == limit else None
    body = VersionList(versions=shown, operator_version=current.base.version, next_below=more)
    return json_response(body.model_dump(mode="json"))


async def _current(call: Call) -> CurrentTenant:
    """The tenant of the path, which must be the caller's. Raises ``NotFoundError("tenant.not_found")``."""
    if call.request.route.get("tenant") == call.principal.tenant_id:
        current = await call.deps.tenant_configs.current(call.principal.tenant_id)
        if current is not None:
            return current
    raise NotFoundError("tenant.not_found", "There is no such tenant.")


def _parsed(value: Any) -> TenantConfig:
    try:
        # From JSON text, because strictness then means JSON's types: an array is a tuple, but "63" is not a number.
        return TenantConfig.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as err:
        message = "The configuration is not valid; see errors."
        raise LivoaError("tenant.invalid", message, status=422, violations=violations_of(err)) from None


async def _apply(call: Call, current: CurrentTenant, wanted: TenantConfig) -> TenantConfig:
    """Write the change between its two records, and return what holds then."""
    tenant_id, now = call.principal.tenant_id, call.deps.clock.now()
    written = wanted.model_copy(update={"version": current.config.version + 1})
    version = TenantVersion(written, config_sha256(written), call.principal.subject, now)
    intended = _entry(call, version, "intended", now, current.config)
    await append_audit(intended, call.deps)
    try:
        await call.deps.tenant_configs.add(tenant_id, version)
    except ConflictError:
        await append_audit(_entry(call, version, "refused", now), call.deps)
        raise
    await append_audit(_entry(call, version, "applied", now), call.deps)
    return (await _current(call)).config


async def _complete_record(call: Call, current: CurrentTenant) -> None:
    """The change is there already. Should whoever made it not have come to saying so, it is said now."""
    if current.config.version > current.base.version:
        for version in await call.deps.tenant_configs.versions(call.principal.tenant_id, below=None, limit=1):
            await append_audit(_entry(call, version, "applied", call.deps.clock.now()), call.deps)


def _entry(
    call: Call, version: TenantVersion, phase: str, at: datetime, before: TenantConfig | None = None
) -> AuditEntry:
    body: dict[str, Any] = {"phase": phase, "version": version.config.version, "sha256": version.sha256}
    if before is not None:
        fields = list(changed_fields(before, version.config))
        body |= {"from_version": before.version, "from_sha256": config_sha256(before), "fields": fields}
    if phase == "intended":
        body["client_app"] = call.principal.client_app
    return AuditEntry(
        tenant_id=call.principal.tenant_id,
        # By number and content: the same change again is the same fact.
        entry_id=f"config/{version.config.version}/{version.sha256[:24]}/{phase}",
        type=AuditType.CONFIG_CHANGED,
        at=at,
        actor=version.changed_by,
        body=body,
    )


def _shown(config: TenantConfig) -> HttpResponse:
    return json_response(config.model_dump(mode="json"), headers=(("etag", etag_of(config)),))


ENDPOINTS = (
    Endpoint("get_tenant", "GET", "tenants/{tenant}", get_tenant, ADMINS),
    Endpoint("put_tenant", "PUT", "tenants/{tenant}", put_tenant, ADMINS),
    Endpoint("list_tenant_versions", "GET", "tenants/{tenant}/versions", list_versions, ADMINS),
)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
