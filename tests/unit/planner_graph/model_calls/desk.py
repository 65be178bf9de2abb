"""A gateway with everything around it in memory, and short ways to ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from engine.adapters.memory import (
    FixedClock,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryModelResults,
    MemoryPayloadStore,
)
from engine.domain.audit import AuditRecord
from engine.domain.tenant import TenantConfig
from engine.ports.budget import BudgetState
from engine.ports.models import Message
from planner_graph.model_calls import Asked, CallSite, ModelGateway, PromptFile
from tests.support.scripted_models import ScriptedModels

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["n"],
    "properties": {"n": {"type": "integer"}},
}
SECRET = "canary-4711"


class RecordingTelemetry:
    """Keeps spans and measurements."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, Any]]] = []
        self.measured: list[tuple[str, float, dict[str, Any]]] = []

    @contextmanager
    def span(self, name: str, *, attributes: Mapping[str, Any] | None = None, **fields: Any) -> Iterator[Any]:
        kept = dict(attributes or {}) | fields
        self.spans.append((name, kept))

        class Span:
            traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

            def set(self, name: str, value: Any) -> None:
                kept[name] = value

            def fail(self, error_type: str) -> None:
                kept["error.type"] = error_type

        yield Span()

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Any] | None = None) -> None:
        self.measured.append((name, value, dict(attributes or {})))

    def record(self, name: str, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        self.measured.append((name, value, dict(attributes or {})))


class Desk:
    """Stores that outlive a process, and the process that asks."""

    def __init__(self, models: ScriptedModels | None = None, *, limit_micro_usd: int = 1_000_000) -> None:
        self.clock = FixedClock()
        self.models = models or ScriptedModels()
        self.results = MemoryModelResults()
        self.budgets = MemoryBudgetLedger(self.clock)
        self.audit: Any = MemoryAuditLog()
        self.payloads = MemoryPayloadStore()
        self.telemetry = RecordingTelemetry()
        self.limit_micro_usd = limit_micro_usd
        self.slept: list[float] = []
        self.deltas: list[str] = []
        self.restarts: list[str] = []
        self.deadline_s = 240.0
        self.start()

    def start(self) -> None:
        """A new process over the same stores."""
        self.gateway = ModelGateway(
            self.models,
            self.results,
            self.budgets,
            self.audit,
            self.payloads,
            self.clock,
            self.telemetry,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    def site(self, **fields: Any) -> CallSite:
        values: dict[str, Any] = {
            "tenant": TenantConfig(tenant_id="contoso", display_name="Contoso"),
            "run_id": "run-1",
            "actor": "tid:ana",
            "plan_version": 1,
            "node": "plan",
            "deadline_at": self.clock.now() + timedelta(seconds=self.deadline_s),
        }
        return CallSite(**(values | fields))

    async def open(self) -> None:
        await self.budgets.open("contoso", "run-1", limit_micro_usd=self.limit_micro_usd)

    async def ask(self, text: str = SECRET, *, schema: Any = SCHEMA, **fields: Any) -> Asked:
        await self.open()
        return await self.gateway.ask(
            self.site(**fields),
            "planner",
            [Message("user", text)],
            schema,
            "output",
            500,
            prompt_file=PromptFile("plan.v1.md", "f" * 64),
        )

    async def stream(self, text: str = SECRET, *, max_output_tokens: int = 500, **fields: Any) -> Asked:
        await self.open()

        async def on_delta(piece: str) -> None:
            self.deltas.append(piece)

        async def on_restart(reason: str) -> None:
            self.restarts.append(reason)
            self.deltas.clear()

        return await self.gateway.stream(
            self.site(**fields),
            "synthesiser",
            [Message("user", text)],
            max_output_tokens,
            on_delta=on_delta,
            on_restart=on_restart,
        )

    async def records(self) -> list[AuditRecord]:
        return list(await self.audit.read("contoso", after_seq=0, limit=1_000))

    async def trail(self) -> list[str]:
        return [record.type.value for record in await self.records()]

    async def money(self) -> BudgetState:
        state = await self.budgets.state("contoso", "run-1")
        assert state is not None
        return state
