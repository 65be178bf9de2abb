"""An agent of probes behind real sockets, the caller's side, and raw servers that misbehave on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from agent_kit import (
    Agent,
    AgentAuth,
    AgentLimits,
    CapabilityError,
    GrantCheck,
    IdempotencyStore,
    JwksFile,
    StepContext,
    create_app,
)
from agent_kit.serve import listen
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.http_agents import HttpAgentInvoker
from engine.domain.base import Frozen
from engine.domain.capability import Capability
from engine.domain.execute import ExecuteRequest, ExecuteResponse
from engine.domain.grants import GRANT_KEYS_FILE
from engine.identity import SignedGrants
from engine.identity.development import JWKS_FILE, DevelopmentIssuer

OUTPUT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["count"],
    "properties": {"count": {"type": "integer", "minimum": 1}},
}
INPUT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["note"],
    "properties": {"note": {"type": "string", "maxLength": 400_000}},
}


def manifest(name: str, timeout_s: float = 20.0, *, idempotent: bool = False) -> Capability:
    return Capability(
        name=name,
        version="1.0.0",
        title=name,
        description=name,
        delivery="http",
        endpoint="probes",
        input_schema=INPUT,
        parameters={"note": "payload"},
        output_schema=OUTPUT,
        timeout_s=timeout_s,
        idempotent=idempotent,
    )


NAMES = ("probe.count", "probe.hold", "probe.stream", "probe.refuse", "probe.crash", "probe.compute", "probe.output")
BRIEF_S = 0.2
MANIFESTS = {name: manifest(name) for name in NAMES} | {
    "probe.brief": manifest("probe.brief", BRIEF_S),
    # Safe to repeat, each like the one without its last word.
    "probe.hold_again": manifest("probe.hold_again", idempotent=True),
    "probe.brief_again": manifest("probe.brief_again", BRIEF_S, idempotent=True),
    "probe.crash_again": manifest("probe.crash_again", idempotent=True),
    "probe.output_again": manifest("probe.output_again", idempotent=True),
}


class Note(Frozen):
    note: str


@dataclass
class Probes:
    """What the probes did, and how they should behave. ``effects`` counts executions that had their effect."""

    effects: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    had_effect: asyncio.Event = field(default_factory=asyncio.Event)
    fail_times: int = 0
    says: str = "probe.not_today"
    output: Any = None
    block: Callable[[], None] = lambda: None
    seen: StepContext | None = None

    @property
    def context(self) -> StepContext:
        """The context of the probe that began last."""
        assert self.seen is not None
        return self.seen

    def effect(self, context: StepContext) -> dict[str, Any]:
        self.effects += 1
        self.had_effect.set()
        return {"count": self.effects}

    def agent(self) -> Agent:
        agent = Agent(MANIFESTS)

        @agent.capability("probe.count")
        async def count(inputs: Note, context: StepContext) -> dict[str, Any]:
            return self.effect(context)

        async def hold(inputs: Note, context: StepContext) -> dict[str, Any]:
            self.seen = context
            self.started.set()
            await self.go_on.wait()
            return self.effect(context)

        for name in ("probe.hold", "probe.brief", "probe.hold_again", "probe.brief_again"):
            agent.capability(name)(hold)
        agent.capability("probe.stream", streams=True)(hold)

        @agent.capability("probe.refuse")
        async def refuse(inputs: Note, context: StepContext) -> dict[str, Any]:
            raise CapabilityError(self.says, "come back", retryable=True, retry_after_s=7)

        @agent.capability("probe.crash_again")
        @agent.capability("probe.crash")
        async def crash(inputs: Note, context: StepContext) -> dict[str, Any]:
            if self.fail_times > 0:
                self.fail_times -= 1
                raise RuntimeError(f"secret of {inputs.note}")
            return self.effect(context)

        @agent.capability("probe.compute")
        async def compute(inputs: Note, context: StepContext) -> dict[str, Any]:
            self.seen = context
            self.started.set()
            await context.compute(self.block)
            return self.effect(context)

        @agent.capability("probe.output_again")
        @agent.capability("probe.output")
        async def output(inputs: Note, context: StepContext) -> Any:
            self.effects += 1
            self.had_effect.set()
            return self.output

        return agent


@dataclass
class Clock:
    """A clock that tests move."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.at


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def grants_in(folder: Path) -> SignedGrants:
    """Grants as a development stack mints them, with the keys of a folder."""
    signer = FileSigner(folder / "grants" / "signing-key.pem", create=True)
    return SignedGrants(signer, WallClock(), publish_to=folder / GRANT_KEYS_FILE)


