"""A small world to run activities in: memory stores, a scripted invoker, two tenants and four capabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.plan_run import plan_run
from engine.adapters.memory import (
    FixedClock,
    MemoryApprovalStore,
    MemoryAssignments,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryCatalog,
    MemoryEventLog,
    MemoryModelResults,
    MemoryPayloadStore,
    MemoryResultCache,
    MemoryRunStore,
    MemoryTenantDirectory,
)
from engine.domain.bus import StepCommand
from engine.domain.capability import Capability, CostModel
from engine.domain.errors import LivoaError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.principal import Principal
from engine.domain.run import Run, RunRequest
from engine.domain.status import RunStatus
from engine.domain.tenant import Bounds, TenantConfig
from engine.ports.deps import AppSettings, Deps
from engine.ports.invoker import ProgressSink
from engine.step_runner import StepTask, finish_run, perform_step
from planner_graph.degraded import DegradedComposer, DegradedPlanner
from policy.builtin import BuiltinPolicyEngine

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
NUMBER = {"type": "object", "additionalProperties": False, "required": ["n"], "properties": {"n": {"type": "integer"}}}


def capability(name: str, **fields: Any) -> Capability:
    """A manifest around an integer in and an integer out."""
    base: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "title": name,
        "description": name,
        "delivery": "http",
        "endpoint": "calc",
        "input_schema": NUMBER,
        "parameters": {"n": "payload"},
        "output_schema": NUMBER,
        "side_effect": "read",
        "idempotent": True,
        "cost": CostModel(per_call_micro_usd=100),
    }
    return Capability.model_validate(base | fields)


LIST = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "items": {"type": "integer"}}},
}
CAPABILITIES = (
    capability("calc.double"),
    capability("calc.range", output_schema=LIST),
    capability("mail.send", side_effect="external", idempotent=False),
    capability("calc.secret"),
    capability("calc.frail", fallback="calc.double"),
    capability("calc.steady", deterministic=True, cache_s=3600),
    capability("calc.frail_secret", fallback="calc.secret"),
    capability("calc.fit", delivery="service_bus", timeout_s=600, lease_s=60, deterministic=True),
    capability("calc.fit_fast", delivery="service_bus", timeout_s=60, lease_s=30),
)

Behaviour = Callable[[ExecuteRequest], ExecuteResponse]


def doubled(request: ExecuteRequest) -> ExecuteResponse:
    """Twice the number."""
    return ExecuteSucceeded(output={"n": 2 * request.inputs["n"]})


def counted(request: ExecuteRequest) -> ExecuteResponse:
    """The numbers below it."""
    return ExecuteSucceeded(output={"items": list(range(request.inputs["n"]))})


def failing(code: str = "agent.unreachable", *, retryable: bool = True) -> Behaviour:
    """Always this error."""
    return lambda request: ExecuteFailed(error=ExecuteError(code=code, message="no", retryable=retryable))


class ScriptedInvoker:
    """Answers by capability, records every call, and counts effects by idempotency key as a correct agent would."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {
            "calc.double": doubled,
            "calc.range": counted,
            "mail.send": doubled,
            "calc.secret": doubled,
            "calc.frail": doubled,
            "calc.steady": doubled,
            "calc.frail_secret": doubled,
            "calc.fit": doubled,
            "calc.fit_fast": doubled,
        }
        self.calls: list[ExecuteRequest] = []
        self.effects: dict[str, ExecuteResponse] = {}

    async def invoke(
        self,
        capability: Capability,
        request: ExecuteRequest,
        *,
        traceparent: str | None = None,
        progress: ProgressSink | None = None,
    ) -> ExecuteResponse:
        """See the port."""
        await asyncio.sleep(0)
        self.calls.append(request)
        if request.idempotency_key in self.effects:
            return self.effects[request.idempotency_key]
        response = self.behaviours[capability.name](request)
        if isinstance(response, ExecuteSucceeded):
            self.effects[request.idempotency_key] = response
        return response


class RecordedQueue:
    """A step queue that keeps what is sent, or is down."""

    is_configured = True

    def __init__(self) -> None:
        self.sent: list[StepCommand] = []
        self.ids: list[str] = []
        self.error: str | None = None

    async def send(self, command: StepCommand, *, session_id: str, message_id: str) -> None:
        """See the port."""
        if self.error is not None:
            raise LivoaError(self.error, "no", status=503)
        assert session_id.startswith(f"{command.tenant_id}--")
        assert message_id.startswith(f"{command.key}#{command.token}")
        self.ids.append(message_id)
        self.sent.append(command)


class _QuietSpan:
    traceparent = None

    def set(self, name: str, value: object) -> None: ...

    def fail(self, error_type: str) -> None: ...


