"""``GET /api/openapi.json``: the description of this API, made once per process from the endpoints themselves."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from engine.ports.deps import DepsProvider
from triggers.endpoint import AnyEndpoint, PublicEndpoint, build_blueprint
from triggers.http_adapter import HttpRequest, HttpResponse, json_response

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


def get_openapi(request: HttpRequest) -> HttpResponse:
    """The description."""
    return _document()


@cache
def _document() -> HttpResponse:
    from triggers.api_document import build_document

    return json_response(build_document(all_endpoints()))


ENDPOINTS: tuple[AnyEndpoint, ...] = (PublicEndpoint("openapi", "openapi.json", get_openapi),)


def all_endpoints() -> tuple[AnyEndpoint, ...]:
    """Every HTTP function of the app."""
    from triggers import (
        http_admin,
        http_approvals,
        http_audit,
        http_audit_content,
        http_checkpoints,
        http_control,
        http_events,
        http_grants,
        http_health,
        http_limits,
        http_links,
        http_plans,
        http_rerun,
        http_retention,
        http_runs,
    )

    return (
        *http_runs.ENDPOINTS,
        *http_control.ENDPOINTS,
        *http_rerun.ENDPOINTS,
        *http_retention.ENDPOINTS,
        *http_links.ENDPOINTS,
        *http_audit.ENDPOINTS,
        *http_audit_content.ENDPOINTS,
        *http_checkpoints.ENDPOINTS,
        *http_approvals.ENDPOINTS,
        *http_events.ENDPOINTS,
        *http_plans.ENDPOINTS,
        *http_grants.ENDPOINTS,
        *http_health.ENDPOINTS,
        *http_admin.ENDPOINTS,
        *http_limits.ENDPOINTS,
        *ENDPOINTS,
    )


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of this endpoint."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
