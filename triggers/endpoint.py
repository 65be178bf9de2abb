"""The one wrapper around every HTTP handler: who calls, may they, a span, a log line, and how errors look.

Identity is the bearer token's alone. ``X-MS-CLIENT-PRINCIPAL*`` and the like are never read: without the platform's own
authentication in front, anybody can send them. Tokens in the query are not looked for.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.domain import telemetry_names
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Principal, Role
from engine.ports.deps import Deps, DepsProvider
from engine.ports.identity import Rejection, Speaker, TokenRefusedError
from engine.ports.telemetry import Span
from triggers.http_adapter import DurableClient, HttpRequest, HttpResponse, Serve, register
from triggers.problems import problem, unexpected

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

_LOG = logging.getLogger("livoa.http")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CLAIMED_IDENTITY = ("x-ms-client-principal", "x-ms-token-", "x-tenant-")
_SECURITY_HEADERS = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request on its way to a handler. ``traceparent`` is our own span's."""

    request: HttpRequest
    deps: Deps
    principal: Principal
    client: DurableClient | None = None
    traceparent: str | None = None

    @property
    def durable(self) -> DurableClient:
        """The durable client of an endpoint that asked for one."""
        assert self.client is not None, "the endpoint is registered with needs_client"
        return self.client


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP function for principals. Any one of ``roles`` suffices; none means that a valid token is enough."""

    name: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Callable[[Call], Awaitable[HttpResponse]]
    roles: frozenset[Role]
    needs_client: bool = False


@dataclass(frozen=True, slots=True)
class PublicEndpoint:
    """An HTTP function for anybody. It sees no dependencies, so it can give nothing away and works when they do not."""

    name: str
    path: str
    handler: Callable[[HttpRequest], HttpResponse]
    method: Literal["GET"] = "GET"


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """An HTTP function for anybody that needs the dependencies. For what is public by nature, such as public keys."""

    name: str
    path: str
    handler: Callable[[HttpRequest, Deps], Awaitable[HttpResponse]]
    method: Literal["GET"] = "GET"


AnyEndpoint = Endpoint | PublicEndpoint | OpenEndpoint


def build_blueprint(endpoints: Sequence[AnyEndpoint], deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """A blueprint of these endpoints."""
    from azure.durable_functions import Blueprint

    blueprint = Blueprint()
    for endpoint in endpoints:
        register(
            blueprint,
            name=endpoint.name,
            method=endpoint.method,
            path=endpoint.path,
            serve=serve_function(endpoint, deps),
            needs_client=isinstance(endpoint, Endpoint) and endpoint.needs_client,
            streaming=streaming,
        )
    return blueprint


def serve_function(endpoint: AnyEndpoint, deps: DepsProvider) -> Serve:
    """The endpoint as a function of request and client that always answers."""

    async def serve(request: HttpRequest, client: DurableClient | None) -> HttpResponse:
        started = time.monotonic()
        code: str | None = None
        try:
            response = await _answer(endpoint, request, deps, client)
        except LivoaError as err:
            code = err.code
            response = problem(err, instance=request.path)
        except Exception:
            incident = secrets.token_hex(8)
            code = "internal.unexpected"
            _LOG.exception("unexpected error", extra={"incident": incident, "route": endpoint.path} | _run_of(request))
            response = problem(unexpected(incident), instance=request.path, incident=incident)
        _log(endpoint, request, response.status, code, started)
        return response.with_headers(_SECURITY_HEADERS)

    return serve


async def _answer(
    endpoint: AnyEndpoint, request: HttpRequest, provider: DepsProvider, client: DurableClient | None
) -> HttpResponse:
    if isinstance(endpoint, PublicEndpoint):
        return endpoint.handler(request)
    if isinstance(endpoint, OpenEndpoint):
        return await endpoint.handler(request, provider())
    deps = provider()
    with deps.telemetry.span(
        f"{endpoint.method} {endpoint.path}", kind="server", attributes=_facts(endpoint, request)
    ) as span:
        try:
            principal = await _admitted(endpoint, request, deps)
            span.set(telemetry_names.TENANT, tenant_pseudonym(principal.tenant_id))
            response = await endpoint.handler(Call(request, deps, principal, client, span.traceparent))
        except LivoaError as err:
            _finish(span, err.status, err.code)
            raise
        _finish(span, response.status, None)
        return response


async def _admitted(endpoint: Endpoint, request: HttpRequest, deps: Deps) -> Principal:
    """The caller, when the endpoint is theirs to call. Whoever is turned away is recorded before the refusal goes on."""
    principal: Principal | None = None
    try:
        principal = await deps.tokens.validate(bearer_token(request))
        require_role(principal, endpoint.roles)
    except LivoaError as err:
        if err.status < 500:
            rejection = Rejection(err.code, f"{endpoint.method} {endpoint.path}", _speaker(err, principal))
            await deps.rejections.record(rejection)
        raise
    return principal


def _speaker(error: LivoaError, principal: Principal | None) -> Speaker | None:
    if principal is not None:
        return Speaker(principal.tenant_id, principal.subject, principal.client_app)
    return error.speaker if isinstance(error, TokenRefusedError) else None


def bearer_token(request: HttpRequest) -> str:
    """The token of the one Authorization header.

    Raises ``LivoaError``: 401 ``auth.missing`` or ``auth.scheme``, 400 ``auth.header_repeated``. No token holds a comma, so
    one in the value means that a proxy has joined two headers.
    """
    value = request.header("authorization")
    if value is None or not value.strip():
        raise LivoaError("auth.missing", "This needs an Authorization header with a bearer token.", status=401)
    if "," in value:
        raise LivoaError("auth.header_repeated", "There must be exactly one Authorization header.", status=400)
    scheme, _, token = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise LivoaError("auth.scheme", "The Authorization header must read: Bearer, a space, the token.", status=401)
    return token.strip()


def require_role(principal: Principal, roles: frozenset[Role]) -> None:
    """Raises ``LivoaError("auth.role_missing", status=403)`` unless the principal has one of the roles."""
    if roles and not roles & principal.roles:
        wanted = " or ".join(sorted(role.value for role in roles))
        raise LivoaError("auth.role_missing", f"This needs the role {wanted}.", status=403)


def tenant_pseudonym(tenant_id: str) -> str:
    """How a tenant appears in telemetry: recognisable over time, not by name."""
    return hashlib.sha256(f"livoa-tenant/{tenant_id}".encode()).hexdigest()[:16]


def _facts(endpoint: Endpoint, request: HttpRequest) -> dict[str, str]:
    facts = {"http.request.method": endpoint.method, "http.route": endpoint.path}
    if run_id := _run_of(request).get("run_id"):
        facts[telemetry_names.RUN_ID] = run_id
    # A caller's trace is noted, never joined: its ids are not ours to trust, and its baggage is dropped.
    inbound = request.header("traceparent")
    if inbound is not None and _TRACEPARENT.fullmatch(inbound):
        facts["app.inbound.traceparent"] = inbound
    return facts


def _finish(span: Span, status: int, code: str | None) -> None:
    span.set("http.response.status_code", status)
    if code is not None and status >= 500:
        span.fail(code)


def _run_of(request: HttpRequest) -> dict[str, str]:
    run_id = request.route.get("run_id", "")
    return {"run_id": run_id} if is_wire_id(run_id) else {}


def _log(endpoint: AnyEndpoint, request: HttpRequest, status: int, code: str | None, started: float) -> None:
    facts = {
        "method": endpoint.method,
        "route": endpoint.path,
        "status": status,
        "code": code,
        "duration_ms": round((time.monotonic() - started) * 1000),
    } | _run_of(request)
    _LOG.info("request", extra=facts)
    if any(name.startswith(_CLAIMED_IDENTITY) for name, _ in request.headers):
        _LOG.warning("identity claimed by header, ignored", extra={"route": endpoint.path, "status": status})
