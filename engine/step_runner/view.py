"""What one step may see: its run, its plan, and the values its references lead to. Read from stores, never from history.

Parsed payloads are kept in a small cache per process, because every step of a run reads the same plan and neighbours read
the same outputs. Content is addressed by hash, so a cached value cannot be stale. Cached values are never modified.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.run import PayloadRef, Run, RunRequest, StepRecord
from engine.domain.status import StepStatus
from engine.domain.tenant import PLATFORM_MAX_PLAN_BYTES, TenantConfig
from engine.plan import ABSENT, BindingEnvironment, Plan, Step, parse_checked_plan, referenced_steps
from engine.ports.deps import Deps
from engine.step_runner.task import StepTask

_CACHE_BYTES = 32 * 1024 * 1024
_CACHE_ENTRY_BYTES = PLATFORM_MAX_PLAN_BYTES
"""Whatever is read by every step of a run must fit: a plan that does not is parsed once for each of its steps."""
_INLINE_BYTES = 64 * 1024
"""Above this a payload is parsed in a thread: all activities of a process share the event loop."""

_Key = tuple[str, str, str, str]


class _PayloadCache:
    """Parsed payloads by content hash, least recently used first out, bounded by their serialised size.

    Who asks for what is just being read waits for that reading: the steps of a fan-out all begin with the same plan.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, tuple[int, Any]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._readings: dict[tuple[asyncio.AbstractEventLoop, _Key], asyncio.Task[Any]] = {}

    async def read(self, run: Run, ref: PayloadRef, kind: str, parse: Callable[[bytes], Any], deps: Deps) -> Any:
        """The parsed payload; ``kind`` tells apart different readings of the same bytes."""
        key = (run.tenant_id, run.run_id, ref.sha256, kind)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][1]
        reading = (asyncio.get_running_loop(), key)
        task = self._readings.get(reading)
        if task is None:
            task = asyncio.create_task(self._load(key, ref, parse, deps))
            self._readings[reading] = task
            task.add_done_callback(lambda _: self._readings.pop(reading, None))
        # Shielded: one impatient caller must not take the payload away from the others.
        return await asyncio.shield(task)

    async def _load(self, key: _Key, ref: PayloadRef, parse: Callable[[bytes], Any], deps: Deps) -> Any:
        data = await deps.payloads.get(key[0], key[1], ref)
        value = parse(data) if len(data) <= _INLINE_BYTES else await asyncio.to_thread(parse, data)
        if ref.size_bytes <= _CACHE_ENTRY_BYTES:
            self._keep(key, ref.size_bytes, value)
        return value

    def _keep(self, key: _Key, size_bytes: int, value: Any) -> None:
        with self._lock:
            if key in self._entries:  # another loop was as fast; counting it twice would shrink the cache for good
                return
            self._entries[key] = (size_bytes, value)
            self._size += size_bytes
            while self._size > _CACHE_BYTES:
                self._size -= self._entries.popitem(last=False)[1][0]


_CACHE = _PayloadCache()


@dataclass(frozen=True, slots=True)
class StepView:
    """A step in its run, with everything its references may lead to."""

    run: Run
    tenant: TenantConfig
    plan: Plan
    plan_hash: str
    step: Step
    request: RunRequest
    outputs: dict[str, Any]
    """Outputs of the referenced steps that succeeded; the others stand as ``ABSENT``."""

    def environment(self, item: Any = ABSENT) -> BindingEnvironment:
        """What the expressions of the step are evaluated in."""
        context = self.request.context
        return BindingEnvironment(
            run={
                "intent": self.request.intent,
                "goals": list(self.request.goals),
                "context": {
                    "values": context.values,
                    "documents": [document.model_dump() for document in context.documents],
                },
            },
            outputs=self.outputs,
            item=item,
        )


async def load_view(task: StepTask, run: Run, deps: Deps) -> StepView:
    """Read the step's surroundings.

    Raises ``LivoaError``: ``step.no_plan``, ``plan.tampered``, ``step.unknown`` or ``policy.tenant_unknown``, or what a store
    raises.
    """
    if run.plan_ref is None or run.plan_hash is None:
        raise LivoaError("step.no_plan", "the run has no plan", status=409)
    tenant = await deps.tenants.get(run.tenant_id)
    if tenant is None:
        raise NotFoundError("policy.tenant_unknown", "the tenant is not known any more")
    read = await _plan(run, run.plan_ref, run.plan_hash, deps)
    plan, step = read.plan, read.steps.get(task.step_id)
    if step is None and task.purpose == "compensation":
        run, plan, step = await _replaced(run, plan, task, deps)
    if step is None:
        raise NotFoundError("step.unknown", f"the plan has no step {task.step_id}")
    request: RunRequest = await _CACHE.read(run, run.request_ref, "request", RunRequest.model_validate_json, deps)
    outputs = await _outputs(run, _references(step, task), deps)
    return StepView(run, tenant, plan, run.plan_hash or "", step, request, outputs)


@dataclass(frozen=True, slots=True)
class _ReadPlan:
    """A plan, and its steps by id: every step of a run looks for its own."""

    plan: Plan
    steps: Mapping[str, Step]


async def _plan(run: Run, ref: PayloadRef, plan_hash: str, deps: Deps) -> _ReadPlan:
    if ref.sha256 != plan_hash:  # the plan is stored in the form that its hash is the hash of
        raise LivoaError("plan.tampered", "the stored plan is not the one that was vetted", status=409)
    read: _ReadPlan = await _CACHE.read(run, ref, "plan", _parse_plan, deps)
    return read


async def _replaced(run: Run, plan: Plan, task: StepTask, deps: Deps) -> tuple[Run, Plan, Step | None]:
    """The run as it was when the plan still had this step: a repair has replaced it, but what it did can be undone."""
    for version in reversed(run.earlier_plans):
        earlier = await _plan(run, version.plan_ref, version.plan_hash, deps)
        if (step := earlier.steps.get(task.step_id)) is not None:
            then = {
                "plan_ref": version.plan_ref,
                "plan_hash": version.plan_hash,
                "plan_version": version.plan_version,
                "provenance": version.provenance,
            }
            return run.model_copy(update=then), earlier.plan, step
    return run, plan, None


def _references(step: Step, task: StepTask) -> set[str]:
    """The other steps whose outputs the call may ask for."""
    found = set(referenced_steps(step))
    if task.purpose == "compensation" and step.compensate_with is not None:
        found.update(referenced_steps(step.model_copy(update={"inputs": step.compensate_with.inputs})))
    return found - {step.id}


def _parse_plan(data: bytes) -> _ReadPlan:
    plan = parse_checked_plan(json.loads(data))
    return _ReadPlan(plan, {step.id: step for step in plan.steps})


async def _outputs(run: Run, step_ids: Iterable[str], deps: Deps) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for step_id in sorted(set(step_ids)):
        record = await deps.runs.get_step(run.tenant_id, run.run_id, step_id)
        outputs[step_id] = await load_output(run, record, deps)
    return outputs


async def load_output(run: Run, record: StepRecord | None, deps: Deps) -> Any:
    """The output of a step that succeeded, ``ABSENT`` otherwise."""
    if record is None or record.status is not StepStatus.SUCCEEDED or record.output_ref is None:
        return ABSENT
    return await _CACHE.read(run, record.output_ref, "json", json.loads, deps)
