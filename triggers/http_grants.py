"""``GET /api/grants/keys``: the public keys with which agents check execution grants, as a JWKS document. For anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ports.deps import Deps, DepsProvider
from triggers.endpoint import OpenEndpoint, build_blueprint
from triggers.http_adapter import HttpRequest, HttpResponse, json_response

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


async def grant_keys(request: HttpRequest, deps: Deps) -> HttpResponse:
    """The keys. 503 when the signer does not answer: agents go on with those they have."""
    return json_response(await deps.grants.jwks())


ENDPOINTS = (OpenEndpoint("grant_keys", "grants/keys", grant_keys),)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of this endpoint."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
