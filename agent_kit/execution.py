"""One execution: claim its key, run the capability within the deadline, check the output, settle the claim.

The answer and the settlement are two things: work that cannot be stopped at the deadline goes on, keeps its claim and its slot,
and its success is there for the retry. Leases are short and renewed while the work lasts, so a crash blocks nobody for long.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from pydantic import BaseModel

from agent_kit.agent import CapabilityError, Registered, StepContext
from agent_kit.idempotency import Claimed, IdempotencyStore, InFlight, Mismatch, Replayed
from agent_kit.problems import RefusedError
from engine.domain.base import JsonValue
from engine.domain.execute import (
    MAX_RESPONSE_BYTES,
    ExecuteError,
    ExecuteFailed,
    ExecuteRequest,
    ExecuteResponse,
    ExecuteSucceeded,
    Usage,
)
from engine.domain.grants import request_sha256

_LOG = logging.getLogger("agent_kit")
LEASE_S = 15.0
_RENEW_EVERY_S = 5.0
_BUSY_RETRY_S = 1.0
_MAX_IN_FLIGHT_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes to answer 200 with; ``replayed`` says that an earlier execution made them."""

    body: bytes
    replayed: bool = False


def _deadline_passed() -> RefusedError:
    return RefusedError(408, "agent.deadline", "The deadline has passed.", retryable=True)


@dataclass(slots=True)
class Executions:
    """All executions of one agent process. ``slots`` caps how many run at once."""

    store: IdempotencyStore
    executor: Executor
    now: Callable[[], datetime]
    slots: int
    running: set[asyncio.Task[bytes]] = field(default_factory=set)

    async def execute(self, registered: Registered, request: ExecuteRequest) -> Answer:
        """Answer one call.

        Raises ``RefusedError``: 408 out of time, 409 in flight, 422 key of another request, 429 no slot free.
        """
        budget_s = (request.deadline_at - self.now()).total_seconds()
        if budget_s <= 0:
            raise _deadline_passed()
        budget_s = min(budget_s, registered.manifest.timeout_s)
        sha256 = request_sha256(request.capability, request.inputs)
        claim = self.store.claim(request.tenant_id, request.idempotency_key, sha256, LEASE_S)
        match claim:
            case Replayed(response):
                return Answer(response, replayed=True)
            case Mismatch():
                raise RefusedError(422, "agent.key_reused", "This idempotency key belongs to another request.")
            case InFlight(for_s):
                wait_s = min(for_s, _MAX_IN_FLIGHT_WAIT_S)
                raise RefusedError(
                    409, "agent.in_flight", "The same call is being executed.", retryable=True, retry_after_s=wait_s
                )
            case Claimed(token):
                return await self._run(registered, request, token, budget_s)
            case _:
                assert_never(claim)

    async def _run(self, registered: Registered, request: ExecuteRequest, token: str, budget_s: float) -> Answer:
        if len(self.running) >= self.slots:
            self.store.release(request.tenant_id, request.idempotency_key, token)
            raise RefusedError(429, "agent.busy", "Every slot is taken.", retryable=True, retry_after_s=_BUSY_RETRY_S)
        context = StepContext(request=request, manifest=registered.manifest, executor=self.executor)
        task = asyncio.create_task(self._perform_and_settle(registered, context, token))
        self.running.add(task)
        task.add_done_callback(self._finished)
        try:
            await asyncio.wait({task}, timeout=budget_s)
            if task.done():
                return Answer(task.result())
            raise _deadline_passed()
        finally:
            if not task.done() and not context.pending:
                task.cancel()

    def _finished(self, task: asyncio.Task[bytes]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("execution did not settle", extra={"error_type": type(error).__name__})

    async def _perform_and_settle(self, registered: Registered, context: StepContext, token: str) -> bytes:
        tenant_id, key = context.request.tenant_id, context.request.idempotency_key
        settled = False
        keeper = asyncio.create_task(self._keep_lease(tenant_id, key, token))
        try:
            response = await _perform(registered, context)
            body = response.model_dump_json().encode()
            if isinstance(response, ExecuteSucceeded):
                if not self.store.succeed(tenant_id, key, token, body):
                    raise RefusedError(409, "agent.in_flight", "The claim on this call has passed on.", retryable=True)
                settled = True
            return body
        finally:
            keeper.cancel()
            if not settled:
                self.store.release(tenant_id, key, token)

    async def _keep_lease(self, tenant_id: str, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            if not self.store.renew(tenant_id, key, token, LEASE_S):
                return

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is running; returns how many executions were still going when time was up."""
        if self.running:
            await asyncio.wait(set(self.running), timeout=timeout_s)
        return len(self.running)


async def _perform(registered: Registered, context: StepContext) -> ExecuteResponse:
    """Run the capability. Whatever it raises becomes a typed error; an unexpected one says no more than that it happened."""
    try:
        result = await registered.handler(registered.parse(context.request.inputs), context)
    except CapabilityError as error:
        return ExecuteFailed(error=error.error)
    except Exception as error:
        # The type and place are for the agent's operator; a message could hold data and stays out of the log.
        place = place_of(error)
        _LOG.error("capability failed", extra={"error_type": type(error).__name__, "error_place": place})
        return ExecuteFailed(
            error=ExecuteError(code="agent.internal", message="The capability failed unexpectedly.", retryable=True)
        )
    return _checked(registered, context, _as_json(result))


def _checked(registered: Registered, context: StepContext, output: JsonValue) -> ExecuteResponse:
    problem = "" if _is_json(output) else "the output is not JSON"
    if not problem:
        found = registered.output_schema.violations(output, code="agent.output_invalid")
        problem = "; ".join(f"{violation.pointer or '/'}: {violation.message}" for violation in found[:5])
    usage = context.usage or Usage(cost_micro_usd=registered.manifest.cost.per_call_micro_usd)
    response = ExecuteSucceeded(output=output, usage=usage)
    if not problem and len(response.model_dump_json().encode()) > MAX_RESPONSE_BYTES:
        problem = f"the answer is larger than {MAX_RESPONSE_BYTES} bytes"
    if not problem:
        return response
    _LOG.error("output violates the manifest", extra={"capability": registered.manifest.name, "problem": problem[:500]})
    return ExecuteFailed(error=ExecuteError(code="agent.contract_violation", message=problem[:1_000]))


def _as_json(result: Any) -> JsonValue:
    return result.model_dump(mode="json", exclude_none=True) if isinstance(result, BaseModel) else result


def _is_json(value: JsonValue) -> bool:
    """False for anything that JSON cannot carry: NaN, infinity, other types, keys that are no strings."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                return False
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, float):
            if not math.isfinite(node):
                return False
        elif not (node is None or isinstance(node, str | int)):
            return False
    return True


def place_of(error: BaseException) -> str:
    """Function and line where an exception was raised: safe to log, unlike its message."""
    place = "unknown"
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
