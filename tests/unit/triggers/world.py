"""A whole API in memory: real handlers, real token validation, stores that honour the contracts, a durable engine that counts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from engine.adapters.memory import (
    MemoryApprovalStore,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryCatalog,
    MemoryEndedRuns,
    MemoryEventLog,
    MemoryPayloadStore,
    MemoryRunKeys,
    MemoryRunStore,
    MemoryTenantDirectory,
    MemoryTenantVersions,
)
from engine.adapters.tenant_configs import VersionedTenants
from engine.domain.audit import AuditType
from engine.domain.capability import Capability
from engine.domain.principal import Role
from engine.domain.tenant import Bounds, TenantConfig
from engine.identity import AuditedRejections, DevelopmentIssuer, JwtTokenValidator, WithDevelopmentIssuer
from engine.ports.deps import AppSettings, Deps
from policy.builtin import BuiltinPolicyEngine
from tests.unit.identity.tokens import AUDIENCE, FixedClock, rsa_key
from triggers.endpoint import AnyEndpoint, serve_function
from triggers.http_adapter import HttpRequest, HttpResponse
from triggers.openapi import all_endpoints

ORIGIN = "http://livoa.test"
BOTH = (Role.RUNS_SUBMIT, Role.RUNS_READ)

ECHO = Capability(
    name="test.echo",
    version="1.0.0",
    title="Echo",
    description="Gives back what it is given.",
    delivery="tool",
    endpoint="echo",
    input_schema={
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    },
    output_schema={"type": "object", "properties": {"text": {"type": "string"}}},
    side_effect="none",
)
PLAN: dict[str, Any] = {
    "schema_version": "1.0",
    "goal": "Say it twice",
    "steps": [
        {"id": "first", "capability": "test.echo", "inputs": {"text": "hello"}},
        {"id": "second", "capability": "test.echo", "inputs": {"text": {"$ref": "steps.first#/text"}}},
    ],
    "answer": {"uses": ["second"]},
}
INTENT: dict[str, Any] = {"intent": "Say hello twice, please"}


class FakeEngine:
    """The durable client: instances by id, events in order. ``down`` makes every call fail, ``full`` new starts."""

    def __init__(self) -> None:
        self.instances: dict[str, Any] = {}
        self.events: list[tuple[str, str]] = []
        self.terminated: list[str] = []
        self.purged: list[str] = []
        self.starts = 0
        self.down = self.full = False

    async def start_new(
        self, orchestration_function_name: str, instance_id: str | None = None, client_input: Any | None = None
    ) -> str:
        self._check()
        assert instance_id is not None
        if instance_id in self.instances:
            raise RuntimeError(f"an instance {instance_id} is running already")
        if self.full:
            raise RuntimeError("The host has too much open work")
        self.starts += 1
        self.instances[instance_id] = (orchestration_function_name, client_input)
        return instance_id

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        self._check()
        if instance_id not in self.instances:
            raise RuntimeError("no such instance")
        self.events.append((instance_id, event_name))

    async def get_status(self, instance_id: str) -> Any:
        self._check()
        return SimpleNamespace(instance_id=instance_id if instance_id in self.instances else None)

    async def terminate(self, instance_id: str, reason: str) -> None:
        self._check()
        self.terminated.append(instance_id)

    async def get_status_by(self, *, instance_id_prefix: str) -> Any:
        self._check()
        names = [name for name in self.instances if name.startswith(instance_id_prefix)]
        return [SimpleNamespace(instance_id=name) for name in names[:2]]  # a page, as the engine answers

    async def purge_instance_history(self, instance_id: str) -> Any:
        self._check()
        self.purged.append(instance_id)
        self.instances.pop(instance_id, None)

    def _check(self) -> None:
        if self.down:
            raise OSError("the durable engine is down")


@dataclass
class RecordedSpan:
    name: str
    kind: str
    parent: str | None
    attributes: dict[str, Any]
    failed: str | None = None
    traceparent: str | None = "00-11111111111111111111111111111111-2222222222222222-01"

    def set(self, name: str, value: Any) -> None:
        self.attributes[name] = value

    def fail(self, error_type: str) -> None:
        self.failed = error_type


class RecordedTelemetry:
    """Spans as they were made."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        traceparent: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Iterator[RecordedSpan]:
        span = RecordedSpan(name, kind, traceparent, dict(attributes or {}))
        self.spans.append(span)
        yield span

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Any] | None = None) -> None: ...

    def record(self, name: str, value: float, attributes: Mapping[str, Any] | None = None) -> None: ...


@dataclass(frozen=True)
class Answered:
    """A response as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem; None for anything else."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        problem = self.json
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:livoa:problem:{problem['code']}"
        return str(problem["code"])

    @property
    def pointers(self) -> list[str]:
        return [error["pointer"] for error in self.json.get("errors", [])]


def tenant(tenant_id: str, **more: Any) -> TenantConfig:
    return TenantConfig(
        tenant_id=tenant_id,
        display_name=tenant_id,
        enabled_capabilities=("test.echo",),
        bounds=Bounds(max_wall_time_s=600),
        **more,
    )


class NotUsed:
    """Stands for a port that no trigger may touch."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a trigger used {name}")