class QuietTelemetry:
    """Records nothing."""

    @contextmanager
    def span(self, name: str, **_: Any) -> Iterator[_QuietSpan]:
        """A span nobody sees."""
        yield _QuietSpan()

    def count(self, name: str, value: int = 1, attributes: Mapping[str, Any] | None = None) -> None: ...

    def record(self, name: str, value: float, attributes: Mapping[str, Any] | None = None) -> None: ...


class World:
    """Everything an activity needs, and short ways to set a run up and look at it afterwards."""

    def __init__(self, **bounds: Any) -> None:
        self.clock = FixedClock(START)
        self.runs = MemoryRunStore(self.clock)
        self.invoker = ScriptedInvoker()
        self.queue = RecordedQueue()
        enabled = tuple(c.name for c in CAPABILITIES if c.name != "calc.secret")
        self.tenant = TenantConfig(
            tenant_id="contoso", display_name="Contoso", enabled_capabilities=enabled, bounds=Bounds(**bounds)
        )
        other = TenantConfig(tenant_id="fabrikam", display_name="Fabrikam")
        catalog = MemoryCatalog(CAPABILITIES)
        self.deps = Deps(
            settings=AppSettings(environment="local"),
            clock=self.clock,
            tokens=None,  # type: ignore[arg-type]  # no activity validates tokens
            tenants=MemoryTenantDirectory([self.tenant, other]),
            catalog=catalog,
            runs=self.runs,
            events=MemoryEventLog(self.runs),
            payloads=MemoryPayloadStore(),
            audit=MemoryAuditLog(),
            policy=BuiltinPolicyEngine(),
            budgets=MemoryBudgetLedger(self.clock),
            model_results=MemoryModelResults(),
            result_cache=MemoryResultCache(),
            invoker=self.invoker,
            planner=DegradedPlanner(catalog, self.clock),
            composer=DegradedComposer(),
            telemetry=QuietTelemetry(),
            approvals=MemoryApprovalStore(self.runs, self.clock),
            assignments=MemoryAssignments(),
            step_queue=self.queue,
        )

    async def submit(self, plan: dict[str, Any] | None, *, run_id: str = "run-1", **request: Any) -> dict[str, Any]:
        """Create a run with its own plan and plan it; returns what ``plan_run`` answered."""
        body = RunRequest(intent="test", plan=plan, **request)
        ref = await self.deps.payloads.put("contoso", run_id, body.model_dump_json().encode())
        run = Run(
            tenant_id="contoso",
            run_id=run_id,
            status=RunStatus.ACCEPTED,
            title="test",
            request_ref=ref,
            principal=Principal(tenant_id="contoso", subject="tid:ana", kind="user", client_app="cli"),
            created_at=self.clock.now(),
            updated_at=self.clock.now(),
            deadline_at=self.clock.now() + timedelta(hours=1),
        )
        await self.runs.create(run, [new_event(EventType.RUN_ACCEPTED, RunEventData())], None)
        return await plan_run({"tenant_id": "contoso", "run_id": run_id}, self.deps)

    async def perform(self, step_id: str, attempt: int = 1, item: int | None = None) -> Any:
        """One attempt of one step."""
        task = StepTask(tenant_id="contoso", run_id="run-1", step_id=step_id, attempt=attempt, item=item)
        return await perform_step(task, self.deps)

    async def finish(self, status: RunStatus, **report: Any) -> Run:
        """Finish the run and return it."""
        await finish_run({"tenant_id": "contoso", "run_id": "run-1", "status": status.value, **report}, self.deps)
        run = await self.runs.get("contoso", "run-1")
        assert run is not None
        return run

    async def events(self) -> list[str]:
        """The types in the run's log, in order."""
        return [event.type.value for event in await self.deps.events.read("contoso", "run-1", after_seq=0, limit=1000)]

    async def audit(self) -> list[str]:
        """The types in the tenant's chain, in order."""
        return [record.type.value for record in await self.deps.audit.read("contoso", after_seq=0, limit=1000)]

    async def output(self, step_id: str, item: int | None = None) -> Any:
        """The stored output of a step."""
        import json

        record = await self.runs.get_step("contoso", "run-1", step_id, item)
        assert record is not None
        assert record.output_ref is not None
        return json.loads(await self.deps.payloads.get("contoso", "run-1", record.output_ref))


def plan_of(*steps: dict[str, Any], uses: list[str] | None = None) -> dict[str, Any]:
    """A plan document around these steps."""
    return {"goal": "test", "steps": list(steps), "answer": {"uses": uses or [steps[-1]["id"]]}}


def step(step_id: str, capability_name: str = "calc.double", n: Any = 1, **fields: Any) -> dict[str, Any]:
    """A call of a capability with one integer."""
    return {"id": step_id, "capability": capability_name, "inputs": {"n": n}} | fields