class SpareGrants:
    """Grants for agents that look at none."""

    async def mint(self, request: ExecuteRequest) -> str:
        return f"grant-of-{request.run_id}"

    async def jwks(self) -> dict[str, Any]:
        return {"keys": []}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The app behind a real socket on a free port."""
    listener = listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    # Beside the public door on purpose: serve() would take over the test runner's signal handlers.
    task = asyncio.create_task(server._serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
        await asyncio.sleep(0.005)
    try:
        yield "http://{}:{}".format(*listener.getsockname()[:2])
    finally:
        server.should_exit = True
        await task


@dataclass
class Stand:
    """Everything a test needs: the agent's address, its probes and store, and the caller."""

    url: str
    probes: Probes
    store: IdempotencyStore
    issuer: DevelopmentIssuer
    invoker: HttpAgentInvoker
    grants: SignedGrants

    async def call(self, capability: str, note: str = "a", key: str = "r/s", **more: Any) -> ExecuteResponse:
        return await self.invoker.invoke(MANIFESTS[capability], request(capability, note, key, **more))


def request(capability: str, note: str = "a", key: str = "r/s", **more: Any) -> ExecuteRequest:
    fields: dict[str, Any] = {
        "tenant_id": "contoso",
        "run_id": "r",
        "step_id": "s",
        "attempt": 1,
        "capability": capability,
        "inputs": {"note": note},
        "idempotency_key": key,
        "deadline_at": datetime.now(UTC) + timedelta(seconds=20),
    }
    return ExecuteRequest.model_validate(fields | more)


def probe_app(
    probes: Probes, keys: Path, store: IdempotencyStore | None = None, limits: AgentLimits | None = None
) -> FastAPI:
    """The agent of probes; ``keys`` are those of tokens, the keys of grants lie beside them."""
    return create_app(
        probes.agent(),
        auth=AgentAuth(JwksFile(keys)),
        grants=GrantCheck(JwksFile(keys.parent / GRANT_KEYS_FILE)),
        store=store or IdempotencyStore(None),
        limits=limits or AgentLimits(drain_s=2),
    )


@asynccontextmanager
async def stand(
    issuer: DevelopmentIssuer,
    keys: Path,
    *,
    probes: Probes | None = None,
    store: IdempotencyStore | None = None,
    limits: AgentLimits | None = None,
) -> AsyncIterator[Stand]:
    """An agent of probes, served, and an invoker that calls it with good tokens."""
    probes = probes or Probes()
    store = store or IdempotencyStore(None)
    app = probe_app(probes, keys, store, limits)
    grants = grants_in(keys.parent)

    async def credential() -> str:
        return issuer.mint_for_agents()

    async with served(app) as url:
        invoker = HttpAgentInvoker({"probes": url}, credential, grants)
        try:
            yield Stand(url, probes, store, issuer, invoker, grants)
        finally:
            await invoker.close()


Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(answer: Raw) -> AsyncIterator[str]:
    """A server that reads a request's head and then does as it likes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


__all__ = [
    "JWKS_FILE",
    "MANIFESTS",
    "Clock",
    "Probes",
    "SpareGrants",
    "Stand",
    "WallClock",
    "grants_in",
    "probe_app",
    "raw_server",
    "request",
    "served",
    "stand",
]