@dataclass
class World:
    """The API and everything behind it."""

    streaming: bool = False
    clock: FixedClock = field(default_factory=FixedClock)
    engine: FakeEngine = field(default_factory=FakeEngine)
    telemetry: RecordedTelemetry = field(default_factory=RecordedTelemetry)
    endpoints: tuple[AnyEndpoint, ...] = field(default_factory=all_endpoints)

    def __post_init__(self) -> None:
        self.issuer = DevelopmentIssuer(rsa_key("development"), self.clock)
        self.runs = MemoryRunStore(self.clock)
        self.payloads = MemoryPayloadStore()
        self.audit = MemoryAuditLog()
        self.keys = MemoryRunKeys(self.runs)
        approvals = MemoryApprovalStore(self.runs, self.clock)
        pages = MemoryTenantDirectory([tenant("contoso"), tenant("fabrikam"), tenant("sleepy", status="suspended")])
        self.versions = MemoryTenantVersions()
        versioned = VersionedTenants(pages, self.versions, self.clock)
        tenants = WithDevelopmentIssuer(versioned, environment="local")
        not_used: Any = NotUsed()
        self.deps = Deps(
            settings=AppSettings(
                environment="local", http_streaming=self.streaming, long_poll_s=0.02, stream_limit_s=5, heartbeat_s=0.02
            ),
            clock=self.clock,
            tokens=JwtTokenValidator(self.issuer, tenants, self.clock, audience=AUDIENCE),
            tenants=tenants,
            tenant_configs=versioned,
            catalog=MemoryCatalog([ECHO]),
            runs=self.runs,
            events=MemoryEventLog(self.runs),
            payloads=self.payloads,
            audit=self.audit,
            rejections=AuditedRejections(self.audit, self.clock),
            policy=BuiltinPolicyEngine(),
            budgets=MemoryBudgetLedger(self.clock),
            invoker=not_used,
            planner=not_used,
            composer=not_used,
            telemetry=self.telemetry,
            approvals=approvals,
            run_keys=self.keys,
            ended_runs=MemoryEndedRuns(self.runs, approvals),
        )

    def with_deps(self, **changes: Any) -> None:
        """Replace ports."""
        self.deps = replace(self.deps, **changes)

    def token(self, tenant: str = "contoso", user: str = "ana", roles: tuple[Role, ...] = BOTH, **more: Any) -> str:
        return self.issuer.mint(tenant, user, roles, audience=AUDIENCE, **more)

    async def open(
        self, method: str, target: str, *, token: str | None = "", body: Any = b"", headers: Any = ()
    ) -> HttpResponse:
        """The response as handlers give it. ``token=""`` means Ana of contoso, None sends none."""
        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        endpoint, route = self._find(method, path)
        sent = [(name.lower(), value) for name, value in (headers.items() if isinstance(headers, dict) else headers)]
        if token is not None:
            sent.append(("authorization", f"Bearer {token or self.token()}"))
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        if method in ("POST", "PUT") and not any(name == "content-type" for name, _ in sent):
            sent.append(("content-type", "application/json"))
        request = HttpRequest(method, ORIGIN + target, tuple(sent), query, route, body)
        return await serve_function(endpoint, lambda: self.deps)(request, self.engine)

    async def send(self, method: str, target: str, **more: Any) -> Answered:
        """The response as a client sees it, read to its end."""
        response = await self.open(method, target, **more)
        body = response.body if isinstance(response.body, bytes) else b"".join([part async for part in response.body])
        return Answered(response.status, dict(response.headers), body)

    async def get(self, target: str, **more: Any) -> Answered:
        return await self.send("GET", target, **more)

    async def post(self, target: str, body: Any = b"", **more: Any) -> Answered:
        return await self.send("POST", target, body=body, **more)

    async def submitted(self, body: Any = None, **more: Any) -> str:
        """Submit a run and return its id."""
        answer = await self.post("/api/runs", body or INTENT, **more)
        assert answer.status == 202, answer.body
        return str(answer.json["run_id"])

    async def is_untouched(self) -> bool:
        """True when nothing is in any store and nothing was started. That somebody was turned away may be on record."""
        runs = await self.runs.unfinished(10)
        audit = [
            record
            for name in ("contoso", "fabrikam", "sleepy")
            for record in await self.audit.read(name, after_seq=0, limit=10)
            if record.type is not AuditType.AUTH_REJECTED
        ]
        return not runs and not audit and not self.payloads._objects and not self.engine.instances

    def _find(self, method: str, path: str) -> tuple[AnyEndpoint, dict[str, str]]:
        parts = path.removeprefix("/api/").split("/")
        for endpoint in self.endpoints:
            names = endpoint.path.split("/")
            if endpoint.method == method and len(names) == len(parts):
                pairs = list(zip(names, parts, strict=True))
                if all(name.startswith("{") or name == part for name, part in pairs):
                    return endpoint, {name.strip("{}"): part for name, part in pairs if name.startswith("{")}
        raise AssertionError(f"no endpoint for {method} {path}")


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """A body as it arrives where requests stream."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
